"""Options that arrays do not tell: a state_dict is loaded into an LSTM that has the same ones."""

import io
from inspect import signature

import numpy as np
import pytest
from support.comparing import assert_identical

from lstm_fast import LSTM, nn

pytestmark = pytest.mark.no_isa
SIZES = {"input_size": 4, "hidden_size": 4, "num_layers": 2}
OPTIONS = [
    {"reverse": True},
    {"bidirectional": True, "merge": "sum"},
    {"coupled": True},
    {"clip": 1.0},
    {"cell_clip": 2.5},
    {"activations": ("HardSigmoid", "Tanh", ("LeakyRelu", 0.2))},
    {"zoneout": (0.1, 0.0)},
    {"residual": True},
    {"peephole": True, "coupled": True, "clip": 3},
]
PLAIN = [
    {},
    {"num_layers": 1, "dropout": 0.0, "bias": False},
    {"bidirectional": True, "proj_size": 2, "dropout": 0.5, "batch_first": True},
    {"peephole": True, "layer_norm": True, "recurrent_dropout": 0.2, "init": "keras"},
    {"layer_norm": "gates"},
    {"activations": (("Sigmoid",), "Tanh", ["Tanh"]), "zoneout": (0, 0.0)},
]


def made(options, seed=0):
    return LSTM(**SIZES | options, seed=seed)


def test_every_option_is_told_by_names_or_said():
    told = {"num_layers", "bias", "bidirectional", "proj_size", "peephole", "layer_norm"}
    said = {name for options in OPTIONS for name in options}
    # Of what is around the network, of training alone, and of how it is computed.
    others = {"input_size", "hidden_size", "batch_first", "dtype", "seed"}
    others |= {"matmul", "matmul_precision"}
    others |= {"dropout", "variational_dropout", "recurrent_dropout", "init", "forget_bias"}
    assert {*signature(LSTM).parameters} == told | said | others


def archived(state_dict):
    """Return a state_dict from a file of NumPy, which has arrays alone."""
    buffer = io.BytesIO()
    np.savez(buffer, **state_dict)
    buffer.seek(0)
    return np.load(buffer)


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_plain_lstms_have_their_parameters_alone(options):
    lstm = made(options)
    assert tuple(lstm.state_dict()) == lstm.parameters
    made(options, 1).load_state_dict(archived(lstm.state_dict()))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_options(options):
    lstm, other = made(options), made(options, 1)
    assert [*lstm.state_dict()] == [*lstm.parameters, "lstm_options"]
    other.load_state_dict(archived(lstm.state_dict()))
    assert_identical(other.state_dict(), lstm.state_dict())
    x = np.random.default_rng(0).standard_normal((5, 2, 4)).astype(np.float32)
    assert np.array_equal(other(x)[0], lstm(x)[0])
    _, _, grads = lstm.backward(lstm(x)[0], None, lstm.forward(x)[2])
    assert tuple(grads) == lstm.parameters


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_other_options(options):
    lstm = made(options)
    name = next(name for name in options if name not in ("bidirectional", "peephole"))
    others = [{k: v for k, v in options.items() if k in ("bidirectional", "peephole")}]
    others += [{"clip": 7.0, **others[0]}]
    for other in map(made, others):
        before = other.state_dict()
        with pytest.raises(ValueError, match=f"lstm_options.*is of an LSTM with .*{name}="):
            other.load_state_dict(archived(lstm.state_dict()))
        assert_identical(other.state_dict(), before)
        with pytest.raises(ValueError, match=f"this one has .*{name}="):
            lstm.load_state_dict(other.state_dict() | {"lstm_options": np.frombuffer(b"{}", "u1")})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_arrays_without_options(options):
    lstm = made(options)
    arrays = {
        name: value + 1 for name, value in lstm.state_dict().items() if name != "lstm_options"
    }
    with pytest.raises(ValueError, match=r"missing keys \['lstm_options'\].*add 'lstm_options'"):
        lstm.load_state_dict(arrays)
    with lstm.writable() as parameters:
        for name, value in arrays.items():
            parameters[name] = value
    assert_identical({name: lstm.state_dict()[name] for name in arrays}, arrays)


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b"\xff", [[1.5]], ["a"], None, 1e9])
def test_what_is_no_options(value):
    value = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    for lstm in (LSTM(3, 4), LSTM(3, 4, coupled=True)):
        with pytest.raises(ValueError, match="expected options as an LSTM writes them"):
            lstm.load_state_dict(lstm.state_dict() | {"lstm_options": value})


def test_models():
    def model(**options):
        inner = nn.Sequential(lstm=LSTM(3, 4, **options))
        return nn.Sequential(inner=inner, head=nn.Linear(4, 2))

    one = model(coupled=True)
    assert [*one.state_dict()] == [*one.parameters, "inner.lstm.lstm_options"]
    model(coupled=True).load_state_dict(archived(one.state_dict()))
    with pytest.raises(ValueError, match=r"inner\.lstm\.lstm_options.*coupled=True.*plain"):
        model().load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match=r"missing keys \['inner\.lstm\.lstm_options'\]"):
        one.load_state_dict(model().state_dict())


def test_zoneout_that_is_set_later():
    lstm = made({})
    lstm.zoneout = 0.1, 0.1
    with pytest.raises(ValueError, match=r"with zoneout=\[0\.1, 0\.1\], and this one has plain"):
        made({}).load_state_dict(lstm.state_dict())


def test_files_say_it_already(tmp_path):
    """Those of before, which have no such array, are read."""
    pytest.importorskip("safetensors", reason="files need safetensors: pip install '.[files]'")
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    import lstm_fast as lf

    path, lstm = tmp_path / "a.safetensors", made({"coupled": True})
    lstm.save(path)
    assert_identical(lf.load(path).state_dict(), lstm.state_dict())
    with pytest.raises(ValueError, match="coupled"):
        made({}).load_state_dict(load_file(path))
    with safe_open(path, "numpy") as file:
        about = file.metadata()
    arrays = {name: value for name, value in load_file(path).items() if name != "lstm_options"}
    save_file(arrays, path, about)
    assert_identical(lf.load(path).state_dict(), lstm.state_dict())
    lstm.stream(2).save(path)
    assert_identical(lf.load(path).lstm.state_dict(), lstm.state_dict())
