"""Models of ONNX that are refused: what an LSTM cannot be, and files that lie."""

import os
from pathlib import Path

import numpy as np
import pytest
from support import comparisons
from support.onnx_models import lstm_arrays, make_model, make_node, save, value
from support.processes import run_python

from lstm_fast import LSTM
from lstm_fast.formats import from_onnx, to_onnx
from lstm_fast.formats.onnx import inspect
from lstm_fast.nn import Embedding, Last, LayerNorm, Linear, Sequential, Softmax

comparisons.require("ONNX Runtime", "onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto  # noqa: E402

pytestmark = pytest.mark.no_isa

I, H = 4, 6


def model_of(rng, attributes=None, inputs="x W R B", before=(), after=(), drop=(), **constants):
    """Return a model of one node LSTM."""
    D = 2 if (attributes or {}).get("direction") == "bidirectional" else 1
    arrays = lstm_arrays(rng, I, H, D, peephole=True) | {"one": np.array([1])} | constants
    arrays = {name: array for name, array in arrays.items() if name not in drop}
    node = make_node("LSTM", inputs, "y yh yc", **({"hidden_size": H} | (attributes or {})))
    output = after[-1].output[0] if after else "y"
    given = [value("x", ["T", "B", I]), value("other", ["T", "B", I])]
    return make_model([*before, node, *after], given, [output], arrays)


def thousand(*shape):
    return np.full(shape, 1000, np.float32)


REFUSED = {
    "an unknown function": (
        {"attributes": {"activations": ["Sigmoid", "Tanh", "Gelu"]}},
        "y activations: 'Gelu' is none of Sigmoid",
    ),
    "too few functions": ({"attributes": {"activations": ["Tanh"]}}, "1 functions, not 3"),
    "numbers that are missing": (
        {"attributes": {"activations": ["Affine", "Tanh", "Tanh"]}},
        "Affine without alpha",
    ),
    "numbers left over": ({"attributes": {"activation_alpha": [1.0]}}, "more numbers"),
    "functions that differ": (
        {
            "attributes": {
                "direction": "bidirectional",
                "activations": ["Sigmoid", "Tanh", "Tanh"] + ["Relu"] * 3,
            }
        },
        "the same in both directions",
    ),
    "a direction": ({"attributes": {"direction": "up"}}, "direction: 'up'"),
    "an attribute": ({"attributes": {"proj": 3}}, "attributes: \\['proj'\\]"),
    "another type": ({"attributes": {"clip": "much"}}, "attribute 'clip' is no 'f'"),
    "a clip of 0": ({"attributes": {"clip": 0.0}}, "clip"),
    "another size": ({"attributes": {"hidden_size": 7}}, "R has 6 columns"),
    "directions": (
        {"attributes": {"direction": "bidirectional"}, "W": thousand(1, 4 * H, I)},
        "y W",
    ),
    "rows": ({"W": thousand(1, 4 * H + 4, I)}, "y input weights"),
    "half of a bias": ({"B": thousand(1, 4 * H)}, "y B: has shape \\(1, 24\\)"),
    "peepholes": ({"P": thousand(1, H), "inputs": "x W R B - - - P"}, "y peepholes"),
    "numbers that are integers": ({"W": np.ones((1, 4 * H, I), np.int8)}, "holds int8"),
    "no weights": ({"inputs": "x - R B"}, "y W: is no constant"),
    "weights that are computed": (
        {"before": [make_node("Relu", "other", "w")], "inputs": "x w R B"},
        "y W: is no constant",
    ),
    "a state": (
        {"inputs": "x W R B - h c", "h": thousand(1, 1, H), "c": thousand(1, 1, H)},
        "y initial_h: is constant and not 0",
    ),
    "a state that is computed": (
        {
            "before": [make_node("Relu", "other", "r")],
            "inputs": "x W R B - r",
        },
        "its initial_h is computed",
    ),
    "a state of x": ({"inputs": "x W R B - x"}, "its initial_h is computed"),
    "constant lengths": (
        {"inputs": "x W R B n", "n": np.array([2], np.int32)},
        "its sequence_lens",
    ),
    "an operator before": (
        {"before": [make_node("Exp", "x", "e")], "inputs": "e W R B"},
        "Exp 'e'",
    ),
    "an operator after": ({"after": [make_node("Erf", "y", "z")]}, "Erf 'z'.*node= reads .*'y'"),
    "a domain": (
        {"after": [make_node("Relu", "y", "z", domain="custom")]},
        "of the domain 'custom'",
    ),
    "another axis": ({"after": [make_node("Softmax", "y", "z", axis=0)]}, "Softmax 'z'"),
    "log": ({"after": [make_node("LogSoftmax", "y", "z")]}, "LogSoftmax 'z'"),
    "a step in the middle": (
        {"after": [make_node("Gather", "y one", "z")]},
        "takes time step 1",
    ),
    "an attribute of a block": (
        {"after": [make_node("Squeeze", "y one", "s"), make_node("Softmax", "s", "z", axes=2)]},
        "has attributes \\['axes'\\]",
    ),
    "dropout in training": (
        {"after": [make_node("Dropout", "y - yes", "z")], "yes": np.array(True)},
        "training mode",
    ),
    "a sum with the input": (
        {"after": [make_node("Squeeze", "y one", "s"), make_node("Add", "s other", "z")]},
        "Add 'z': combines two values",
    ),
    "the state c": ({"after": [make_node("Relu", "yc", "z")]}, "its state c is used"),
    "a part of the input": (
        {
            "before": [make_node("Slice", "x one two", "s")],
            "inputs": "s W R B",
            "two": np.array([2]),
        },
        "Slice 's'",
    ),
    "time from nowhere": (
        {
            "before": [make_node("Reshape", "x shape", "s")],
            "inputs": "s W R B",
            "shape": np.array([1, -1, I]),
        },
        "no time axis of its own",
    ),
    "sizes of what is repeated": (
        {
            "before": [make_node("Expand", "one shape", "e"), make_node("Mul", "e one", "w")],
            "inputs": "x w R B",
            "shape": np.array([2, 2]),
        },
        "Mul 'w': has an input that is no constant",
    ),
    "an input that is absent": (
        {"before": [make_node("Concat", "- one", "w", axis=0)], "inputs": "x w R B"},
        "Concat 'w'",
    ),
    "a name twice": ({"before": [make_node("Relu", "x", "y")]}, "'y' stands twice"),
    "a name from nowhere": ({"inputs": "nothing W R B"}, "reads 'nothing'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(rng, name):
    changes, message = REFUSED[name]
    model = model_of(rng, **changes)
    with pytest.raises(ValueError, match=message):
        from_onnx(model)
    if "twice" not in name:
        assert "LSTM" in [row.kind for row in inspect(model)]


@pytest.mark.parametrize("given", [3, None, b"model"])
def test_wrong_types(given):
    with pytest.raises(TypeError, match="path_or_model: expected a path"):
        from_onnx(given)


def test_lengths_and_the_last_step(rng):
    """Of a shorter row, Y has zeros at the last step, and `Last` what is at its end."""
    arrays = lstm_arrays(rng, I, H) | {"minus": np.array(-1), "zero": np.array([0])}
    nodes = [
        make_node("LSTM", "x W R B n", "y h", hidden_size=H),
        make_node("Gather", "y minus", "g"),
        make_node("Squeeze", "g zero", "z"),
    ]
    given = [value("x", ["T", "B", I]), value("n", ["B"], np.int32)]
    with pytest.raises(ValueError, match="the LSTM before it has lengths"):
        from_onnx(make_model(nodes, given, ["z"], arrays))
    nodes[1:] = [make_node("Squeeze", "h zero", "z")]
    assert len(from_onnx(make_model(nodes, given, ["z"], arrays))) == 2


# ---- data in other files


def external(rng, tmp_path, location, offset=0, length=None):
    model = model_of(rng)
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {
        "location": location,
        "offset": offset,
        "length": len(data) if length is None else length,
    }
    for key, entry in entries.items():
        tensor.external_data.add(key=key, value=str(entry))
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    return save(model, folder / "model.onnx"), data


def test_data_beside_the_model(rng, tmp_path):
    path, data = external(rng, tmp_path, "weights.bin", 16)
    with pytest.raises(ValueError, match="which is missing"):
        from_onnx(path)
    (path.parent / "weights.bin").write_bytes(bytes(16) + data)
    W = from_onnx(path).weight_ih_l0
    assert np.isin(W, np.frombuffer(data, np.float32)).all()
    with pytest.raises(ValueError, match="pass the path"):
        from_onnx(onnx.load(path, load_external_data=False))
    (path.parent / "weights.bin").write_bytes(data)
    with pytest.raises(ValueError, match="are needed"):
        from_onnx(path)


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "/etc/passwd", "link.bin", "a/../../weights.bin", "", "link/weights.bin"],
)
def test_data_elsewhere(rng, tmp_path, location):
    path, data = external(rng, tmp_path, location)
    (tmp_path / "weights.bin").write_bytes(data)
    (path.parent / "link.bin").symlink_to(tmp_path / "weights.bin")
    (path.parent / "link").symlink_to(tmp_path)
    (path.parent / "a").mkdir()
    with pytest.raises(ValueError, match="outside of the folder"):
        from_onnx(path)


@pytest.mark.parametrize("offset, length", [(2**62, None), (0, 4), (0, -7), ("x", None), (1, None)])
def test_data_that_is_not_there(rng, tmp_path, offset, length):
    path, data = external(rng, tmp_path, "weights.bin", offset, length)
    (path.parent / "weights.bin").write_bytes(data)
    with pytest.raises(ValueError, match="tensor 'W'"):
        from_onnx(path)


# ---- files that lie


def bombs(rng):
    """Yield models of a few bytes that would become large, or take long."""

    def model(*before, **constants):
        return model_of(rng, before=before, inputs="x w R B", **constants)

    big = [1, 2**20, 2**20]
    yield "a shape", model(w=TensorProto(name="w", data_type=1, dims=big, raw_data=b"1234"))
    doubled = [make_node("Concat", f"w{n} w{n}", f"w{n + 1}", axis=0) for n in range(40)]
    yield "concat", model(*doubled, make_node("Identity", "w40", "w"), w0=np.ones((1, 1000)))
    gather = make_node("Gather", "table at", "w")
    yield "gather", model(gather, table=np.ones((1, 2**14)), at=np.zeros(2**14, np.int64))
    expand = make_node("Expand", "one shape", "w")
    yield "expand", model(expand, shape=np.array(big))
    chain = [make_node("Relu", f"r{n}" if n else "x", f"r{n + 1}") for n in range(5000)]
    yield "chain", model_of(rng, before=chain, inputs="r5000 W R B")
    axes = make_node("Unsqueeze", "x axes", "u")
    yield "axes", model_of(rng, before=[axes], inputs="u W R B", axes=np.arange(10**5))
    target = make_node("Reshape", "x shape", "u")
    yield "target", model_of(rng, before=[target], inputs="u W R B", shape=np.ones(10**5, int))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux has it")
def test_small_files_stay_small(rng, tmp_path):
    for name, model in bombs(rng):
        save(model, tmp_path / f"{name}.onnx")
    code = f"""if True:
        import pathlib
        import onnx
        from lstm_fast.formats.onnx import from_onnx, inspect
        def most():  # MiB, of this process alone
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
        before = most()
        for path in pathlib.Path({str(tmp_path)!r}).glob("*.onnx"):
            inspect(path)
            try:
                from_onnx(path)
            except ValueError:
                continue
            raise AssertionError(path)
        print(most() - before)
        """
    assert 0 < float(run_python(code)) <= 64


def test_damaged_files(rng, tmp_path):
    """Cut at every 64th byte, and thousands of times with a few other bytes."""
    path = tmp_path / "model.onnx"
    lstm = LSTM(4, 3, 2, bidirectional=True, peephole=True, clip=1.0, seed=0)
    to_onnx(
        path,
        Sequential(
            Embedding(9, 4, seed=0), lstm, Last(2), Linear(6, 2, seed=0), LayerNorm(2), Softmax()
        ),
    )
    files = [path.read_bytes()]
    to_onnx(path, LSTM(3, 2, 2, bidirectional=True, merge="sum", seed=0), lengths=True, state=True)
    files.append(path.read_bytes())
    outcomes = {"read": 0, "refused": 0}
    for data in files:
        damaged = [data[:n] for n in range(0, len(data), 64)]
        for _ in range(1000):
            changed = np.frombuffer(data, np.uint8).copy()
            at = rng.integers(0, len(data), rng.integers(1, 6))
            changed[at] = rng.integers(0, 256, at.size)
            damaged.append(changed.tobytes())
        for n, one in enumerate(damaged):
            path.write_bytes(one)
            for read in (from_onnx, inspect)[: 1 + (n % 4 == 0)]:
                try:
                    read(path)
                    outcomes["read"] += 1
                except ValueError as error:
                    assert str(error).startswith(str(path))
                    outcomes["refused"] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_onnx(tmp_path / "model.onnx")
    for data in (b"", b"no model", os.urandom(100)):
        (tmp_path / "model.onnx").write_bytes(data)
        with pytest.raises(ValueError, match="model"):
            from_onnx(tmp_path / "model.onnx")


def test_without_frameworks(rng, tmp_path):
    path = save(model_of(rng), tmp_path / "model.onnx")
    code = f"""if True:
        import sys
        for name in ("torch", "tensorflow", "keras", "onnxruntime"):
            sys.modules[name] = None
        from lstm_fast.formats import from_onnx
        assert from_onnx({str(path)!r}).hidden_size == 6
        try:
            from_onnx({str(path)!r}, verify=True)
        except ImportError as error:
            assert "onnxruntime" in str(error)
        sys.modules["onnx"] = None
        try:
            from_onnx({str(path)!r})
        except ImportError as error:
            assert "lstm_fast[onnx]" in str(error)
            print("asked for")
        """
    assert run_python(code).strip() == "asked for"


def test_a_state_of_another_lstm_is_refused(rng):
    arrays = lstm_arrays(rng, I, H)
    encoder = make_node("LSTM", "other W R B", "a ah ac", hidden_size=H, name="encoder")
    for inputs in ("x W R B - ah ac", "x W R B - ah", "other W R B - ah ac"):
        decoder = make_node("LSTM", inputs, "y yh yc", hidden_size=H, name="decoder")
        given = [value("x", ["T", "B", I]), value("other", ["T", "B", I])]
        model = make_model([encoder, decoder], given, ["y"], arrays)
        with pytest.raises(ValueError, match="is computed in the graph"):
            from_onnx(model)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1), (4, 1)])
