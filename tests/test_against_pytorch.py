"""Against PyTorch in float64, random sizes, settings, states and values.

`LSTM` against ``torch.nn.LSTM``; `lstm_forward` with every option against autograd.
"""

import numpy as np
import pytest
from helpers import draw
from helpers import run as run_layer
from oracles import (
    CONSTANTS,
    FUNCTIONS,
    UNBOUNDED,
    assert_close,
    every_implementation,
    run_autograd,
)

from lstm_fast import LSTM

BLOCKS, CONFIGURATIONS = 20, 26
PACKED = 5  # blocks of these with sequences of different lengths
VARIANT_BLOCKS, VARIANTS = 10, 40
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65]  # I and H
BATCHES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 32, 33]
# Relative to the largest element of an array: 84 roundings in float32, 90 in float64. Sums of a few
# hundred products and nine steps of recurrence give up to 26 and 24 in these configurations.
TOLERANCE = {"float32": 1e-5, "float64": 2e-14}
# Layer norm of a nearly constant row amplifies roundings: to 2e-12 in three times as many variants.
VARIANT_TOLERANCE = 1e-10


def configuration(block, n):
    """Return random settings, parameters and arguments by name, and which arguments are absent."""
    rng = np.random.default_rng((block, n))
    T, B, I, H = (int(rng.choice(sizes)) for sizes in (range(1, 10), BATCHES, SIZES, SIZES))
    settings = {
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.random() < 0.8),
        "batch_first": bool(rng.random() < 0.4),
        "bidirectional": bool(rng.random() < 0.4),
        "proj_size": int(rng.integers(1, H)) if H > 1 and rng.random() < 0.3 else 0,
    }
    lstm = LSTM(I, H, **settings)
    D, R = 2 if lstm.bidirectional else 1, lstm.proj_size or H
    if rng.random() < 0.8:
        sequence, batch = (B, T) if lstm.batch_first else (T, B), (B,)
    else:
        sequence, batch = (T,), ()
    h, c = (lstm.num_layers * D, *batch, R), (lstm.num_layers * D, *batch, H)
    shapes = {"x": (*sequence, I), "h0": h, "c0": c, "dy": (*sequence, D * R), "dhn": h, "dcn": c}
    shapes |= {name: array.shape for name, array in lstm.state_dict().items()}
    # Exact in float32, so that both dtypes are given the same numbers.
    arrays = {name: rng.standard_normal(s, np.float32).astype(float) for name, s in shapes.items()}
    parameters = {name: arrays.pop(name) for name in lstm.state_dict()}
    for array in parameters.values():
        array /= 2.0 ** round(np.log2(array.shape[-1]) / 2)
    absent = {name for name in ("h0", "c0", "dy", "dhn", "dcn") if rng.random() < 0.15}
    for name in absent:
        arrays[name][:] = 0
    return settings, parameters, arrays, absent


def run(settings, parameters, arrays, absent, matmul, dtype, **options):
    """Return results and gradients by name; options are those of `forward`."""
    lstm = LSTM(arrays["x"].shape[-1], arrays["c0"].shape[-1], **settings, dtype=dtype)
    lstm.matmul = matmul
    lstm.load_state_dict(parameters)
    given = {k: None if k in absent else array.astype(dtype) for k, array in arrays.items()}
    state = None if {"h0", "c0"} <= absent else (given["h0"], given["c0"])
    y, (hn, cn), cache = lstm.forward(given["x"], state, **options)
    np.testing.assert_array_equal(lstm(given["x"], state, **options)[0], y)
    dstate = None if {"dhn", "dcn"} <= absent else (given["dhn"], given["dcn"])
    dx, (dh0, dc0), grads = lstm.backward(given["dy"], dstate, cache)
    results = {"y": y, "hn": hn, "cn": cn, "dx": dx, "dh0": dh0, "dc0": dc0}
    return results | {f"d{name}": grad for name, grad in grads.items()}


