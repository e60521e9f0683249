"""Files of PyTorch: against its own modules, without it, and files that lie."""

import argparse
import itertools
import os
import pickle
import time
import tracemalloc
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from support.comparing import assert_close, assert_identical
from support.hostile import changed, read_all, truncated
from support.processes import run_python
from support.torch_files import (
    mapping,
    number,
    outcome,
    saved,
    tensor,
    text,
    zipped,
)

from lstm_fast import LSTM, nn
from lstm_fast.formats import from_torch, to_torch
from lstm_fast.formats.pytorch import reader as pytorch

pytestmark = [
    pytest.mark.no_isa,
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore:Converting a tensor"),
]
T, B = 4, 3
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="no PyTorch: its own files are not compared")


def weights(rng, I=3, H=4, dtype=np.float32, **names):
    """Return a state_dict of an LSTM, with values of order 1 / 2."""
    made = LSTM(I, H, dtype=dtype, **names).state_dict()
    return {
        key: (rng.standard_normal(value.shape) / 2).astype(dtype) for key, value in made.items()
    }


def written(path, data):
    path.write_bytes(data)
    return path


def run(lstm, seed=1):
    """Return x, a state that is not zero, and what the LSTM makes of them, as one tuple."""
    rng = np.random.default_rng(seed)
    D, P = 2 if lstm.bidirectional else 1, lstm.proj_size or lstm.hidden_size
    shape = (B, T) if lstm.batch_first else (T, B)
    x = rng.standard_normal((*shape, lstm.input_size)).astype(lstm.dtype)
    h0 = rng.standard_normal((D * lstm.num_layers, B, P)).astype(lstm.dtype)
    c0 = rng.standard_normal((D * lstm.num_layers, B, lstm.hidden_size)).astype(lstm.dtype)
    y, (hn, cn) = lstm(x, (h0, c0))
    return (x, h0, c0), (y, hn, cn)


def assert_as_pytorch(lstm, module):
    """The same results, with a state that is not zero."""
    import torch

    (x, *state), results = run(lstm)
    with torch.no_grad():
        y, (h, c) = module(torch.from_numpy(x), tuple(map(torch.from_numpy, state)))
    tolerance = 1e-6 if lstm.dtype == np.float32 else 1e-13
    assert_close(results, [t.numpy() for t in (y, h, c)], tolerance, floor=1)