def test_a_bias_of_other_axes_is_refused(rng, shape):
    arrays = lstm_arrays(rng, I, H) | {"M": rng.standard_normal((H, 4)).astype(np.float32)}
    arrays["b"] = rng.standard_normal(shape).astype(np.float32)
    nodes = [
        make_node("LSTM", "x W R B", "y yh yc", hidden_size=H),
        make_node("Squeeze", "y one", "z"),
        make_node("MatMul", "z M", "m"),
        make_node("Add", "m b", "out"),
    ]
    model = make_model(nodes, [value("x", [4, 4, I])], ["out"], arrays | {"one": np.array([1])})
    with pytest.raises(ValueError, match="adds an array of shape"):
        from_onnx(model)


def test_weights_that_many_nodes_share_are_counted(rng):
    W = rng.standard_normal((1, 1024, 256)).astype(np.float32)
    nodes = [make_node("LSTM", "x W W", f"y{n} h{n} c{n}", hidden_size=256) for n in range(100)]
    model = make_model(nodes, [value("x", ["T", "B", 256])], ["y0"], {"W": W})
    rows = inspect(model)
    assert sum("more than a file of this size" in row.options for row in rows) > 50


def test_many_nodes_of_one_name(rng):
    """Each has its own name, of a length that does not grow with how many there are."""
    arrays, count = lstm_arrays(rng, 1, 1), 5000
    nodes = [
        make_node("LSTM", "x W R B", f"y{n}", name="lstm", hidden_size=1) for n in range(count)
    ]
    nodes.insert(1, make_node("LSTM", "x W R B", "z", name="lstm_3", hidden_size=1))
    model = make_model(nodes, [value("x", ["T", "B", 1])], ["y0"], arrays)
    names = [row.name for row in inspect(model)]
    assert names[:4] == ["lstm", "lstm_3", "lstm_2", "lstm_4"]
    assert len({*names}) == count + 1 and max(map(len, names)) == len("lstm_5001")
    with pytest.raises(ValueError, match="and 4981 more"):
        from_onnx(model, "no such")
