"""Networks with all options: `LSTM` against the reference, which is held to central differences."""

import copy

import numpy as np
import pytest
from helpers import assert_identical, central_difference
from networks import in_dtype, network, of_each_cell
from ragged import assert_close
from variants import draw_function

from lstm_fast import LSTM, reference
from lstm_fast.reference import Noise, draw_noise, initial_parameters

NETWORKS, BLOCKS = 30, 8
# Relative to the largest element of an array: three times the largest error, that of layer norm.
TOLERANCE = {"float32": 1e-4, "float64": 2e-13}
MERGES = ["concat", "sum", "mul", "ave"]
RATES = ["dropout", "variational_dropout", "recurrent_dropout", "zoneout"]


def random_settings(rng):
    """Return sizes and settings of an LSTM, any of the options among them."""
    L = int(rng.integers(1, 4))
    H = int(rng.integers(4, 20))
    sizes = tuple(int(n) for n in rng.integers(4, 20, L))

    def sometimes(value, share=0.3):
        return value if rng.random() < share else None

    settings = {
        "num_layers": L,
        "bias": sometimes(False),
        "batch_first": sometimes(True),
        "dropout": sometimes(0.4) if L > 1 else None,
        "reverse": sometimes(True),
        "proj_size": sometimes(3),
        "peephole": sometimes(True),
        "coupled": sometimes(True),
        "clip": sometimes(float(rng.uniform(0.5, 1.5))),
        "cell_clip": sometimes(float(rng.uniform(0.5, 1.5)), 0.5),
        "activations": sometimes(tuple(draw_function(rng) for _ in range(3))),
        "layer_norm": sometimes(True),
        "variational_dropout": sometimes(0.3),
        "recurrent_dropout": sometimes(0.3),
        "zoneout": sometimes((0.2, 0.3)),
    }
    if rng.random() < 0.4:
        settings |= {"bidirectional": True, "merge": str(rng.choice(MERGES)), "reverse": None}
    if settings["layer_norm"]:
        # That of rows of nearly equal elements, as clipped ones are, amplifies roundings.
        settings |= {"clip": None, "cell_clip": None, "activations": None}
    if settings["activations"] is not None:  # some grow without bound
        settings["cell_clip"] = settings["cell_clip"] or 1.0
    if settings["proj_size"]:
        settings["zoneout"] = None
    one_size = rng.random() < 0.6
    if L > 1 and (one_size or settings["proj_size"]):
        settings["residual"] = sometimes(True)
    settings = {name: value for name, value in settings.items() if value is not None}
    return int(rng.integers(4, 20)), H if one_size else sizes, settings


def random_call(rng, T, B):
    """Return lengths, mask and padding, some or none."""
    call = {"padding": str(rng.choice(["zero", "hold"]))}
    if rng.random() < 0.4:
        call["lengths"] = rng.integers(0, T, B, endpoint=True)
    if rng.random() < 0.3:
        call["mask"] = rng.random((B, T)) < 0.6
    return call


def draw(rng, lstm, T, B):
    """Return random x, h0, c0, dy, dhn, dcn, as `network` takes them."""
    x = rng.standard_normal(
        (B, T, lstm.input_size) if lstm.batch_first else (T, B, lstm.input_size)
    )
    y, (hn, cn) = lstm(x.astype(lstm.dtype))

    def like(a):
        return tuple(map(like, a)) if isinstance(a, tuple) else rng.standard_normal(a.shape)

    given = [x, like(hn), like(cn), like(y), like(hn), like(cn)]
    return [in_dtype(a, lstm.dtype) for a in given]


def by_name(y, state, more=()):
    """Return results by the names that `network` gives them."""
    results = {"y": y, **dict(more)}
    for name, part in state.items():
        if isinstance(part, tuple):
            arrays = [a for layer in part for a in layer]
            results |= {f"{name}_{n}": a for n, a in enumerate(arrays)}
        else:
            results[name] = part
    return results


def run(lstm, x, h0, c0, dy, dhn, dcn, **call):
    """Return results and gradients of training by name."""
    y, (hn, cn), cache = lstm.forward(x, (h0, c0), **call)
    dx, (dh0, dc0), grads = lstm.backward(dy, (dhn, dcn), cache)
    more = {"dx": dx, **{f"d{name}": grad for name, grad in grads.items()}}
    return by_name(y, {"hn": hn, "cn": cn, "dh0": dh0, "dc0": dc0}, more)