def run_torch(torch, settings, parameters, arrays, lengths=None):
    """Return the same from PyTorch, in float64, with packed sequences if there are lengths."""
    I, H = arrays["x"].shape[-1], arrays["c0"].shape[-1]
    lstm = torch.nn.LSTM(I, H, **settings, dtype=torch.float64)
    lstm.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})
    x, h0, c0 = (torch.tensor(arrays[name], requires_grad=True) for name in ("x", "h0", "c0"))
    if lengths is None:
        y, (hn, cn) = lstm(x, (h0, c0))
    else:
        order, utils = {"batch_first": lstm.batch_first}, torch.nn.utils.rnn
        packed = utils.pack_padded_sequence(x, lengths, enforce_sorted=False, **order)
        y, (hn, cn) = lstm(packed, (h0, c0))
        T = x.shape[1 if lstm.batch_first else 0]
        y, _ = utils.pad_packed_sequence(y, total_length=T, **order)
    d_results = tuple(torch.from_numpy(arrays[name]) for name in ("dy", "dhn", "dcn"))
    torch.autograd.backward((y, hn, cn), d_results)
    tensors = {"y": y, "hn": hn, "cn": cn, "dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= {f"d{name}": parameter.grad for name, parameter in lstm.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.fixture
def torch():
    """PyTorch on one thread: two pools of threads in turn disturb each other."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


def check(torch, block, n, lengths=None):
    settings, parameters, arrays, absent = configuration(block, n)
    matmul = ("auto", "packed", "blas")[n % 3]
    options = {} if lengths is None else {"lengths": lengths}
    expected = run_torch(torch, settings, parameters, arrays, **options)
    for dtype, tolerance in TOLERANCE.items():
        actual = run(settings, parameters, arrays, absent, matmul, dtype, **options)
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            where = f"{name}, {dtype=}, {n=}, {matmul=}, {settings}, {absent=}, {options}"
            assert (actual[name].shape, actual[name].dtype) == (array.shape, dtype), where
            error = np.abs(actual[name] - array).max()
            assert error <= tolerance * np.abs(array).max(), where


@pytest.mark.parametrize("block", range(BLOCKS))
def test_results_and_gradients_are_pytorchs(block, isa, torch):
    for n in range(CONFIGURATIONS):
        check(torch, block, n)


@pytest.mark.parametrize("block", range(PACKED))
def test_ragged_batches_are_packed_sequences(block, isa, torch):
    for n in range(CONFIGURATIONS):
        settings, _, arrays, _ = configuration(block, n)
        if arrays["x"].ndim == 3:
            T, B = arrays["x"].shape[1::-1] if settings["batch_first"] else arrays["x"].shape[:2]
            lengths = np.random.default_rng((block, n)).integers(1, T, B, endpoint=True)
            check(torch, block, n, lengths)


# Variants


def variant(block, n):
    """Return arrays by name, gradients of results, and options of `lstm_forward`."""
    rng = np.random.default_rng((block, n))
    T, B, I, H = (int(rng.integers(1, most)) for most in (7, 5, 6, 10))

    def some(share=0.4):
        return rng.random() < share

    P = int(rng.integers(1, H + 1)) if some(0.25) else 0
    args, d_results = draw(rng, T, B, I, H, P, dtype=np.dtype(float))
    for name in ("b_ih", "b_hh"):
        if some(0.2):
            del args[name]
    if some():
        args["w_ch"] = rng.standard_normal(3 * H)
    if some(0.3):
        sizes = {"w_ln_ih": 4 * H, "w_ln_hh": 4 * H, "w_ln_c": H}
        args |= {name: 1 + 0.3 * rng.standard_normal(size) for name, size in sizes.items()}
        if some(0.7):
            args["b_ln_c"] = rng.standard_normal(H)
    options = {"reverse": some(0.5), "coupled": some(), "padding": "hold" if some() else "zero"}
    if some():
        options["lengths"] = rng.integers(0, T, B, endpoint=True)
    if some():
        options["mask"] = rng.random((B, T)) < 0.6
    options |= {k: rng.uniform(0.3, 1.5) for k in ("clip", "cell_clip") if some()}
    if some(0.5):
        names = [str(name) for name in rng.choice([*FUNCTIONS], 3)]
        most = [len(CONSTANTS.get(name, ())) for name in names]
        constants = [rng.uniform(0.2, 0.8, rng.integers(0, k, endpoint=True)) for k in most]
        options["activations"] = [(k, *v.tolist()) for k, v in zip(names, constants, strict=True)]
        if names[0] in UNBOUNDED:
            options.setdefault("clip", 1.5)
    if some() and not P:
        kinds = rng.random(), (rng.random((T, B, H)) < 0.4) * 1.0, rng.random((T, B, H))
        options["zoneout"] = tuple(kinds[k] for k in rng.integers(0, 3, 2))
    if some():
        options["recurrent_mask"] = rng.integers(0, 2, (B, P or H)) / 0.5
    return args, d_results, options


@every_implementation
@pytest.mark.parametrize("block", range(VARIANT_BLOCKS))
def test_variants_are_those_of_autograd(implementation, block, torch):
    for n in range(VARIANTS):
        args, d_results, options = variant(block, n)
        expected = run_autograd(torch, args, d_results, options)
        actual = run_layer(implementation, args, d_results, **options)
        where = f"{n=} {[*args]} {options}"
        assert_close(actual, expected, VARIANT_TOLERANCE, where)
