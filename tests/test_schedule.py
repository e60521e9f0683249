"""Layers as a pipeline and directions side by side: no bit depends on the threads."""

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import calls, hold
from support.processes import run_python

import lstm_fast

# T, B, I, H, layers, bidirectional: pipelines of short steps, batches, units, directions, chunks.
STACKS = [
    (300, 1, 9, 20, 2, False),
    (300, 1, 9, 20, 3, False),
    (257, 3, 9, 16, 5, False),
    (100, 1, 30, 210, 2, False),
    (40, 24, 9, 33, 3, False),
    (3000, 1, 2, 8, 2, False),
    (200, 1, 9, 40, 1, True),
    (200, 2, 9, 40, 2, True),
    (30, 40, 9, 40, 2, True),
    (60, 40, 20, 128, 1, False),
]


def everything(stack, lengths=None, checkpoint=None, noisy=False, **options):
    """Return all results; those of training are those of inference unless it is `noisy`."""
    T, B, I, H, layers, bidirectional = stack
    rng, jobs = np.random.default_rng(5), layers * (1 + bidirectional)
    P = options.get("proj_size", H)
    lstm = lstm_fast.LSTM(I, H, layers, bidirectional=bidirectional, seed=2, **options)
    x = rng.standard_normal((T, B, I), np.float32)
    state = tuple(rng.standard_normal((jobs, B, n), np.float32) for n in (P, H))
    dy = rng.standard_normal((T, B, P * (1 + bidirectional)), np.float32)
    inference = lstm(x, state, lengths=lengths)[0]
    y, states, cache = lstm.forward(x, state, lengths=lengths, checkpoint=checkpoint)
    if not noisy:
        np.testing.assert_array_equal(y, inference)
    dx, dstates, grads = lstm.backward(dy, state, cache)
    return [inference, y, *states, dx, *dstates, *grads.values()]


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_bits_do_not_depend_on_the_threads(isa, stack, threads):
    T, B = stack[:2]
    for lengths in (None, np.random.default_rng(1).integers(0, T + 1, B)):
        expected = None
        for count in (1, 2, 3, 5):
            lstm_fast.set_num_threads(count)
            actual = everything(stack, lengths)
            assert_identical(actual, expected or actual)
            expected = expected or actual


# One thread computes the steps of each, and the others what comes after, or what goes before
FOLLOWED = [
    ((160, 1, 200, 16, 1, False), {}),
    ((160, 1, 200, 16, 1, False), {"reverse": True, "peephole": True, "zoneout": (0.1, 0.2)}),
    ((160, 1, 200, 16, 1, False), {"matmul_precision": "bfloat16"}),
    ((2200, 1, 170, 16, 1, False), {}),  # some chunks of time
    ((2200, 1, 170, 16, 1, False), {"recurrent_dropout": 0.2, "reverse": True}),
    ((160, 1, 200, 16, 1, False), {"checkpoint": 60}),
    ((7, 1, 5000, 16, 2, False), {}),  # layers one by one: too few steps for a pipeline
    ((60, 1, 400, 40, 1, False), {"layer_norm": True}),
    ((60, 1, 400, 40, 1, False), {"layer_norm": True, "recurrent_dropout": 0.2, "reverse": True}),
    ((60, 1, 400, 40, 1, False), {"layer_norm": True, "matmul_precision": "bfloat16"}),
    ((160, 1, 200, 20, 1, False), {"proj_size": 9}),
    ((160, 1, 200, 16, 1, True), {}),  # from four threads on
]
# Threads share the units of the product of each of these steps, and then its rows
NORMED = [
    ((60, 1, 20, 100, 1, False), {}),
    ((60, 2, 90, 130, 1, False), {"reverse": True, "recurrent_dropout": 0.2}),
    ((60, 2, 90, 130, 1, False), {"zoneout": (0.1, 0.2)}),
    ((60, 3, 20, 100, 2, False), {"proj_size": 90}),
    ((60, 2, 90, 130, 1, False), {"matmul_precision": "bfloat16"}),
    ((40, 1, 30, 130, 1, True), {}),
    ((60, 2, 90, 130, 1, False), {"layer_norm": "gates", "peephole": True}),
]


@pytest.mark.parametrize("lengths", [None, [40, 9, 160, 0]], ids=str)
@pytest.mark.parametrize(("stack", "options"), FOLLOWED, ids=str)
def test_bits_where_threads_follow_one(isa, stack, options, lengths, adaptive):
    if lengths is not None:  # a row of most times
        stack = (160, 4, *stack[2:])
    noisy = bool({"zoneout", "recurrent_dropout"} & options.keys())
    lstm_fast.set_num_threads(1)
    expected = everything(stack, lengths, noisy=noisy, **options)
    for count in (2, 3, 5):
        lstm_fast.set_num_threads(count)
        hold(count, 1)
        before = calls()[0]
        assert_identical(everything(stack, lengths, noisy=noisy, **options), expected)
        assert calls()[0] > before


@pytest.mark.parametrize("lengths", [None, [40, 9, 60, 0, 60]], ids=str)
@pytest.mark.parametrize(("stack", "options"), NORMED, ids=str)
def test_bits_of_layer_norm(isa, stack, options, lengths, adaptive):
    options = {"layer_norm": True, **options}
    T, B, *sizes = stack
    if lengths is not None:
        lengths = [min(T, n) for n in lengths]
        B = len(lengths)
    noisy = bool({"zoneout", "recurrent_dropout"} & options.keys())
    lstm_fast.set_num_threads(1)
    expected = everything((T, B, *sizes), lengths, noisy=noisy, **options)
    for count in (2, 3, 5):
        lstm_fast.set_num_threads(count)
        hold(count, 1)
        before = calls()[0]
        actual = everything((T, B, *sizes), lengths, noisy=noisy, **options)
        assert_identical(actual, expected)
        assert calls()[0] > before


def test_layers_are_what_they_are_one_by_one(rng):
    """A stack equals its layers, each run by itself."""
    stack = lstm_fast.LSTM(3, 20, 3, seed=0)
    x, below = rng.standard_normal((300, 2, 3), np.float32), None
    parameters = stack.state_dict()
    for layer in range(3):
        one = lstm_fast.LSTM(20 if layer else 3, 20)
        one.load_state_dict(
            {f"{n[:-1]}0": v for n, v in parameters.items() if n.endswith(str(layer))}
        )
        below = one(x if below is None else below)[0]
    np.testing.assert_array_equal(stack(x)[0], below)


def test_fewer_threads_than_asked_for():
    """OpenMP may grant fewer; every layer is still computed."""
    code = """
import lstm_fast
from support.comparing import assert_identical
from test_schedule import STACKS, everything
for stack in STACKS:
    lstm_fast.set_num_threads(1)
    expected = everything(stack)
    lstm_fast.set_num_threads(4)
    assert_identical(everything(stack), expected)
print("identical")
"""
    for limit in (1, 2, 3):
        assert run_python(code, OMP_THREAD_LIMIT=str(limit)) == "identical\n"
