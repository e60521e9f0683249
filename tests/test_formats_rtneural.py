"""`from_rtneural`: JSON of RTNeural, against its own recorded outputs and against the reference."""

import itertools
import json

import numpy as np
import pytest
from support.comparing import assert_close
from support.hostile import changed, read_all, truncated
from support.models import model

import lstm_fast as lf
from lstm_fast import nn
from lstm_fast.formats import from_rtneural
from lstm_fast.formats.rtneural import inspect

pytestmark = pytest.mark.no_isa

T, B, I, H = 5, 2, 3, 4


def lists(array):
    return array.tolist()


def layer(kind, size, weights=(), activation="", **more):
    return {
        "type": kind,
        "activation": activation,
        "shape": [None, None, size],
        "weights": [lists(w) for w in weights],
        **more,
    }


def written(tmp_path, data):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(data))
    return path


def drawn(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32) / 2


def keras_weights(rng, columns=I, units=H):
    return drawn(rng, columns, 4 * units), drawn(rng, units, 4 * units), drawn(rng, 4 * units)


def expected(weights, x, h, c):
    """Return y of an LSTM with weights as Keras has them; the reference is independent code."""
    kernel, recurrent, bias = weights
    y, *_ = lf.reference.lstm_forward(x, kernel.T, recurrent.T, bias, None, h, c)
    return y


def compare(path, x, h, c, y):
    actual, _ = from_rtneural(path, batch_first=False)(x, (h[None], c[None]))
    assert_close([actual], [y], 1e-6, dtype=np.float32)


@pytest.fixture
def states(rng):
    return drawn(rng, B, H), drawn(rng, B, H)


@pytest.mark.parametrize("name", ["lstm", "lstm_1d", "lstm_torch"])
def test_models_of_rtneural(name, capsys):
    x, y = (
        np.loadtxt(model(f"rtneural/{name}_{which}_python.csv"))[None, :, None] for which in "xy"
    )
    read = from_rtneural(model(f"rtneural/{name}.json"), verify=(x, y))
    assert np.abs(read(x.astype(np.float32))[0] - y).max() < 3e-7
    assert "verified" in capsys.readouterr().err


def test_a_model_that_contradicts_itself():
    with pytest.raises(ValueError, match=r"lstm_0 kernel.*\(1, 80\).*\(1, 64\)"):
        from_rtneural(model("rtneural/bad_lstm.json"))
    found = inspect(model("rtneural/bad_lstm.json"))
    assert [one[:3] for one in found] == [
        ("lstm_0", "LSTM", "1 -> 20"),
        ("dense_1", "Linear", "20 -> 1"),
    ]


def test_an_lstm_alone(tmp_path, rng, states):
    weights = keras_weights(rng)
    x = drawn(rng, T, B, I)
    path = written(tmp_path, {"in_shape": [None, None, I], "layers": [layer("lstm", H, weights)]})
    compare(path, x, *states, expected(weights, x, *states))
    assert from_rtneural(path).batch_first
    without_bias = layer("lstm", H, weights[:2], "tanh")
    path = written(tmp_path, {"in_shape": [None, None, I], "layers": [without_bias]})
    compare(path, x, *states, expected((*weights[:2], 0 * weights[2]), x, *states))


def test_layers_around(tmp_path, rng):
    kernel, bias = drawn(rng, I, 6), drawn(rng, 6)
    weights = keras_weights(rng, 6)
    head = drawn(rng, H, 2), drawn(rng, 2)
    layers = [
        layer("time-distributed-dense", 6, (kernel, bias), "elu"),
        layer("prelu", 6, [np.full((1, 6), 0.25)]),
        layer("lstm", H, weights, "tanh"),
        layer("activation", H, activation="relu"),
        layer("dense", 2, head, "softmax"),
    ]
    read = from_rtneural(written(tmp_path, {"in_shape": [None, None, I], "layers": layers}))
    x = drawn(rng, B, T, I)
    v = x @ kernel + bias
    v = np.where(v > 0, v, np.expm1(np.minimum(v, 0)))
    v = np.where(v > 0, v, 0.25 * v)
    zeros = np.zeros((B, H), np.float32)
    v = expected(weights, v.swapaxes(0, 1), zeros, zeros).swapaxes(0, 1)
    v = np.exp(np.maximum(v, 0) @ head[0] + head[1])
    assert_close([read(x)[0]], [v / v.sum(axis=2, keepdims=True)], 1e-6)
    assert isinstance(read, nn.Sequential) and len(read) == 7