def noise_of(lstm, T, B, lengths=None, mask=None, padding="zero"):
    """Return the noise that `forward` will draw, by a copy of its generator, in its order.

    It has rows for steps that run: by time, counting those only, then the longest sequence first.
    """
    rng, dtype = copy.deepcopy(lstm._rng), lstm.dtype
    runs = np.arange(T) < np.full((B, 1), T if lengths is None else np.reshape(lengths, (B, 1)))
    runs = runs if mask is None else runs & mask
    times = [np.flatnonzero(row) for row in runs]
    order = sorted(range(B), key=lambda b: -len(times[b]))
    steps = [(times[b][k], b) for k in range(T) for b in order if k < len(times[b])]

    def bernoulli(rate, *shape):
        return rng.random(shape, np.float32) >= rate

    def at_each_step(values):
        out = np.zeros((T, B, values.shape[1]))
        for (t, b), row in zip(steps, values, strict=True):
            out[t, b] = row
        return out

    def scaled(kept, rate):
        return kept * float(dtype.type(1 / (1 - rate)))

    input_masks, recurrent_masks, zoneouts = [], [], []
    D, columns = 1 + lstm.bidirectional, lstm.input_size
    H = lstm.hidden_size if lstm._differ else (lstm.hidden_size,) * lstm.num_layers
    for layer in np.repeat(range(lstm.num_layers), D):
        if lstm.recurrent_dropout:
            kept = bernoulli(lstm.recurrent_dropout, B, lstm.proj_size or H[layer])
            recurrent_masks.append(scaled(kept, lstm.recurrent_dropout))
        if lstm.zoneout:
            kept = [~bernoulli(rate, len(steps), H[layer]) for rate in lstm.zoneout]
            zoneouts.append(tuple(at_each_step(k) for k in kept))
    for layer in range(lstm.num_layers):
        mask = None
        if lstm.dropout and layer:
            kept = bernoulli(lstm.dropout, len(steps), columns)
            mask = scaled(at_each_step(kept), lstm.dropout)
        if lstm.variational_dropout:
            same = bernoulli(lstm.variational_dropout, 1, B, columns)
            same = scaled(same, lstm.variational_dropout)
            mask = same if mask is None else mask * same
        input_masks.append(mask)
        columns = (lstm.proj_size or H[layer]) * (D if lstm.merge == "concat" else 1)
    return Noise(input_masks, recurrent_masks or None, zoneouts or None)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_lstm_is_the_network_of_the_reference(isa, dtype, block):
    for n in range(NETWORKS):
        rng = np.random.default_rng((block, n))
        I, H, settings = random_settings(rng)
        T, B = (int(m) for m in rng.integers(1, 8, 2))
        lstm = LSTM(I, H, **settings, dtype=dtype, seed=1)
        call, given = random_call(rng, T, B), draw(rng, lstm, T, B)
        where = f"{block=} {n=} {lstm} {call}"
        mean = [lstm.zoneout] * (lstm.num_layers * (1 + lstm.bidirectional))
        noise = Noise(zoneouts=mean) if lstm.zoneout else None
        expected = network(lstm, *given, noise=noise, **call)
        y, (hn, cn) = lstm(given[0], tuple(given[1:3]), **call)
        actual = by_name(y, {"hn": hn, "cn": cn})
        tolerance = TOLERANCE[dtype.name]
        assert_close(actual, {name: expected[name] for name in actual}, tolerance, where)
        call["checkpoint"] = int(rng.integers(1, T + 1)) if rng.random() < 0.3 else None
        noise = noise_of(lstm, T, B, **{k: v for k, v in call.items() if k != "checkpoint"})
        actual = run(lstm, *given, **call)
        call.pop("checkpoint")
        assert_close(actual, network(lstm, *given, noise=noise, **call), tolerance, where)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_noise_is_that_of_the_reference(dtype, block):
    for n in range(NETWORKS):
        rng = np.random.default_rng((block, n))
        I, H, settings = random_settings(rng)
        lstm = LSTM(I, H, **settings, dtype=dtype, seed=1)
        x = np.zeros((4, 3, I), dtype)
        noise = draw_noise(copy.deepcopy(lstm._rng), x, lstm.state_dict(), **rates_of(lstm))
        actual, expected = flat(noise), flat(noise_of(lstm, 4, 3))
        assert [a.shape for a in actual] == [a.shape for a in expected]
        for a, b in zip(actual, expected, strict=True):
            assert a.dtype == dtype
            np.testing.assert_array_equal(a, b.astype(dtype))


def flat(noise):
    """Return the arrays in lists and tuples, in their order."""
    if isinstance(noise, np.ndarray):
        return [noise]
    return [] if noise is None else [a for part in noise for a in flat(part)]


# The reference


