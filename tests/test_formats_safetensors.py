"""Files of safetensors: those of its own library, those made by hand, and files that lie."""

import json
import time
import tracemalloc

import numpy as np
import pytest
from support.comparing import assert_identical
from support.hostile import changed, truncated
from support.processes import run_python
from support.torch_files import outcome

from lstm_fast import LSTM, nn
from lstm_fast.formats import from_safetensors, safetensors

pytestmark = pytest.mark.no_isa
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


def weights(rng, I=3, H=4, dtype=np.float32, **names):
    """Return a state_dict of an LSTM, with values of order 1 / 2."""
    shapes = {key: v.shape for key, v in LSTM(I, H, dtype=dtype, **names).state_dict().items()}
    return {key: (rng.standard_normal(n) / 2).astype(dtype) for key, n in shapes.items()}


def packed(header, data=b""):
    """Return a file of a header, as text or JSON, and the bytes after it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def saved(arrays, about=None):
    """Return a file of arrays by name."""
    header, data = {} if about is None else {"__metadata__": about}, b""
    for name, array in arrays.items():
        kind = {"f8": "F64", "f4": "F32", "f2": "F16", "u2": "BF16"}[array.dtype.str[1:]]
        after = len(data) + array.nbytes
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), after]}
        data += array.tobytes()
    return packed(header, data)


def written(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    return path


# ---- against PyTorch


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16"])
def test_model_against_pytorch(tmp_path, kind):
    torch = pytest.importorskip("torch", reason="no PyTorch: its own files are not compared")
    save_file = pytest.importorskip("safetensors.torch", reason="no safetensors").save_file
    torch.manual_seed(0)
    module = torch.nn.ModuleDict(
        {
            "words": torch.nn.Embedding(9, 3),
            "rnn": torch.nn.LSTM(3, 4, 2, bidirectional=True),
            "norm": torch.nn.LayerNorm(8),
            "head": torch.nn.Linear(8, 2),
        }
    ).to(getattr(torch, kind))
    save_file(module.state_dict(), tmp_path / "a.safetensors")
    model = from_safetensors(tmp_path / "a.safetensors", verify=True)
    assert [*model.blocks] == ["words", "rnn", "norm", "head"]
    assert model.dtype == (np.float64 if kind == "float64" else np.float32)
    wide = torch.float64 if kind == "float64" else torch.float32
    expected = {name: value.to(wide).numpy() for name, value in module.state_dict().items()}
    assert_identical(model.state_dict(), {name: expected[name] for name in model.state_dict()})
    lstm = from_safetensors(tmp_path / "a.safetensors", "rnn", batch_first=True, verify=True)
    assert (lstm.num_layers, lstm.bidirectional, lstm.batch_first) == (2, True, True)


# ---- without either


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "bfloat16"])
def test_file_made_by_hand(tmp_path, rng, kind):
    expected = weights(rng, bidirectional=True, dtype=np.float64 if kind == "f8" else np.float32)
    if kind == "bfloat16":
        stored = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in expected.items()}
        expected = {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in stored.items()}
    else:
        stored = {k: v.astype(kind) for k, v in expected.items()}
        expected = {k: v.astype(expected[k].dtype) for k, v in stored.items()}
    lstm = from_safetensors(written(tmp_path, saved(stored, {"format": "pt"})))
    assert_identical(lstm.state_dict(), expected)


def test_neither_pytorch_nor_safetensors_is_used(tmp_path, rng):
    path = written(tmp_path, saved(weights(rng)))
    code = f"""if True:
        import sys
        sys.modules["torch"] = sys.modules["safetensors"] = None
        from lstm_fast.formats import from_safetensors
        print(from_safetensors({str(path)!r}))
        try:
            from_safetensors({str(path)!r}, verify=True)
        except ImportError as error:
            print(error)
        """
    lstm, error = run_python(code, "-W", "error").splitlines()
    assert lstm == "LSTM(3, 4, dtype=float32)"
    assert "pip install 'lstm_fast[torch,files]'" in error


def test_sizes_have_to_say_the_order(tmp_path, rng):
    """Names stand in the order of the alphabet, which is no evidence."""
    state = {f"rnn.{name}": value for name, value in weights(rng, 4, 4).items()}
    path = written(tmp_path, saved(state | {"a.weight": np.ones((4, 4)), "a.bias": np.ones(4)}))
    with pytest.raises(ValueError, match=r"more than one order.*prefix='rnn' reads the LSTM"):
        from_safetensors(path)
    assert isinstance(from_safetensors(path, "rnn"), LSTM)
    assert [row.kind for row in safetensors.inspect(path)] == ["LSTM", "Linear"]


def test_files_of_the_package_have_their_reader(tmp_path):
    pytest.importorskip("safetensors", reason="files need safetensors: pip install '.[files]'")
    path = tmp_path / "a.safetensors"
    nn.Sequential(lstm=LSTM(3, 4)).save(path)
    with pytest.raises(ValueError, match=r"lstm_fast\.load reads it"):
        from_safetensors(path)
    assert [row.name for row in safetensors.inspect(path)] == ["lstm"]


def test_numbers_that_are_no_weights(tmp_path, rng):
    state = weights(rng)
    header = json.loads(saved(state)[8:].split(b"}}")[0] + b"}}")
    header["bias_hh_l0"] |= {"dtype": "I32"}
    data = b"".join(value.tobytes() for value in state.values())
    with pytest.raises(ValueError, match="bias_hh_l0: holds int32"):
        from_safetensors(written(tmp_path, packed(header, data)))
    header["bias_hh_l0"] |= {"dtype": "X9"}
    with pytest.raises(ValueError, match="bias_hh_l0: holds X9"):
        from_safetensors(written(tmp_path, packed(header, data)))


# ---- files that lie


def test_damaged(tmp_path, rng):
    """Changed numbers are other numbers: there is no checksum."""
    data = saved(weights(rng, 2, 3))
    for damaged in [*truncated(data), *changed(data, rng, 800), *changed(data[:300], rng, 400)]:
        outcome(from_safetensors, written(tmp_path, damaged))
    for damaged in truncated(data):
        assert outcome(from_safetensors, written(tmp_path, damaged)) is None


def row(begin, end, shape=(1,), dtype="F32", **more):
    return {"dtype": dtype, "shape": [*shape], "data_offsets": [begin, end], **more}


HOSTILE = {
    "empty": b"",
    "short": b"1234567",
    "header longer than the file": (2**40).to_bytes(8, "little") + b"{}",
    "huge header": packed(b"[" + b"[]," * 1_000_000 + b"[]]"),
    "deep": packed(b"[" * 100_000),
    "no JSON": packed(b"{a}"),
    "no UTF-8": packed(b'{"\xff": 1}'),
    "list": packed(b"[]"),
    "key twice": packed(b'{"a": 1, "a": 1}'),
    "metadata": packed({"__metadata__": {"a": 1}}),
    "no row": packed({"a": 1}),
    "more in a row": packed({"a": row(0, 4, more=1)}, bytes(4)),
    "number too long": packed(b'{"a": ' + b"9" * 5000 + b"}"),
    "negative": packed({"a": row(-4, 0)}, bytes(4)),
    "fraction": packed({"a": row(0, 4.0)}, bytes(4)),
    "truth": packed({"a": row(False, 4)}, bytes(4)),
    "backwards": packed({"a": row(4, 0)}, bytes(4)),
    "gap": packed({"a": row(0, 4), "b": row(8, 12)}, bytes(12)),
    "overlap": packed({"a": row(0, 8, (2,)), "b": row(4, 12, (2,))}, bytes(12)),
    "same place": packed({"a": row(0, 4), "b": row(0, 4)}, bytes(4)),
    "beyond the end": packed({"a": row(0, 8, (2,))}, bytes(4)),
    "rest": packed({"a": row(0, 4)}, bytes(8)),
    "overflow": packed({"a": row(0, 0, (2**62, 4))}),
    "shape": packed({"weight_hh": row(0, 16, (2**40, 2**40))}, bytes(16)),
    "many axes": packed({"a": row(0, 4, (1,) * 100)}, bytes(4)),
    "no weights": packed({}),
    "infinity": packed(
        b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}', b"1234"
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path, case):
    path = written(tmp_path, HOSTILE[case])
    began = time.monotonic()
    tracemalloc.start()
    try:
        assert outcome(from_safetensors, path) is None
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + 2**26
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_safetensors(tmp_path / "none.safetensors")
