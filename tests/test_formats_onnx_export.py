"""Models that are written for ONNX: ONNX Runtime computes the same, and they can be read again."""

import numpy as np
import pytest
from support import comparisons
from support.onnx_models import run

from lstm_fast import LSTM
from lstm_fast.formats import from_onnx, to_onnx
from lstm_fast.nn import (
    Activation,
    Attention,
    Dropout,
    Embedding,
    Last,
    LayerNorm,
    Linear,
    Pool,
    Sequential,
    Softmax,
)

comparisons.require("ONNX Runtime", "onnx", "onnxruntime")

pytestmark = pytest.mark.no_isa

TOLERANCE = 1e-6
T, B, I, H = 5, 3, 4, 6

OPTIONS = [
    {},
    {"num_layers": 3, "bidirectional": True},
    {"hidden_size": (6, 5), "bidirectional": True},
    {"reverse": True, "num_layers": 2},
    {"bias": False},
    *({"bidirectional": True, "num_layers": 2, "merge": m} for m in ("sum", "mul", "ave")),
    {"peephole": True, "coupled": True, "bidirectional": True},
    {"clip": 0.4},
    {"num_layers": 3, "residual": True},
    {"num_layers": 2, "residual": True, "bidirectional": True, "batch_first": True},
    {"activations": ("HardSigmoid", ("LeakyRelu", 0.2), ("ScaledTanh", 1.5, 0.6))},
    {"activations": (("HardSigmoid", 0.3, 0.4), "Softsign", ("Elu", 0.7)), "bidirectional": True},
    {"dropout": 0.5, "num_layers": 2, "recurrent_dropout": 0.5},
]


def trained(rng, block):
    """Return a block whose parameters are all different from what they begin with."""
    with block.writable() as parameters:
        for value in parameters.values():
            value += 0.1 * rng.standard_normal(value.shape)
    return block


def given_to(rng, block, vocabulary=None):
    shape = (B, T) if block.batch_first else (T, B)
    if vocabulary is not None:
        return rng.integers(0, vocabulary, shape)
    return rng.standard_normal((*shape, I), np.float32)


def assert_runs(block, path, x, lengths=None):
    """The file gives the block's numbers, and so does the block that is read from it."""
    to_onnx(path, block, lengths=lengths is not None)
    feeds = {"x": x} | ({} if lengths is None else {"lengths": lengths})
    (y,) = run(path, feeds)
    expected = block(x, lengths=lengths)[0]
    np.testing.assert_allclose(y, expected, 0, TOLERANCE)
    read = from_onnx(path, verify=True)
    assert read.batch_first == block.batch_first
    np.testing.assert_array_equal(read(x, lengths=lengths)[0], expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_lstm(rng, tmp_path, options):
    lstm = trained(rng, LSTM(I, **({"hidden_size": H} | options), seed=0))
    x = given_to(rng, lstm)
    assert_runs(lstm, tmp_path / "model.onnx", x)
    assert_runs(lstm, tmp_path / "model.onnx", x, np.array([T, 0, 2], np.int32))
    (y,) = run(tmp_path / "model.onnx", {"x": x[:1, :1], "lengths": np.ones(1, np.int32)})
    assert y.shape[:2] == (1, 1)  # T and B are free


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"hidden_size": (6, 5)}], ids=str
)
def test_states(rng, tmp_path, options):
    lstm = trained(rng, LSTM(I, **({"hidden_size": H} | options), seed=0))
    path, x = tmp_path / "model.onnx", given_to(rng, lstm)
    to_onnx(path, lstm, state=True)
    sizes = lstm.hidden_size if "hidden_size" in options else [H]
    D = 2 if lstm.bidirectional else 1
    rows = D * lstm.num_layers // len(sizes)
    parts = [
        tuple(rng.standard_normal((rows, B, size), np.float32) for size in sizes) for _ in "hc"
    ]
    ends = [f"_l{n}" for n in range(len(sizes))] if len(sizes) > 1 else [""]
    names = [f"{s}0{e}" for s in "hc" for e in ends]
    feeds = dict(zip(names, parts[0] + parts[1], strict=True))
    outputs = ["y", *(f"{s}n{e}" for s in "hc" for e in ends)]
    y, *after = run(path, feeds | {"x": x}, outputs)
    state = tuple(part if len(sizes) > 1 else part[0] for part in parts)
    expected, (hn, cn) = lstm(x, state)
    np.testing.assert_allclose(y, expected, 0, TOLERANCE)
    flat = [*hn, *cn] if len(sizes) > 1 else [hn, cn]
    for actual, wanted in zip(after, flat, strict=True):
        np.testing.assert_allclose(actual, wanted, 0, TOLERANCE)
    np.testing.assert_array_equal(from_onnx(path, verify=True)(x, state)[0], expected)


FUNCTIONS = [
    *("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus", ("HardSigmoid", 0.1, 0.3)),
    *(("Elu", 0.5), ("LeakyRelu", 0.3), ("Affine", 2.0, -0.3), ("ScaledTanh", 1.3, 0.4)),
]