def randomised(module):
    """Return a module with values of order 1 / 2, so that both biases matter."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


# ---- against PyTorch

SETTINGS = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "bias": False, "batch_first": True},
    {"proj_size": 2, "num_layers": 2, "bidirectional": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("how", ["zip", "legacy", "script", "trace"])
def test_lstm_against_pytorch(torch, tmp_path, settings, how):
    module = randomised(torch.nn.LSTM(3, 5, **settings))
    path, order = tmp_path / "a.pt", settings.get("batch_first", False)
    if how == "script":
        torch.jit.script(module).save(path)
    elif how == "trace":
        torch.jit.trace(module, torch.ones(2, 2, 3)).save(path)
    else:
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=how == "zip")
    lstm = from_torch(path, batch_first=order, verify=True)
    for name, value in settings.items():
        assert getattr(lstm, name) == value
    assert_as_pytorch(lstm, module)
    assert_identical(lstm.state_dict(), {k: v.numpy() for k, v in module.state_dict().items()})


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16"])
def test_dtypes_against_pytorch(torch, tmp_path, kind):
    module = randomised(torch.nn.LSTM(3, 5, dtype=getattr(torch, kind)))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    lstm = from_torch(tmp_path / "a.pt", verify=True)
    assert lstm.dtype == (np.float64 if kind == "float64" else np.float32)
    wide = torch.float64 if kind == "float64" else torch.float32
    assert_as_pytorch(lstm, module.to(wide))
    assert_identical(from_torch(module.state_dict()).state_dict(), lstm.state_dict())


def test_cell_against_pytorch(torch, tmp_path):
    cell = randomised(torch.nn.LSTMCell(3, 5))
    torch.save(cell.state_dict(), tmp_path / "a.pt")
    lstm = from_torch(tmp_path / "a.pt", verify=True)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    with torch.no_grad():
        h, c = cell(torch.from_numpy(x))
    _, (hn, cn) = lstm(x[None])
    assert_close((hn[0], cn[0]), (h.numpy(), c.numpy()), 1e-6)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_of_pickle(torch, tmp_path, protocol):
    module = randomised(torch.nn.LSTM(3, 5))
    torch.save(module.state_dict(), tmp_path / "a.pt", pickle_protocol=protocol)
    assert_as_pytorch(from_torch(tmp_path / "a.pt"), module)


def test_without_checksums(torch, tmp_path):
    module = randomised(torch.nn.LSTM(3, 5))
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(module.state_dict(), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_as_pytorch(from_torch(tmp_path / "a.pt"), module)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_one_storage(torch, tmp_path, legacy):
    """Parameters that share memory, transposed, and with an offset, as on a GPU."""
    module = randomised(torch.nn.LSTM(3, 5))
    state = dict(module.state_dict())
    joint = torch.cat([state["bias_ih_l0"], state["bias_hh_l0"]])
    state |= {"bias_ih_l0": joint[:20], "bias_hh_l0": joint[20:]}
    state["weight_ih_l0"] = state["weight_ih_l0"].t().contiguous().t()
    assert state["weight_ih_l0"].stride() == (1, 20)
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert_as_pytorch(from_torch(tmp_path / "a.pt"), module)
    assert_as_pytorch(from_torch(state), module)


class Tagger:
    """What a program may have: made late, as PyTorch may be missing."""

    def __new__(cls, between=None):
        import torch

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = torch.nn.Embedding(9, 3)
                self.lstm = torch.nn.LSTM(3, 4, 2, bidirectional=True)
                self.norm = torch.nn.LayerNorm(8)
                if between is not None:
                    self.between = between
                self.head = torch.nn.Linear(8, 2)

            def forward(self, x):
                return self.head(self.norm(self.lstm(self.embed(x))[0]))

        return randomised(Module())


WRAPPINGS = {
    "bare": lambda state: state,
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "loss": 0.5},
    "deep": lambda state: {"a": [{"b": {"c": state}}]},
    "parallel": lambda state: {"state_dict": {f"module.{name}": v for name, v in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{name}": v for name, v in state.items()},
    "parts compiled": lambda state: {
        n.replace("lstm.", "lstm._orig_mod."): state[n] for n in state
    },
    "objects": lambda state: {"args": argparse.Namespace(lr=0.1, who={1, 2}), "net": state},
    "by module": lambda state: {
        key: {name.partition(".")[2]: state[name] for name in state if name.startswith(key)}
        for key in ("embed", "lstm", "norm", "head")
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_checkpoint_against_pytorch(torch, tmp_path, wrapping):
    module = Tagger()
    torch.save(WRAPPINGS[wrapping](module.state_dict()), tmp_path / "a.pt")
    model = from_torch(tmp_path / "a.pt", verify=None if wrapping == "objects" else True)
    assert [type(block).__name__ for block in model] == ["Embedding", "LSTM", "LayerNorm", "Linear"]
    words = np.random.default_rng(0).integers(0, 9, (T, B))
    with torch.no_grad():
        expected = module(torch.from_numpy(words)).numpy()
    assert_close([model(words)[0]], [expected], 1e-6)
    model.load_state_dict({k: v.numpy() for k, v in module.state_dict().items()})
    assert [*to_torch(model)] == [*module.state_dict()]


def test_what_is_beside_the_weights(torch, tmp_path):
    module = Tagger()
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.zeros((2, 2), dtype=torch.int64)).sum().backward()
    optimiser.step()
    checkpoint = {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimiser.state_dict()],
        "rng": torch.get_rng_state(),
        "best": torch.tensor(0.25),
        "lr_schedulers": [{"last": 1.0}],
        "device": torch.device("cpu"),
    }
    torch.save(checkpoint, tmp_path / "a.pt")
    assert isinstance(from_torch(tmp_path / "a.pt"), nn.Sequential)
    checkpoint["average"] = {f"{k}": v + 1 for k, v in module.state_dict().items()}
    torch.save(checkpoint, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"there are 2: 'state_dict\.lstm' .*'average\.lstm'"):
        from_torch(tmp_path / "a.pt")
    lstm = from_torch(tmp_path / "a.pt", "average.lstm", verify=True)
    assert_identical([lstm.weight_ih_l0], [checkpoint["average"]["lstm.weight_ih_l0"].numpy()])
    assert isinstance(from_torch(tmp_path / "a.pt", "average"), nn.Sequential)


def test_scripted_model(torch, tmp_path):
    torch.jit.script(Tagger()).save(tmp_path / "a.pt")
    assert len(from_torch(tmp_path / "a.pt", verify=True)) == 4
    for layer in (torch.nn.ReLU(), torch.nn.GroupNorm(2, 8)):
        torch.jit.script(Tagger(layer)).save(tmp_path / "b.pt")
        with pytest.raises(ValueError, match=r"between.*prefix='lstm' reads the LSTM alone"):
            from_torch(tmp_path / "b.pt")
        assert isinstance(from_torch(tmp_path / "b.pt", "lstm", verify=True), LSTM)


def test_whole_modules_are_refused(torch, tmp_path):
    torch.save({"model": torch.nn.Sequential(torch.nn.LSTM(3, 4))}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"whole module, torch\.nn\.modules.*state_dict"):
        from_torch(tmp_path / "a.pt")
    assert [row.kind for row in pytorch.inspect(tmp_path / "a.pt")] == ["LSTM"]


@pytest.mark.filterwarnings("ignore")
def test_quantised_models_are_refused(torch, tmp_path):
    kinds = {torch.nn.LSTM, torch.nn.Linear}
    module = torch.ao.quantization.quantize_dynamic(Tagger(), kinds, dtype=torch.qint8)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="is quantised"):
        from_torch(tmp_path / "a.pt")
    value = torch.quantize_per_tensor(torch.ones(16, 3), 0.1, 0, torch.qint8)
    state = torch.nn.LSTM(3, 4).state_dict() | {"weight_ih_l0": value}
    torch.save(state, tmp_path / "b.pt")
    for source in (state, tmp_path / "b.pt"):
        with pytest.raises(ValueError, match=r"weight_ih_l0.*(qint8|qtensor)"):
            from_torch(source)


def test_to_torch(torch):
    lstm = LSTM(3, 4, 2, bidirectional=True, dtype=np.float64, init="keras", dropout=0.1)
    module = torch.nn.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    module.load_state_dict(to_torch(lstm))
    assert_as_pytorch(lstm, module.eval())
    before = lstm.state_dict()
    to_torch(lstm)["weight_ih_l0"].zero_()
    assert_identical(lstm.state_dict(), before)


@pytest.mark.parametrize(
    "options",
    [
        {"reverse": True},
        {"bidirectional": True, "merge": "sum"},
        {"peephole": True},
        {"coupled": True},
        {"clip": 1.0},
        {"cell_clip": 1.0},
        {"activations": ("HardSigmoid", "Tanh", "Tanh")},
        {"layer_norm": True},
        {"layer_norm": "gates"},
        {"zoneout": (0.1, 0.1)},
        {"residual": True, "num_layers": 2},
        {"recurrent_dropout": 0.1},
        {"hidden_size": (4, 5)},
    ],
    ids=str,
)
def test_to_torch_refuses_what_pytorch_has_not(options):
    lstm = LSTM(**{"input_size": 4, "hidden_size": 4} | options)
    name = "merge" if "merge" in options else next(iter(options))
    with pytest.raises(ValueError, match=f"^lstm: {name}="):
        to_torch(nn.Sequential(lstm=lstm))


# ---- without PyTorch


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "bfloat16"])
def test_file_made_by_hand(tmp_path, rng, byteorder, kind):
    expected = weights(rng, num_layers=2, dtype=np.float64 if kind == "f8" else np.float32)
    if kind == "bfloat16":
        bits = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in expected.items()}
        expected = {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in bits.items()}
        data = saved(bits, byteorder)
    else:
        stored = {k: v.astype(kind) for k, v in expected.items()}
        expected = {k: v.astype(expected[k].dtype) for k, v in stored.items()}
        data = saved(stored, byteorder)
    lstm = from_torch(written(tmp_path / "a.pt", data))
    assert_identical(lstm.state_dict(), expected)


def test_neither_pytorch_nor_code_of_the_file_is_used(tmp_path, rng):
    path = written(tmp_path / "a.pt", saved(weights(rng)))
    evil = mapping(
        {"a": b"cposix\nsystem\n" + text("exit 7") + b"\x85R", "w": b"ctorch\nnn\n)\x81"}
    )
    written(tmp_path / "evil.pt", zipped(evil))
    code = f"""if True:
        import sys
        sys.modules["torch"] = sys.modules["safetensors"] = None
        from lstm_fast.formats import from_torch
        print(from_torch({str(path)!r}))
        for call in (lambda: from_torch({str(path)!r}, verify=True),
                     lambda: from_torch({str(tmp_path / "evil.pt")!r})):
            try:
                call()
            except (ImportError, ValueError) as error:
                print(error)
        """
    lstm, verifying, evil = run_python(code, "-W", "error").splitlines()
    assert lstm == "LSTM(3, 4, dtype=float32)"
    assert "pip install 'lstm_fast[torch]'" in verifying
    assert "there is none" in evil


def test_verify_with_recorded_output(capsys, rng):
    state = weights(rng)
    lstm = from_torch(state)
    x = rng.standard_normal((T, B, 3)).astype(np.float32)
    from_torch(state, verify=(x, lstm(x)[0]))
    assert "verified" in capsys.readouterr().err
    with pytest.raises(ValueError, match="more than rounding"):
        from_torch(state, verify=(x, lstm(x)[0] + 1e-3))


def wrong_weights():
    """Return, by name, what a wrong reader would make of a state_dict of two directions, I = H."""

    def rows(order):
        def permuted(state):
            blocks = {k: v.reshape(4, -1, *v.shape[1:]) for k, v in state.items()}
            return {k: v[list(order)].reshape(state[k].shape) for k, v in blocks.items()}

        return permuted

    found = {f"order {order}": rows(order) for order in itertools.permutations(range(4))}
    found.pop(f"order {(0, 1, 2, 3)}")

    def transposed(state):
        H = 4
        turned = np.concatenate([state["weight_hh_l0"][n * H : n * H + H].T for n in range(4)])
        return state | {"weight_hh_l0": turned}

    return found | {
        "transposed": transposed,
        "dropped bias": lambda state: state | {"bias_hh_l0": 0 * state["bias_hh_l0"]},
        "doubled bias": lambda state: state | {"bias_ih_l0": 2 * state["bias_ih_l0"]},
        "directions": lambda state: {
            k: state[k.removesuffix("_reverse") if "_rev" in k else f"{k}_reverse"] for k in state
        },
    }


@pytest.mark.parametrize("mistake", wrong_weights())
def test_comparison_sees_mistakes(rng, mistake):
    """The comparison of `assert_as_pytorch` would not pass with such a reader."""
    state = weights(rng, 4, 4, bidirectional=True)
    right, wrong = from_torch(state), from_torch(wrong_weights()[mistake](state))
    with pytest.raises(AssertionError):
        assert_close(run(wrong)[1], run(right)[1], 1e-3, floor=1)


# ---- what a state_dict leaves open


def arrays(**shapes):
    """Return arrays of random numbers by names, in which `_` after a module is a dot."""
    rng = np.random.default_rng(0)
    of = {name.replace("__", "."): shape for name, shape in shapes.items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in of.items()}


def lstm_shapes(I, H, name="lstm", D=1):
    found = {}
    for end in ("", "_reverse")[:D]:
        for key, shape in zip(NAMES, ((4 * H, I), (4 * H, H), (4 * H,), (4 * H,)), strict=True):
            found[f"{name}__{key}{end}"] = shape
    return found


def linear(name, I, O):
    return {f"{name}__weight": (O, I), f"{name}__bias": (O,)}


def norm(name, n):
    return {f"{name}__weight": (n,), f"{name}__bias": (n,)}


LSTM34 = lstm_shapes(3, 4)
READ = {
    "embedding": ({"a__weight": (7, 3), **LSTM34}, "Embedding LSTM"),
    "linear without bias before": ({"a__weight": (3, 7), **LSTM34}, "Linear LSTM"),
    "linear without bias after": ({**LSTM34, "a__weight": (7, 4)}, "LSTM Linear"),
    "all": (
        {"a__weight": (9, 5)} | linear("b", 5, 3) | norm("c", 3) | LSTM34 | norm("d", 4),
        "Embedding Linear LayerNorm LSTM LayerNorm",
    ),
    "made in another order": (
        {**LSTM34, **linear("head", 4, 2), "embed__weight": (9, 3)},
        "Embedding LSTM Linear",
    ),
    "equal sizes, in the order of names": (
        {"e__weight": (9, 4)} | lstm_shapes(4, 4) | norm("n", 4) | linear("o", 4, 4),
        "Embedding LSTM LayerNorm Linear",
    ),
    "nested": (
        {"m__enc__weight": (7, 3)} | lstm_shapes(3, 4, "m__rnn") | linear("o", 4, 2),
        "Sequential Linear",
    ),
}


@pytest.mark.parametrize("case", READ)
def test_blocks_around(case):
    shapes, kinds = READ[case]
    state = arrays(**shapes)
    model = from_torch(state)
    assert " ".join(type(block).__name__ for block in model) == kinds
    assert_identical(model.state_dict(), {name: state[name] for name in model.state_dict()})
    assert model.state_dict().keys() == state.keys()


REFUSED = {
    "two linear layers": (LSTM34 | linear("a", 4, 5) | linear("b", 5, 2), "does not say"),
    "convolution": ({"conv__weight": (3, 3, 3), "conv__bias": (3,), **LSTM34}, "conv .other"),
    "batch norm": (LSTM34 | norm("bn", 4) | {"bn__running_mean": (4,)}, "bn .other"),
    "norm without bias": (LSTM34 | {"norm__weight": (4,)}, "norm .other"),
    "square table": ({"a__weight": (3, 3), **LSTM34}, "more than one order"),
    "square table before": ({"a__weight": (4, 4), **lstm_shapes(4, 4)}, "more than one order"),
    "table after, of both sizes": (
        lstm_shapes(4, 4) | {"a__weight": (7, 4)},
        "more than one order",
    ),
    "sizes": (LSTM34 | linear("a", 5, 2), "do not follow"),
    "parameter alone": (LSTM34 | {"scale": (3,)}, r"tensors \(other\)"),
    "two": (LSTM34 | lstm_shapes(4, 5, "dec"), r"2: 'lstm' \(3 -> 4\), 'dec' \(4 -> 5\); prefix="),
    "inside": (LSTM34 | norm("lstm__ln", 4), "more than an LSTM"),
    "GRU": ({"rnn__weight_ih_l0": (12, 3), "rnn__weight_hh_l0": (12, 4)}, "none; .*rnn .GRU"),
    "RNN": ({"rnn__weight_ih_l0": (4, 3), "rnn__weight_hh_l0": (4, 4)}, "none; .*rnn .RNN"),
    "nothing": ({"fc__weight": (2, 2)}, "there is none"),
    "half a bias": ({k: v for k, v in LSTM34.items() if "bias_hh" not in k}, "bias_hh_l0: is miss"),
    "no input weights": ({k: v for k, v in LSTM34.items() if "_ih" not in k}, "weight_ih_l0: is m"),
    "a layer": ({k.replace("l0", "l1"): v for k, v in LSTM34.items()}, "2 layers"),
    "a direction": (
        lstm_shapes(3, 4, D=2) | {"lstm__weight_ih_l1": (16, 8), "lstm__weight_hh_l1": (16, 4)},
        "2 layers in 2 directions",
    ),
    "unknown parameter": (LSTM34 | {"lstm__weight_ch_l0": (12,)}, "weight_ch_l0: is not known"),
    "rows": (LSTM34 | {"lstm__weight_ih_l0": (12, 3)}, r"shape \(12, 3\)"),
    "bias": (LSTM34 | {"lstm__bias_hh_l0": (12,)}, r"shape \(12,\)"),
    "second layer": (
        {**LSTM34, "lstm__weight_ih_l1": (16, 5), "lstm__weight_hh_l1": (16, 4)},
        "bias",
    ),
    "around one another": (
        linear("a__in", 5, 3) | LSTM34 | linear("a__out", 4, 2),
        "lie in one another",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    shapes, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"^dict: .*{message}"):
        from_torch(arrays(**shapes))
    assert pytorch.inspect(arrays(**shapes))


def test_prefix():
    state = arrays(**LSTM34, **lstm_shapes(4, 5, "dec__rnn"), **linear("dec__out", 5, 2))
    assert from_torch(state, "lstm").hidden_size == 4
    assert from_torch({"net": state}, "net.lstm").hidden_size == 4
    assert from_torch(state, "dec.rnn", batch_first=True).batch_first
    assert [*from_torch(state, "dec").blocks] == ["rnn", "out"]
    with pytest.raises(ValueError, match=r"prefix='ls': no tensor is there; there are lstm, dec"):
        from_torch(state, "ls")
    with pytest.raises(ValueError, match="there is none"):
        from_torch(state, "dec.out")


def test_inspect(tmp_path, rng):
    state = {f"enc.{name}": value for name, value in weights(rng, num_layers=2).items()}
    path = written(tmp_path / "a.pt", saved(state | arrays(**linear("out", 4, 2), conv=(3, 3, 3))))
    rows = {row.name: row for row in pytorch.inspect(path)}
    assert rows["enc"][1:5] == ("LSTM", "3 -> 4", "2 layers", "float32")
    assert rows["out"][1:] == ("Linear", "4 -> 2", "", "float32", 10)
    assert rows[""].kind == "other"


def test_integers_and_names_that_are_the_same():
    state = arrays(**LSTM34)
    with pytest.raises(ValueError, match=r"lstm\.bias_hh_l0: holds int64"):
        from_torch(state | {"lstm.bias_hh_l0": np.ones(16, np.int64)})
    with pytest.raises(ValueError, match="stands twice"):
        from_torch(state | {"lstm._orig_mod.bias_hh_l0": state["lstm.bias_hh_l0"]})


def test_no_file(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            from_torch(path)
    with pytest.raises(TypeError, match=r"a path or a mapping, as a state_dict\(\) is, got LSTM"):
        from_torch(LSTM(3, 4))


# ---- files that lie


def same(found, expected):
    return found is None or (
        found.keys() == expected.keys()
        and all(np.array_equal(found[name], expected[name]) for name in expected)
    )


def test_damaged_zip(tmp_path, rng):
    expected = weights(rng, 2, 3)
    data = saved(expected)
    for number_of, damaged in enumerate([*truncated(data), *changed(data, rng, 1000)]):
        assert same(outcome(from_torch, written(tmp_path / "a.pt", damaged)), expected), number_of


@pytest.mark.parametrize("how", ["legacy", "script", "zip"])
def test_damaged_files_of_pytorch(torch, tmp_path, rng, how):
    """Without checksums numbers may be others; but nothing breaks."""
    module = torch.nn.LSTM(2, 3)
    if how == "script":
        torch.jit.script(module).save(tmp_path / "whole.pt")
    else:
        legacy = how == "legacy"
        state = {"model": module.state_dict(), "epoch": 3}
        torch.save(state, tmp_path / "whole.pt", _use_new_zipfile_serialization=not legacy)
    data = (tmp_path / "whole.pt").read_bytes()
    expected = from_torch(tmp_path / "whole.pt").state_dict()
    for damaged in [*truncated(data), *changed(data, rng, 150)]:
        found = outcome(from_torch, written(tmp_path / "a.pt", damaged))
        assert how == "legacy" or same(found, expected)


def test_damaged_pickles(tmp_path, rng):
    """As if who changed them had changed the checksum, too."""
    with zipfile.ZipFile(written(tmp_path / "b.pt", saved(weights(rng, 2, 3)))) as file:
        opcodes = file.read("archive/data.pkl")[2:-1]
        storages = [file.read(f"archive/data/{n}") for n in range(4)]
    for damaged in [*truncated(opcodes), *changed(opcodes, rng, 1000)]:
        outcome(from_torch, written(tmp_path / "a.pt", zipped(damaged, storages)))


def shared_names(count):
    """Return a dict whose one long key stands before many names of one tensor."""
    one = tensor("0", (4, 1), (1, 1)) + b"q\x00"
    inside = mapping({"weight_hh": one} | {f"{n}": b"h\x00" for n in range(count)})
    return mapping({"a" * 100_000: inside, "b": b"h\x00"})


HUGE = 2**40
HOSTILE = {
    "memo": b"}r" + b"\xff" * 4 + b"r" + b"\xfe" * 4,
    "string": b"\x8d" + (HUGE).to_bytes(8, "little"),
    "long": b"\x8b" + (2**31 - 1).to_bytes(4, "little"),
    "deep tuples as a key": b"}" + b")" + b"\x85" * 100_000 + b"Ns",
    "deep tuples": b")" + b"\x85" * 100_000,
    "deep lists": b"]" * 100_000 + b"a" * 99_999,
    "name of deep tuples": b")" + b"\x85" * 100_000 + b"\x8c\x01a\x93",
    "cycle": mapping({"a": b"]q\x00h\x00a"}),
    "doubling": b"]q\x00" + b"".join(b"]h%c" % n + b"h%c" % n + b"ae"[:1] for n in [0]) + b"0",
    "doubled tuples": b")" + b"2\x86" * 2000,
    "doubled names": b"\x8c\x01a" + b"2\x86" * 60 + b"\x8c\x01a\x93",
    "ordered dict of tuples": b"ccollections\nOrderedDict\n" + b")\x85" * 9 + b"R",
    "key twice": b"}(" + (text("a") + b"N") * 2 + b"u",
    "empty stack": b"R",
    "no mark": b"t",
    "no storage": mapping({"weight_hh": tensor("9", (16, 4), (4, 1))}),
    "shape": mapping({"weight_hh": tensor("0", (HUGE, HUGE), (HUGE, 1))}),
    "zero strides": mapping({"weight_hh": tensor("0", (4 * HUGE, HUGE), (0, 0))}),
    "offset": mapping({"weight_hh": tensor("0", (4, 1), (1, 1), 1000)}),
    "negative offset": mapping({"weight_hh": tensor("0", (4, 1), (1, 1), -1)}),
    "negative stride": mapping({"weight_hh": tensor("0", (4, 1), (-1, 1), 4)}),
    "negative shape": mapping({"weight_hh": tensor("0", (-4, -1), (1, 1))}),
    "no strides": mapping({"weight_hh": tensor("0", (4, 1), ())}),
    "huge numbers": mapping({"weight_hh": tensor("0", (2**600, 2**600), (2**600, 1))}),
    "unknown storage": mapping({"weight_hh": tensor("0", (4, 1), (1, 1), storage="OddStorage")}),
    "many layers": mapping(
        {
            f"weight_{of}_l{n}": tensor("0", (4, 1), (1, 1))
            for n in range(2000)
            for of in ("ih", "hh")
        }
    ),
    "layer": mapping({"weight_hh_l99999": tensor("0", (4, 1), (1, 1))}),
    "long string": b"X" + (10**6).to_bytes(4, "little") + b"a" * 999_999 + b"\x00",
    "long number": b"\x8b" + (10**6).to_bytes(4, "little") + b"a" * 10**6,
    "many objects": b"}" * 600_000,
    "many names in the memo": b"N" + b"\x94" * 600_000,
    "long names": shared_names(2000),
    "persistent": text("abcde") + b"Q",
    "persistent number": number(5) + b"Q",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles(tmp_path, case):
    path = written(tmp_path / "a.pt", zipped(HOSTILE[case], [bytes(64)]))
    began = time.monotonic()
    tracemalloc.start()
    try:
        assert outcome(from_torch, path) is None
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + 2**26
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20


def zip_with(tmp_path, **how):
    return written(tmp_path / "a.pt", zipped(mapping({"a": number(1)}), [bytes(2**20)], **how))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_zips(tmp_path):
    wrong = {
        "compressed": {"compression": zipfile.ZIP_DEFLATED},
        "stands twice": {"more": [("archive/data.pkl", b"")]},
        "leads out": {"more": [("archive/../../x", b"")]},
        "2 records": {"more": [("other/data.pkl", b"")]},
        "byteorder": {"byteorder": "middle"},
    }
    for message, how in wrong.items():
        with pytest.raises(ValueError, match=message):
            from_torch(zip_with(tmp_path, **how))


def test_the_file_of_another_format(tmp_path):
    for data in (b"", b"PK\x03\x04", b"\x89HDF\r\n", pickle.dumps({"a": 1}), os.urandom(100)):
        with pytest.raises(ValueError, match=r"a\.pt"):
            from_torch(written(tmp_path / "a.pt", data))


def test_norms_that_are_no_layer_norms_by_their_names():
    weights = {f"lstm.{name}": value for name, value in LSTM(4, 4, seed=0).state_dict().items()}
    vector = {"weight": np.ones(4, np.float32), "bias": np.ones(4, np.float32)}
    for name in ("gn", "group_norm", "bn1", "BatchNorm", "instance_norm"):
        with pytest.raises(ValueError, match=f"{name}.*cannot be read around an LSTM"):
            from_torch(weights | {f"{name}.{key}": value for key, value in vector.items()})
    assert from_torch(weights | {f"ln.{key}": value for key, value in vector.items()})


def test_verify_runs_the_script_itself(tmp_path, capsys):
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self, last):
            super().__init__()
            self.lstm, self.head, self.last = torch.nn.LSTM(3, 4), torch.nn.Linear(4, 2), last

        def forward(self, x):
            y = self.lstm(x)[0]
            return self.head(torch.relu(y[-1]) if self.last else y)

    for last in (False, True):
        torch.jit.trace(Model(last).eval(), torch.randn(5, 5, 3)).save(tmp_path / "m.pt")
        if last:
            with pytest.raises(ValueError, match="verify: expected an output of shape"):
                from_torch(tmp_path / "m.pt", verify=True)
        else:
            from_torch(tmp_path / "m.pt", verify=True)
            assert "largest difference" in capsys.readouterr().err


def test_arrays_by_name_in_a_file(tmp_path, capsys):
    lstm = LSTM(3, 4, 2, bidirectional=True, seed=0)
    named = {f"model.lstm.{name}": value for name, value in lstm.state_dict().items()}
    for save, name in ((np.savez, "a.npz"), (np.savez_compressed, "b.NPZ")):
        with open(tmp_path / name, "wb") as file:
            save(file, **named)
        read = from_torch(tmp_path / name, batch_first=True)
        assert read.batch_first and from_torch(str(tmp_path / name), "model").num_layers == 2
        for key, value in read.state_dict().items():
            np.testing.assert_array_equal(value, lstm.state_dict()[key])
        assert [row.kind for row in pytorch.inspect(tmp_path / name)] == ["LSTM"]
    if find_spec("torch"):
        from_torch(tmp_path / "a.npz", verify=True)
        assert "largest difference" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        from_torch(tmp_path / "none.npz")


def test_files_of_arrays_that_are_refused(tmp_path, rng):
    path = tmp_path / "a.npz"
    np.savez(path, **LSTM(3, 4, clip=1.0, seed=0).state_dict())
    with pytest.raises(ValueError, match="an LSTM with options; load_state_dict"):
        from_torch(path)
    np.savez(path, weight=np.array([{}], object))
    with pytest.raises(ValueError, match=r"a\.npz: file: is no file of arrays .*pickle"):
        from_torch(path)
    np.savez_compressed(path, weight=np.zeros(2**26, np.float32))
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="would be"):
        from_torch(path)
    np.savez(path, **LSTM(3, 4, seed=0).state_dict())
    data = path.read_bytes()
    copies = truncated(data) + changed(data, rng, 200)
    read_all(from_torch, path, copies)