@pytest.mark.parametrize("around", ["in_skip", "skip", "in_gain", "out_gain"])
def test_what_is_done_around_the_layers_is_refused(tmp_path, rng, around):
    layers = [layer("lstm", H, keras_weights(rng))]
    data = {"in_shape": [None, None, I], "layers": layers, around: 0}
    from_rtneural(written(tmp_path, data))
    with pytest.raises(ValueError, match=f"{around}: is 1: the output is not that of the layers"):
        from_rtneural(written(tmp_path, data | {around: 1}))


def test_odd_layers_are_refused(tmp_path, rng):
    lstm, dense = layer("lstm", H, keras_weights(rng)), layer("dense", 2, [drawn(rng, H, 2)])
    for layers, message in (
        ([lstm | {"go_backwards": True}], "go_backwards"),
        ([lstm, dense | {"activation": {"a": 1}}], "activation: is no name"),
    ):
        with pytest.raises(ValueError, match=message):
            from_rtneural(written(tmp_path, {"in_shape": [None, None, I], "layers": layers}))


def test_a_state_dict(tmp_path, rng):
    x = drawn(rng, T, B, I)
    lstm, head = lf.LSTM(I, H, 2, seed=1), nn.Linear(H, 2, seed=2)
    values = {f"rec.{k}": v for k, v in lstm.state_dict().items()}
    values |= {f"lin.{k}": v for k, v in head.state_dict().items()}
    named = {k: lists(v) for k, v in values.items()}
    y, _ = head(lstm(x)[0])
    about = {"model": "SimpleRNN", "unit_type": "LSTM", "skip": 0}
    for data in (named, {"state_dict": named}, {"model_data": about, "state_dict": named}):
        path = written(tmp_path, data)
        assert_close([from_rtneural(path, batch_first=False)(x)[0]], [y], 1e-6)
        assert [one[:3] for one in inspect(path)] == [
            ("rec", "LSTM", f"{I} -> {H}"),
            ("lin", "Linear", f"{H} -> 2"),
        ]
    alone = {k: lists(v) for k, v in lstm.state_dict().items()}
    assert_close(
        [from_rtneural(written(tmp_path, alone))(x.swapaxes(0, 1))[0]],
        [lstm(x)[0].swapaxes(0, 1)],
        1e-6,
    )
    for skip in ({"skip": 1}, {"unit_type": "GRU"}, {"model": "ConvSimpleRNN"}):
        path = written(tmp_path, {"model_data": about | skip, "state_dict": named})
        with pytest.raises(ValueError, match=next(iter(skip))):
            from_rtneural(path)
    del about["skip"]
    path = written(tmp_path, {"model_data": about, "state_dict": named})
    with pytest.raises(ValueError, match=r"which means 1; the model adds x\[..., :1\]"):
        from_rtneural(path)


def test_the_comparison_catches_mistakes(tmp_path, rng, states):
    kernel, recurrent, bias = weights = keras_weights(rng, H)
    x = drawn(rng, T, B, H)
    y = expected(weights, x, *states)

    def check(kernel, recurrent, bias):
        layers = [layer("lstm", H, (kernel, recurrent, bias))]
        path = written(tmp_path, {"in_shape": [None, None, H], "layers": layers})
        compare(path, x, *states, y)

    check(kernel, recurrent, bias)
    wrong = [(kernel, recurrent, 0 * bias), (kernel, recurrent, 2 * bias)]
    for order in [*itertools.permutations(range(4))][1:]:
        columns = np.arange(4 * H).reshape(4, H)[[*order]].ravel()
        wrong.append((kernel[:, columns], recurrent[:, columns], bias[columns]))
    turned = [
        np.concatenate([block.T for block in np.split(w, 4, axis=1)], axis=1)
        for w in (kernel, recurrent)
    ]
    wrong += [(turned[0], recurrent, bias), (kernel, turned[1], bias), (recurrent, kernel, bias)]
    for mistaken in wrong:
        with pytest.raises(AssertionError):
            check(*mistaken)


