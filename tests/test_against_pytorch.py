"""`LSTM` against ``torch.nn.LSTM`` in float64: random sizes, settings, states and values."""

import numpy as np
import pytest

from lstm_fast import LSTM

BLOCKS, CONFIGURATIONS = 20, 26
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65]  # I and H
BATCHES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 32, 33]
# Relative to the largest element of an array: 84 roundings in float32, 90 in float64. Sums of a few
# hundred products and nine steps of recurrence give up to 26 and 24 in these configurations.
TOLERANCE = {"float32": 1e-5, "float64": 2e-14}


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


def run(settings, parameters, arrays, absent, matmul, dtype):
    """Return results and gradients by name."""
    lstm = LSTM(arrays["x"].shape[-1], arrays["c0"].shape[-1], **settings, dtype=dtype)
    lstm.matmul = matmul
    lstm.load_state_dict(parameters)
    given = {k: None if k in absent else array.astype(dtype) for k, array in arrays.items()}
    state = None if {"h0", "c0"} <= absent else (given["h0"], given["c0"])
    y, (hn, cn), cache = lstm.forward(given["x"], state)
    np.testing.assert_array_equal(lstm(given["x"], state)[0], y)
    dstate = None if {"dhn", "dcn"} <= absent else (given["dhn"], given["dcn"])
    dx, (dh0, dc0), grads = lstm.backward(given["dy"], dstate, cache)
    results = {"y": y, "hn": hn, "cn": cn, "dx": dx, "dh0": dh0, "dc0": dc0}
    return results | {f"d{name}": grad for name, grad in grads.items()}


def run_torch(torch, settings, parameters, arrays):
    """Return the same from PyTorch, in float64."""
    I, H = arrays["x"].shape[-1], arrays["c0"].shape[-1]
    lstm = torch.nn.LSTM(I, H, **settings, dtype=torch.float64)
    lstm.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})
    x, h0, c0 = (torch.tensor(arrays[name], requires_grad=True) for name in ("x", "h0", "c0"))
    y, (hn, cn) = lstm(x, (h0, c0))
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


@pytest.mark.parametrize("block", range(BLOCKS))
def test_results_and_gradients_are_pytorchs(block, isa, torch):
    for n in range(CONFIGURATIONS):
        settings, parameters, arrays, absent = configuration(block, n)
        matmul = ("auto", "packed", "blas")[n % 3]
        expected = run_torch(torch, settings, parameters, arrays)
        for dtype, tolerance in TOLERANCE.items():
            actual = run(settings, parameters, arrays, absent, matmul, dtype)
            assert actual.keys() == expected.keys()
            for name, array in expected.items():
                where = f"{name}, {dtype=}, {n=}, {matmul=}, {settings}, {absent=}"
                assert (actual[name].shape, actual[name].dtype) == (array.shape, dtype), where
                error = np.abs(actual[name] - array).max()
                assert error <= tolerance * np.abs(array).max(), where