NETWORKS_OF_REFERENCE = {
    "concat": {"bidirectional": True},
    "sum": {"bidirectional": True, "merge": "sum"},
    "mul": {"bidirectional": True, "merge": "mul"},
    "ave": {"bidirectional": True, "merge": "ave"},
    "reverse": {"reverse": True},
    "residual": {"residual": True},
    "residual-mul": {"residual": True, "bidirectional": True, "merge": "mul"},
    "dropout": {"residual": True, "dropout": 0.4, "variational_dropout": 0.3},
    "cells": {"zoneout": (0.2, 0.3), "recurrent_dropout": 0.3, "peephole": True},
    "projection": {"proj_size": 2, "residual": True, "layer_norm": True},
}


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("name", NETWORKS_OF_REFERENCE)
def test_gradients_of_the_reference_are_central_differences(rng, name, padding):
    settings = NETWORKS_OF_REFERENCE[name]
    sizes = 3 if settings.get("residual") else (3, 2)
    lstm = LSTM(2, sizes, 2 if sizes == 3 else 1, **settings, dtype=float, seed=1)
    call = {"lengths": [4, 0, 3], "mask": rng.random((3, 4)) < 0.8, "padding": padding}
    if name == "concat":
        call = {}
    noise = draw_noise(rng, np.zeros((4, 3, 2)), lstm.state_dict(), **rates_of(lstm))
    x, h0, c0, *d_results = draw(rng, lstm, 4, 3)
    parameters = {k: v.copy() for k, v in lstm.state_dict().items()}
    h0, c0, dhn, dcn = map(of_each_cell, (h0, c0, *d_results[1:]))
    options = {k: getattr(lstm, k) for k in ("reverse", "merge", "residual")}

    def forward():
        return reference.network_forward(x, parameters, h0, c0, noise=noise, **options, **call)

    def loss():
        y, (hn, cn), _ = forward()
        pairs = zip((y, *hn, *cn), (d_results[0], *dhn, *dcn), strict=True)
        return sum((a * d).sum() for a, d in pairs)

    dx, (dh0, dc0), grads = reference.network_backward(d_results[0], dhn, dcn, forward()[2])
    assert list(grads) == list(parameters)
    arrays = [(x, dx), *zip(h0, dh0, strict=True), *zip(c0, dc0, strict=True)]
    arrays += [(parameters[k], grads[k]) for k in grads]
    for array, gradient in arrays:
        difference = central_difference(loss, array, 1e-5)
        assert np.abs(gradient - difference).max() <= 1e-7 * max(1, np.abs(gradient).max())


def rates_of(lstm):
    return {name: getattr(lstm, name) for name in RATES}


@pytest.mark.parametrize("block", range(BLOCKS))
def test_initial_values_are_those_of_the_reference(dtype, block):
    for n in range(NETWORKS):
        rng = np.random.default_rng((block, n))
        I, H, settings = random_settings(rng)
        chosen = {"init": str(rng.choice(["uniform", "keras"]))}
        if settings.get("bias", True) and rng.random() < 0.3:
            chosen["forget_bias"] = 2.5
        lstm = LSTM(I, H, **settings, **chosen, dtype=dtype, seed=n)
        names = ["bias", "bidirectional", "merge", "proj_size", "peephole", "layer_norm"]
        options = {name: getattr(lstm, name) for name in names}
        sizes = H if isinstance(H, tuple) else (H,) * lstm.num_layers
        expected = initial_parameters(
            np.random.default_rng(n), I, sizes, **options, **chosen, dtype=dtype
        )
        assert list(lstm.state_dict()) == list(expected)
        assert_identical(lstm.state_dict(), expected)


def test_cache_serves_again_and_arguments_stay(rng):
    lstm = LSTM(3, 4, 2, bidirectional=True, merge="mul", residual=True, dtype=float, seed=0)
    given = draw(rng, lstm, 5, 2)
    before = copy.deepcopy(given)
    parameters = lstm.state_dict()
    _, _, cache = reference.network_forward(
        *(given[0], parameters, *given[1:3]), merge="mul", residual=True, padding="hold"
    )
    once, again = (flat([*reference.network_backward(*given[3:], cache)[:2]]) for _ in range(2))
    for a, b in zip((*once, *given), (*again, *before), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"merge": "max"}, "merge must be"),
        ({"padding": "same"}, "padding must be"),
        ({"reverse": True}, "reverse is for one direction"),
        ({"h0": [np.zeros((2, 4))]}, "h0 must be 4"),
        ({"c0": np.zeros((5, 2, 4))}, "c0 must be 4"),
        ({"noise": Noise(input_masks=[None])}, "input_masks must be 2"),
        ({"noise": Noise(zoneouts=[(0.1, 0.1)])}, "zoneout must be 4"),
        ({"noise": Noise(recurrent_masks=[])}, "recurrent_mask must be 4"),
        ({"lengths": [1]}, "lengths must have shape"),
        ({"parameters": {}}, "one layer or more"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    parameters = LSTM(3, 4, 2, bidirectional=True, dtype=float).state_dict()
    with pytest.raises(ValueError, match=words):
        reference.network_forward(**{"x": np.zeros((5, 2, 3)), "parameters": parameters} | options)
