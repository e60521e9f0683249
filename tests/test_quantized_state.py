"""What a `QuantizedLSTM` holds: its state_dict, files, copies, models of it; what is refused."""

import copy
import pickle

import numpy as np
import pytest
from support.comparing import assert_identical
from support.hostile import read_all, truncated
from support.pauses import beside
from support.quantized import PRECISIONS

import lstm_fast as lf
from lstm_fast import LSTM, QuantizedLSTM, Stream, nn, optim, training

pytestmark = pytest.mark.no_isa
PACKED = ("weight_ih", "weight_hh", "weight_hr")
OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True, "merge": "sum"},
    {"proj_size": 2, "bias": False, "batch_first": True},
    {"num_layers": 2, "hidden_size": (19, 5), "reverse": True},
    {"peephole": True, "coupled": True, "clip": 3.0, "cell_clip": 2.0, "zoneout": (0.1, 0.2)},
    {"layer_norm": "gates", "peephole": True},
    {"layer_norm": True, "activations": ("HardSigmoid", ("LeakyRelu", 0.2), "Tanh")},
]
X = np.random.default_rng(0).standard_normal((6, 2, 5)).astype(np.float32)


def made(options, weights="int8", inputs="bfloat16", seed=0):
    return LSTM(5, **{"hidden_size": 19} | options, seed=seed).quantize(weights, inputs)


def results(block, x=X):
    y, state = block(x)
    parts = [y]
    for part in state:  # or of each layer, where these have different sizes
        parts += part if isinstance(part, tuple) else [part]
    return parts


def assert_same(block, expected):
    assert type(block) is type(expected)
    assert repr(block) == repr(expected)
    assert_identical(block.state_dict(), expected.state_dict())
    assert_identical(results(block), results(expected))


@pytest.fixture(params=OPTIONS, ids=str)
def options(request):
    return request.param


@pytest.fixture(params=PRECISIONS, ids="-".join)
def precision(request):
    """Return weights and inputs."""
    return request.param


def model():
    return nn.Sequential(
        first=LSTM(5, 19, seed=1),
        inner=nn.Sequential(lstm=LSTM(19, 7, seed=2), norm=nn.LayerNorm(7)),
        head=nn.Linear(7, 3, seed=3),
    )


# ---- state_dict


def test_state_dict(options, precision):
    """It has the rounded weights that packing began with, and another LSTM takes them."""
    one, other = made(options, *precision), made(options, *precision, seed=7)
    values, of_float = one.state_dict(), LSTM(5, **{"hidden_size": 19} | options, seed=0)
    for name in of_float.parameters:
        exact, found = getattr(of_float, name), values[name]
        if not name.startswith(PACKED):
            np.testing.assert_array_equal(found, exact, strict=True)
        elif precision[0] == "bfloat16":
            assert found.dtype == np.uint16
            near = (found.astype(np.uint32) << 16).view(np.float32)
            assert (np.abs(near - exact) <= np.abs(exact) * 2**-8).all()
        else:
            scale = values[name + "_scale"]
            assert (found.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, exact.shape[:1])
            np.testing.assert_array_equal(scale, np.abs(exact).max(axis=1) / np.float32(127))
            assert (np.abs(found).max(axis=1) == 127).all()
            error = np.abs(found * scale[:, None].astype(float) - exact)
            assert (error <= scale[:, None] * 0.50001).all()
    other.load_state_dict(values)
    assert_same(other, one)
    values.clear()
    assert_same(other, one)


def test_a_state_dict_of_other_inputs():
    """Its arrays have the same names and shapes, and stand for another computation."""
    exact, rounded = made({}, "int8", "float32"), made({}, "int8")
    with pytest.raises(ValueError, match="inputs='float32', and this one has plain options"):
        rounded.load_state_dict(exact.state_dict())
    with pytest.raises(ValueError, match=r"missing keys \['lstm_options'\].*inputs='float32'"):
        exact.load_state_dict(rounded.state_dict())
    with pytest.raises(ValueError, match="inputs='float32', and this one has inputs='int8'"):
        made({}, "int8", "int8").load_state_dict(exact.state_dict())
    whole = model()
    with pytest.raises(ValueError, match=r"inner\.lstm\.lstm_options|first\.lstm_options"):
        whole.quantize("int8").load_state_dict(whole.quantize("int8", "int8").state_dict())


def test_what_changes_in_a_state_dict_does_not_change_it(precision):
    one = made({}, *precision)
    before = results(one)
    for value in one.state_dict().values():
        value[...] = 1
    assert_identical(results(one), before)


def test_made_by_its_name():
    one = QuantizedLSTM(5, 19, num_layers=2, weights="bfloat16")
    assert not any(value.any() for value in one.state_dict().values())
    one.load_state_dict(made({"num_layers": 2}, "bfloat16").state_dict())
    assert_same(one, made({"num_layers": 2}, "bfloat16"))


