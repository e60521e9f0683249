"""Networks with all options: `LSTM` against the reference, which is held to central differences."""

import copy
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.comparing import assert_close, assert_identical
from support.differences import assert_gradient, weighted_sum
from support.internals import generator_of
from support.networks import (
    by_cell,
    draw_network,
    hidden_sizes,
    of_each_cell,
    reference_network,
    run_network,
)
from support.options import MANY, draw_function

from lstm_fast import LSTM, reference
from lstm_fast.reference import Noise, draw_noise, initial_parameters

# Relative to the largest element of an array, without layer norm and with: three times the largest
# errors of thousands of random networks.
TOLERANCE = {"float32": (5e-6, 1e-4), "float64": (1e-14, 2e-13)}
MERGES = ["concat", "sum", "mul", "ave"]
RATES = ["dropout", "variational_dropout", "recurrent_dropout", "zoneout"]
SETTINGS = {
    "no bias": {"bias": False},
    "batch_first": {"batch_first": True},
    "dropout": {"dropout": 0.4},
    "variational_dropout": {"variational_dropout": 0.3},
    "recurrent_dropout": {"recurrent_dropout": 0.3},
    "zoneout": {"zoneout": (0.2, 0.3)},
    "reverse": {"reverse": True},
    "projection": {"proj_size": 6},
    "residual": {"residual": True},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 0.9},
    "cell_clip": {"cell_clip": 0.8},
    "activations": {"cell_clip": 1.0},  # some functions grow without bound; they are random
    "layer_norm": {"layer_norm": True},
    "norm_of_gates": {"layer_norm": "gates"},
    **{merge: {"bidirectional": True, "merge": merge} for merge in MERGES},
}
OTHERS = ["sizes", "lengths", "mask", "hold", "checkpoint", "concatenated"]
EXCLUDED = [
    {"zoneout", "projection"},
    {"sizes", "residual"},
    {"concatenated", "lengths"},
    {"concatenated", "mask"},
    {"concatenated", "batch_first"},
    # Layer norm of rows of nearly equal elements, as clipped ones are, amplifies roundings. With
    # one input left by a mask, it does not depend on its size: the gradient is all cancellation.
    *({"layer_norm", other} for other in ("clip", "cell_clip", "activations", *RATES[:3])),
    {"layer_norm", "norm_of_gates"},
    *({"reverse", merge} for merge in MERGES),
    *({one, other} for one in MERGES for other in MERGES if one < other),
]
chosen = st.sets(st.sampled_from([*SETTINGS, *OTHERS])).map(
    lambda on: on - {max(pair) for pair in EXCLUDED if pair <= on}
)


def make(rng, on, dtype=np.float64, **more):
    """Return a random `LSTM` with these options."""
    I, *sizes = (int(n) for n in rng.integers(8, 24, 4))
    L = int(rng.integers(2, 4)) if {"residual", "dropout", "sizes"} & on else 1
    given = {"seed": rng, "dtype": dtype}
    for name in SETTINGS.keys() & on:
        given |= SETTINGS[name]
    if "activations" in on:
        given["activations"] = tuple(draw_function(rng) for _ in range(3))
    return LSTM(I, tuple(sizes[:L]) if "sizes" in on else sizes[0], L, **given | more)


def make_call(rng, on, T, B):
    """Return lengths, mask and padding, some or none."""
    call = {"padding": "hold"} if "hold" in on else {}
    if "lengths" in on or "concatenated" in on:
        call["lengths"] = rng.integers(0, T, B, endpoint=True)
    if "mask" in on:
        call["mask"] = rng.random((B, T)) < 0.6
    return call


def noise_of(lstm, T, B, lengths=None, mask=None, padding="zero"):
    """Return the noise that `forward` will draw, by a copy of its generator, in its order.

    It has rows for steps that run: by time, counting those only, then the longest sequence first.
    """
    rng, dtype = generator_of(lstm), lstm.dtype
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
    H = hidden_sizes(lstm)
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


@MANY
@given(on=chosen, T=st.integers(1, 7), B=st.integers(1, 7), seed=st.integers(0, 2**32 - 1))
def test_lstm_is_the_network_of_the_reference(isa, dtype, on, T, B, seed):
    rng = np.random.default_rng(seed)
    lstm = make(rng, on, dtype)
    call, (x, h0, c0, *d_results) = make_call(rng, on, T, B), draw_network(rng, lstm, T, B)
    steps = max(call["lengths"]) if "concatenated" in on else T  # what others would pad to
    noise = noise_of(lstm, steps, B, **call)
    if "concatenated" in on:
        lengths = call.pop("lengths")
        valid = np.arange(T) < lengths[:, None]
        x, d_results[0] = (a.swapaxes(0, 1)[valid] for a in (x, d_results[0]))
        x = x, np.concatenate(([0], np.cumsum(lengths)))
    given = x, h0, c0, *d_results
    mean = [lstm.zoneout] * (lstm.num_layers * (1 + lstm.bidirectional))
    expected = reference_network(
        lstm, *given, noise=Noise(zoneouts=mean if lstm.zoneout else None), **call
    )
    y, (hn, cn) = lstm(x, (h0, c0), **call)
    actual = by_cell({"y": y, "hn": hn, "cn": cn})
    tolerance = TOLERANCE[dtype.name]["layer_norm" in on]
    assert_close(actual, {name: expected[name] for name in actual}, tolerance)
    expected = reference_network(lstm, *given, noise=noise, **call)
    checkpoint = 2 if "checkpoint" in on else None
    actual = by_cell(run_network(lstm, *given, **call, checkpoint=checkpoint))
    assert_close(actual, expected, tolerance)