def models(order):
    """Yield models, and the rows of their tables."""
    for D in (1, 2):
        lstm = {"bidirectional": D == 2, "seed": 0, **order}
        head = Linear(D * H, 3, seed=0, **order), Softmax(**order)
        yield Sequential(LSTM(I, H, 2, **lstm), Last(D, **order), *head), None
        yield Sequential(LSTM(I, H, **lstm), Last(1, **order)), None
        for kind in ("mean", "max"):
            pool = Dropout(0.5, **order), Pool(kind, **order)
            yield Sequential(LSTM(I, H, **lstm), *pool), None
    yield Sequential(LSTM(I, H, reverse=True, seed=0, **order), Last(1, True, **order)), None
    functions = [Activation(function, **order) for function in FUNCTIONS]
    middle = Linear(H, 5, False, seed=0, **order), LayerNorm(5, 1e-3, **order)
    yield Sequential(LSTM(I, H, seed=0, **order), *middle, *functions), None
    embed = Embedding(9, I, seed=0, **order)
    yield Sequential(embed=embed, lstm=LSTM(I, H, seed=0, **order)), 9
    inner = Sequential(Linear(I, I, seed=0, **order), Activation("Tanh", **order))
    yield Sequential(inner=inner, lstm=LSTM(I, H, seed=0, **order)), None


@pytest.mark.parametrize("batch_first", [False, True])
def test_models(rng, tmp_path, batch_first):
    path = tmp_path / "model.onnx"
    for model, vocabulary in models({"batch_first": batch_first}):
        trained(rng, model)
        x = given_to(rng, model, vocabulary)
        assert_runs(model, path, x)
        assert_runs(model, path, x, np.array([T, 0, 2], np.int32))


def test_two_halves_at_their_ends(rng, tmp_path):
    """Not behind an LSTM, whose final states these would be."""
    lstm, dense = LSTM(I, H, bidirectional=True, seed=0), Linear(2 * H, 8, seed=0)
    model = Sequential(lstm, dense, Last(2))
    x = given_to(rng, model)
    assert_runs(model, tmp_path / "model.onnx", x)
    assert_runs(model, tmp_path / "model.onnx", x, np.array([T, 0, 2], np.int32))


@pytest.mark.parametrize("tail", [[Pool("mean")], [Pool("max")], [Last(1)], [Last(1, True)]])
def test_what_is_else_done_with_lengths_is_refused(rng, tmp_path, tail):
    """Every number in what is computed of lengths is another one: none is read as before."""
    import onnx
    from onnx import numpy_helper

    head = Linear(H, 3, seed=0)
    to_onnx(tmp_path / "model.onnx", Sequential(LSTM(I, H, seed=0), head, *tail), lengths=True)
    model = onnx.load(tmp_path / "model.onnx")
    numbers = [t for t in model.graph.initializer if np.prod(t.dims) <= 2]
    assert len(numbers) > 5
    for tensor in numbers:
        before = numpy_helper.to_array(tensor)
        for wrong in (before + 1, before - 1) if np.isfinite(before).all() else (0.0, 1.0):
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(wrong, before.dtype), tensor.name))
            with pytest.raises(ValueError, match="no block of lstm_fast"):
                from_onnx(model)
                pytest.fail(f"{tensor.name}: {before} became {wrong}")
        tensor.CopyFrom(numpy_helper.from_array(before, tensor.name))
    nodes = [node for node in model.graph.node if node.op_type in ("Less", "Greater", "Equal")]
    other = {"Less": "LessOrEqual", "Greater": "GreaterOrEqual", "Equal": "Less"}
    for node in nodes:
        node.op_type = other[node.op_type]
    with pytest.raises(ValueError, match="no block of lstm_fast"):
        from_onnx(model)


@pytest.mark.parametrize(
    "block, error, message",
    [
        (LSTM(I, H, proj_size=2), ValueError, "proj_size: an LSTM of ONNX has none"),
        (LSTM(I, H, cell_clip=1.0), ValueError, "cell_clip"),
        (LSTM(I, H, layer_norm=True), ValueError, "layer_norm"),
        (LSTM(I, H, layer_norm="gates"), ValueError, "layer_norm"),
        (LSTM(I, H, zoneout=(0.1, 0.1)), ValueError, "zoneout"),
        (LSTM(I, H, dtype=np.float64), ValueError, "is of float64"),
        (Attention(), TypeError, "block: expected a block, got Attention"),
        ("block", TypeError, "block: expected a block, got str"),
    ],
)
def test_what_onnx_has_not(tmp_path, block, error, message):
    with pytest.raises(error, match=message):
        to_onnx(tmp_path / "model.onnx", block)
    assert not [*tmp_path.iterdir()]


def test_a_file_is_whole_or_the_old_one(rng, tmp_path):
    path = tmp_path / "model.onnx"
    to_onnx(path, LSTM(I, H, seed=0))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="zoneout"):
        to_onnx(path, LSTM(I, H, zoneout=(0.1, 0.1)))
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        to_onnx(tmp_path / "nowhere" / "model.onnx", LSTM(I, H))