WRONG = {
    "dtype": ("weight_hh_l0", lambda v: v.astype(np.int16), TypeError, "expected int8, got int16"),
    "no array": ("weight_hh_l0", lambda v: v.tolist(), TypeError, "expected int8, got list"),
    "shape": ("weight_hh_l0", lambda v: v[:, :-1], ValueError, r"expected shape \(76, 19\)"),
    "-128": (
        "weight_ih_l0",
        lambda v: np.full_like(v, -128),
        ValueError,
        "integers from -127 to 127",
    ),
    "negative": ("weight_ih_l0_scale", lambda v: -v, ValueError, "finite scales, from 0 on"),
    "NaN": ("weight_ih_l0_scale", lambda v: v * np.nan, ValueError, "finite scales, from 0 on"),
    "scales": ("weight_hh_l0_scale", lambda v: v[1:], ValueError, r"expected shape \(76,\)"),
    "integers": ("bias_hh_l0", lambda v: v.astype(int), TypeError, "floating"),
    "bias": ("bias_hh_l0", lambda v: v[1:], ValueError, r"shape \(76,\)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arrays(what):
    """An error names them, with the block that they are of, and nothing changes."""
    name, change, error, words = WRONG[what]
    whole = nn.Sequential(inner=nn.Sequential(lstm=LSTM(5, 19, seed=1)), head=nn.Linear(19, 2))
    for block, prefix in ((made({}), ""), (whole.quantize("int8"), "inner.lstm.")):
        before, y = block.state_dict(), block(X)[0]
        values = before | {key: before[key] * 2 for key in before if key.endswith("bias")}
        values[prefix + name] = change(values[prefix + name])
        with pytest.raises(error, match=rf"^state_dict\['{prefix}{name}'\]: .*{words}"):
            block.load_state_dict(values)
        assert_identical(block.state_dict(), before)
        np.testing.assert_array_equal(block(X)[0], y)


def test_wrong_names():
    for block, prefix in ((made({}), ""), (model().quantize("int8"), "inner.lstm.")):
        before = block.state_dict()
        name = prefix + "weight_hh_l0_scale"
        with pytest.raises(ValueError, match=rf"missing keys \['{name}'\]"):
            block.load_state_dict({key: before[key] for key in before if key != name})
        with pytest.raises(ValueError, match=rf"unknown keys \['{prefix}extra'\]"):
            block.load_state_dict({**before, prefix + "extra": np.zeros(3, np.float32)})
        with pytest.raises(ValueError, match=r"missing keys .*weight_ih_l0_scale"):
            made({}).load_state_dict(LSTM(5, 19).state_dict())
        assert_identical(block.state_dict(), before)
    with pytest.raises(TypeError, match="expected a mapping"):
        made({}).load_state_dict([])
    with pytest.raises(ValueError, match="lstm_options"):
        made({"coupled": True}).load_state_dict(made({}).state_dict())


# ---- values that have no place in lower precision


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1", "weight_hr_l1"])
def test_weights_without_a_number_near_them(name):
    for weights in ("int8", "bfloat16"):
        for value in (np.nan, np.inf, -np.inf, 3.4e38):
            lstm = LSTM(5, 8, num_layers=2, proj_size=3, seed=0)
            with lstm.writable() as parameters:
                parameters[name][2, 1] = value
            if weights == "int8" and np.isfinite(value):  # it is 127 scales
                assert lstm.quantize(weights).state_dict()[name][2, 1] == 127
                continue
            words = "too large for bfloat16" if np.isfinite(value) else "not finite"
            with pytest.raises(ValueError, match=f"^{name}: a weight is {words}"):
                lstm.quantize(weights)
            with pytest.raises(ValueError, match=f"^inner: lstm: {name}: a weight is {words}"):
                nn.Sequential(inner=nn.Sequential(lstm=lstm)).quantize(weights)


def test_bfloat16_of_others_is_finite():
    one = made({}, "bfloat16")
    before = one.state_dict()
    for bits in (0x7F80, 0xFF80, 0x7FC0):
        values = one.state_dict()
        values["weight_hh_l0"][3, 4] = bits
        with pytest.raises(ValueError, match=r"^state_dict\['weight_hh_l0'\]: expected finite"):
            one.load_state_dict(values)
        assert_identical(one.state_dict(), before)


# ---- beside writers


def test_calls_and_state_dicts_beside_a_writer():
    """At each line of a reader another thread loads other parameters: never some of each."""
    options = {"num_layers": 2}
    old, new = (made(options, seed=seed) for seed in (0, 1))
    values = new.state_dict()
    readers = {
        "call": lambda lstm: results(lstm),
        "step": lambda lstm: [lstm.stream(2).step(X[0])],
        "state_dict": lambda lstm: [*lstm.state_dict().values()],
    }
    for kind, reader in readers.items():
        versions = [reader(one) for one in (old, new)]
        make, write = old.__copy__, lambda lstm: lstm.load_state_dict(values)
        turns = beside(make, reader, write, visits=1)
        for lstm, found, _ in turns:
            same = [all(map(np.array_equal, found, version)) for version in versions]
            assert any(same), f"{kind}: a mixture"
            assert all(map(np.array_equal, reader(lstm), versions[1])), kind


# ---- copies and files


def test_copies(options, precision):
    one = made(options, *precision)
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert_same(other, one)
        other.load_state_dict(made(options, *precision, seed=1).state_dict())
        assert_same(one, made(options, *precision))


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("safetensors", reason="files need safetensors: pip install '.[files]'")
    return tmp_path / "one.safetensors"


def test_files(options, precision, path):
    one = made(options, *precision)
    one.save(path)
    assert_same(lf.load(path), one)
    if precision[0] == "int8":
        LSTM(5, **{"hidden_size": 19} | options).save(path.with_name("float32"))
        assert path.stat().st_size < path.with_name("float32").stat().st_size


def test_damaged_files(path):
    made({"num_layers": 2}).save(path)
    assert not read_all(lf.load, path, truncated(path.read_bytes(), 97))


@pytest.mark.parametrize("one", [made({}), made({"proj_size": 3}, "bfloat16")], ids=str)
def test_streams_in_files(one, path):
    stream = one.stream(2)
    stream(X[:3])
    stream.save(path)
    again = lf.load(path)
    assert isinstance(again, Stream)
    assert_same(again.lstm, one)
    assert_identical([again(X[3:]), *again.state], [stream(X[3:]), *stream.state])


# ---- what it does not do


def test_no_training():
    one, whole = made({}), model().quantize("int8")
    for run in (
        lambda: one.forward(X),
        lambda: one.backward(results(one)[0], None, None),
        lambda: whole.forward(X),
        lambda: training.Trainer(whole, nn.MeanSquared(), optim.Adam()).fit(
            [(X, whole(X)[0])], progress=False
        ),
    ):
        with pytest.raises(RuntimeError, match="for inference: call it, and train the LSTM that"):
            run()
    with pytest.raises(RuntimeError, match=r"^first: a QuantizedLSTM is for inference"):
        whole.forward(X)
    inside = nn.Sequential(model=nn.Sequential(lstm=one))
    with pytest.raises(RuntimeError, match=r"^model: lstm: a QuantizedLSTM is for inference"):
        inside.forward(X)
    assert one.parameters == ()


def test_wrong_arguments():
    lstm = LSTM(5, 4)
    for arguments, error, words in [
        (("int4",), ValueError, "weights: expected one of int8, bfloat16, got 'int4'"),
        ((8,), TypeError, "weights: expected a string"),
        (("int8", "float64"), ValueError, "inputs: expected one of bfloat16, int8, float32"),
        (("bfloat16", "int8"), ValueError, "inputs: with weights='bfloat16' they are bfloat16"),
    ]:
        with pytest.raises(error, match=words):
            lstm.quantize(*arguments)
    with pytest.raises(TypeError, match="dtype: lower precision computes in float32"):
        LSTM(5, 4, dtype=np.float64).quantize("int8")
    with pytest.raises(TypeError, match="x: expected"):
        made({})(X.astype(np.float64))
    with pytest.raises(AttributeError, match="'QuantizedLSTM' object has no attribute 'dropout'"):
        _ = made({}).dropout


# ---- models


def test_models(precision, path):
    """A copy whose LSTMs are quantized one by one; the rest, and the model itself, stay."""
    whole = model()
    values = whole.state_dict()
    one = whole.quantize(*precision)
    assert_identical(whole.state_dict(), values)
    assert isinstance(one["first"], QuantizedLSTM)
    assert_identical(one["head"].state_dict(), whole["head"].state_dict())
    first, lstm = (block.quantize(*precision) for block in (whole["first"], whole["inner"]["lstm"]))
    y = whole["head"](whole["inner"]["norm"](lstm(first(X)[0])[0])[0])[0]
    assert_identical([one(X)[0]], [y])
    assert f"QuantizedLSTM(5, 19, weights={precision[0]!r}, inputs={precision[1]!r})" in repr(one)
    one.save(path)
    other = model().quantize(*precision)
    other.load_state_dict(one.state_dict())
    for again in (lf.load(path), pickle.loads(pickle.dumps(one)), copy.deepcopy(one), other):
        assert_identical(again.state_dict(), one.state_dict())
        assert_identical([again(X)[0]], [y])
    stream = one.stream(2)
    assert_identical([np.array([stream.step(x_t) for x_t in X])], [y])
    stream.save(path)
    assert_identical([lf.load(path).step(X[0])], [stream.step(X[0])])