@pytest.mark.no_isa
@MANY
@given(on=chosen, seed=st.integers(0, 2**32 - 1))
def test_noise_is_that_of_the_reference(dtype, on, seed):
    lstm = make(np.random.default_rng(seed), on, dtype)
    x = np.zeros((4, 3, lstm.input_size), dtype)
    noise = draw_noise(generator_of(lstm), x, lstm.state_dict(), **rates_of(lstm))
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
    "gates": {"peephole": True, "residual": True, "layer_norm": "gates"},
}


@pytest.mark.no_isa
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
    x, h0, c0, *d_results = draw_network(rng, lstm, 4, 3)
    parameters = {name: getattr(lstm, name).copy() for name in lstm.parameters}
    h0, c0, dhn, dcn = map(of_each_cell, (h0, c0, *d_results[1:]))
    options = {k: getattr(lstm, k) for k in ("reverse", "merge", "residual")}

    def forward():
        return reference.network_forward(x, parameters, h0, c0, noise=noise, **options, **call)

    def loss():
        y, (hn, cn), _ = forward()
        return weighted_sum((y, *hn, *cn), (d_results[0], *dhn, *dcn))

    dx, (dh0, dc0), grads = reference.network_backward(d_results[0], dhn, dcn, forward()[2])
    assert list(grads) == list(parameters)
    pairs = {"x": ([x], [dx]), "h0": ([*h0], dh0), "c0": ([*c0], dc0)}
    for cell in dict.fromkeys(re.search(r"_l\d+(_reverse)?$", name)[0] for name in grads):
        names = [name for name in grads if name.endswith(cell)]
        pairs[cell] = [parameters[k] for k in names], [grads[k] for k in names]
    assert sum(len(arrays) for arrays, _ in pairs.values()) == 1 + len(h0) + len(c0) + len(grads)
    for where, (arrays, gradients) in pairs.items():
        # Layer norm makes third derivatives large where a variance is small: a small step.
        step = 1e-6 if lstm.layer_norm else 1e-5
        assert_gradient(gradients, loss, arrays, step=step, tolerance=1e-7, floor=1, where=where)


def rates_of(lstm):
    return {name: getattr(lstm, name) for name in RATES}


@pytest.mark.no_isa
@MANY
@given(
    on=chosen,
    init=st.sampled_from(["uniform", "keras"]),
    forget_bias=st.sampled_from([None, 2.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_initial_values_are_those_of_the_reference(dtype, on, init, forget_bias, seed):
    chosen_init = {"init": init, "forget_bias": None if "no bias" in on else forget_bias}
    lstm = make(np.random.default_rng(seed), on, dtype, **chosen_init, seed=seed)
    names = ["bias", "bidirectional", "merge", "proj_size", "peephole", "layer_norm", "dtype"]
    options = {name: getattr(lstm, name) for name in names} | chosen_init
    sizes = lstm.input_size, hidden_sizes(lstm)
    expected = initial_parameters(np.random.default_rng(seed), *sizes, **options)
    assert lstm.parameters == tuple(expected)
    assert_identical({name: getattr(lstm, name) for name in expected}, expected)


@pytest.mark.no_isa
def test_cache_serves_again_and_arguments_stay(rng):
    lstm = LSTM(3, 4, 2, bidirectional=True, merge="mul", residual=True, dtype=float, seed=0)
    given = draw_network(rng, lstm, 5, 2)
    before = copy.deepcopy(given)
    parameters = lstm.state_dict()
    _, _, cache = reference.network_forward(
        *(given[0], parameters, *given[1:3]), merge="mul", residual=True, padding="hold"
    )
    once, again = (flat([*reference.network_backward(*given[3:], cache)[:2]]) for _ in range(2))
    for a, b in zip((*once, *given), (*again, *before), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.no_isa
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
        ({"x": (np.zeros((5, 3)), [0, 3, 2, 5])}, "offsets must ascend"),
        ({"x": (np.zeros((5, 3)), [0, 5]), "lengths": [5]}, "no others, and no mask"),
        ({"parameters": {}}, "one layer or more"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    parameters = LSTM(3, 4, 2, bidirectional=True, dtype=float).state_dict()
    with pytest.raises(ValueError, match=words):
        reference.network_forward(**{"x": np.zeros((5, 2, 3)), "parameters": parameters} | options)