def test_what_is_refused(tmp_path, rng):
    weights = keras_weights(rng)
    good = layer("lstm", H, weights)

    def one(data, **change):
        return {"in_shape": [None, None, I], "layers": [data | change]}

    conv = layer("conv1d", H, kernel_size=[3], dilation=[1])
    slopes = layer("prelu", I, [drawn(rng, 1, I)])
    dense = {"dense.weight": [[1.0] * H], "dense.bias": [0.5]}
    torch = {k: lists(v) for k, v in lf.LSTM(I, H, seed=0).state_dict().items()}
    cases = [
        ([], "an object is needed"),
        ({}, "no model of RTNeural"),
        (dense, "no model of RTNeural"),
        ({"layers": []}, "in_shape"),
        ({"in_shape": [None, I], "layers": []}, "from 1 to 1000"),
        ({"in_shape": [None, I], "layers": [3]}, "layer 0"),
        (one(good, activation="relu"), "activation"),
        (one(good, recurrent_activation="hard_sigmoid"), "recurrent_activation"),
        (one(good, shape=[None, 0]), "shape"),
        (one(good, weights=good["weights"][:1]), "1 arrays"),
        (one(good, weights=None), "is no list"),
        (one(good, weights=[good["weights"][0], good["weights"][1], [1.0]]), "bias"),
        (one(good, weights=["a", "b"]), "is no array"),
        (one(good, weights=[[[1e300] * 16] * 3, good["weights"][1]]), "too large"),
        (one(good, weights=[[[True] * 16] * 3, good["weights"][1]]), "is no array"),
        (one(good, type="gru"), "'gru'"),
        (one(conv | {"shape": [None, I]}), "'conv1d'"),
        (one(layer("batchnorm", I)), "'batchnorm'"),
        (one(layer("activation", I, activation="selu")), "selu"),
        (one(layer("activation", H, activation="relu")), "columns"),
        (one(slopes), "slope for every column"),
        (one(layer("activation", I)), "do nothing"),
        (torch | {"other": 1}, "no LSTM and no linear"),
        (torch | dense | {"d2.weight": [[1.0]]}, "what is between"),
        ({**dense, **torch}, "comes after"),
        (torch | {"d.weight": [[1.0] * (H + 1)]}, "columns"),
        (torch | {"d.weight": [[1.0] * H], "d.bias": [1.0, 2.0]}, "two sizes"),
        ({k: v for k, v in torch.items() if k != "bias_ih_l0"}, "not complete"),
        ({k.replace("l0", "l1"): v for k, v in torch.items()}, "count from 0"),
    ]
    for data, message in cases:
        path = written(tmp_path, data)
        with pytest.raises(ValueError, match=message) as caught:
            from_rtneural(path)
        assert str(path) in str(caught.value)
        if isinstance(data, dict):
            inspect(path)
    path = written(tmp_path, one(good))
    with pytest.raises(ValueError, match=r"give \(x, y\)"):
        from_rtneural(path, verify=True)
    with pytest.raises(FileNotFoundError, match="no file"):
        from_rtneural(tmp_path)


def test_hostile_files(tmp_path, rng):
    layers = [layer("lstm", 2, keras_weights(rng, I, 2)), layer("dense", 1, (drawn(rng, 2, 1),))]
    data = json.dumps({"in_shape": [None, None, I], "layers": layers}).encode()
    path = tmp_path / "model.json"
    copies = [*truncated(data), *changed(data, rng, 2000)]
    assert read_all(from_rtneural, path, copies) > 100  # changed digits
    read_all(inspect, path, copies[::4])
    other = [
        b"",
        b"[" * 10**5,
        b'{"layers":' + b"[" * 10**5,
        b"[" + b"[]," * 2**20 + b"1]",
        b'{"in_shape": [1], "in_shape": [2], "layers": []}',
        b'{"layers": NaN}',
        b'{"l.weight_ih_l' + b"9" * 5000 + b'": [[1]]}',
        b'{"in_shape": [' + b"9" * 10**4 + b'], "layers": [{"type": "lstm"}]}',
        b"\xff\xfe{}",
        b"PK\x03\x04",
    ]
    assert read_all(from_rtneural, path, other) == 0
    read_all(inspect, path, other)
