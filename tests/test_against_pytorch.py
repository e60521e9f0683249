"""Against PyTorch in float64, random sizes, settings, states and values.

`LSTM` against ``torch.nn.LSTM``, padded and packed; `lstm_forward` with every option against
autograd; the layers and networks of the reference against both.
"""

from functools import cache

import numpy as np
import pytest
from support import comparisons
from support.autograd import FUNCTIONS, run_autograd
from support.comparing import assert_close, assert_identical
from support.comparisons import every_implementation
from support.layers import draw_layer, run_layer
from support.networks import backward_network, reference_network
from support.onnx_nodes import CONSTANTS, UNBOUNDED
from support.ragged import draw_ragged

from lstm_fast import LSTM, reference

comparisons.require("PyTorch", "torch")

BLOCKS, CONFIGURATIONS = 20, 26
PACKED = 5  # blocks of these with sequences of different lengths
VARIANT_BLOCKS, VARIANTS = 10, 40
RAGGED_BLOCKS, RAGGED = 4, 25
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65]  # I and H
BATCHES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 32, 33]
# Relative to the largest element of an array: 84 roundings in float32, 90 in float64. Sums of a few
# hundred products and nine steps of recurrence give up to 26 and 24 in these configurations.
TOLERANCE = {"float32": 1e-5, "float64": 2e-14}
# Layer norm of a nearly constant row amplifies roundings: to 2e-12 in three times as many variants.
VARIANT_TOLERANCE = 1e-10
TORCH_NAMES = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
TORCH_NAMES |= {"w_hr": "weight_hr"}
LAYERS = [
    pytest.param(bias, projected, reverse, id=f"{bias=}-{projected=}-{reverse=}")
    for bias in (True, False)
    for projected in (False, True)
    for reverse in (False, True)
]


@pytest.fixture
def torch():
    """PyTorch on one thread: two pools of threads in turn disturb each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


# LSTM


def random_network(block, n):
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


def random_lengths(block, n, T, B):
    """Return the number of steps of each row: one or more, as PyTorch packs them."""
    return np.random.default_rng((block, n)).integers(1, T, B, endpoint=True)


def run_ours(settings, parameters, arrays, absent, matmul, dtype, **options):
    """Return results and gradients by name; options are those of `forward`."""
    lstm = LSTM(arrays["x"].shape[-1], arrays["c0"].shape[-1], **settings, dtype=dtype)
    lstm.matmul = matmul
    lstm.load_state_dict(parameters)
    given = {k: None if k in absent else array.astype(dtype) for k, array in arrays.items()}
    state = None if {"h0", "c0"} <= absent else (given["h0"], given["c0"])
    y, (hn, cn), cache = lstm.forward(given["x"], state, **options)
    np.testing.assert_array_equal(lstm(given["x"], state, **options)[0], y)
    dstate = (None, None) if {"dhn", "dcn"} <= absent else (given["dhn"], given["dcn"])
    return {"y": y, "hn": hn, "cn": cn, **backward_network(lstm, given["dy"], *dstate, cache)}


@cache  # they are the same for every ISA
def torch_results(block, n, ragged):
    """Return the same from PyTorch, in float64, with packed sequences if it is ragged."""
    import torch

    settings, parameters, arrays, _ = random_network(block, n)
    I, H = arrays["x"].shape[-1], arrays["c0"].shape[-1]
    lstm = torch.nn.LSTM(I, H, **settings, dtype=torch.float64)
    lstm.load_state_dict({name: torch.from_numpy(array) for name, array in parameters.items()})
    x, h0, c0 = (torch.tensor(arrays[name], requires_grad=True) for name in ("x", "h0", "c0"))
    if ragged:
        T, B = steps_and_rows(settings, arrays)
        order, utils = {"batch_first": lstm.batch_first}, torch.nn.utils.rnn
        lengths = random_lengths(block, n, T, B)
        packed = utils.pack_padded_sequence(x, lengths, enforce_sorted=False, **order)
        y, (hn, cn) = lstm(packed, (h0, c0))
        y, _ = utils.pad_packed_sequence(y, total_length=T, **order)
    else:
        y, (hn, cn) = lstm(x, (h0, c0))
    d_results = tuple(torch.from_numpy(arrays[name]) for name in ("dy", "dhn", "dcn"))
    torch.autograd.backward((y, hn, cn), d_results)
    tensors = {"y": y, "hn": hn, "cn": cn, "dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= {f"d{name}": parameter.grad for name, parameter in lstm.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def steps_and_rows(settings, arrays):
    T, B = arrays["x"].shape[:2]
    return (B, T) if settings["batch_first"] else (T, B)


def check_network(block, n, ragged):
    settings, parameters, arrays, absent = random_network(block, n)
    matmul = ("auto", "packed", "blas")[n % 3]
    options = {}
    if ragged:
        options["lengths"] = random_lengths(block, n, *steps_and_rows(settings, arrays))
    for dtype, tolerance in TOLERANCE.items():
        actual = run_ours(settings, parameters, arrays, absent, matmul, dtype, **options)
        where = f"{dtype=}, {n=}, {matmul=}, {settings}, {absent=}, {options}"
        expected = torch_results(block, n, ragged)
        assert_close(actual, expected, tolerance, dtype=dtype, where=where)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_results_and_gradients_are_pytorchs(block, isa, torch):
    for n in range(CONFIGURATIONS):
        check_network(block, n, ragged=False)


@pytest.mark.parametrize("block", range(PACKED))
def test_ragged_batches_are_packed_sequences(block, isa, torch):
    for n in range(CONFIGURATIONS):
        if random_network(block, n)[2]["x"].ndim == 3:
            check_network(block, n, ragged=True)


@pytest.mark.no_isa
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": False, "num_layers": 2},
        {"proj_size": 2, "bias": False},
        {"proj_size": 2, "num_layers": 2, "bidirectional": True},
    ],
    ids=str,
)
def test_names_and_shapes_of_parameters_are_pytorchs(settings, torch):
    theirs = torch.nn.LSTM(3, 4, **settings).state_dict()
    lstm = LSTM(3, 4, **settings)
    assert [*lstm.state_dict()] == [*theirs]
    lstm.load_state_dict(theirs)
    assert_identical(lstm.state_dict(), {name: t.numpy() for name, t in theirs.items()})


# One layer, with every option


def random_options(block, n):
    """Return arrays by name, gradients of results, and options of `lstm_forward`."""
    rng = np.random.default_rng((block, n))
    T, B, I, H = (int(rng.integers(1, most)) for most in (7, 5, 6, 10))

    def some(share=0.4):
        return rng.random() < share

    P = int(rng.integers(1, H + 1)) if some(0.25) else 0
    args, d_results = draw_layer(rng, T, B, I, H, P, dtype=np.dtype(float))
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
    elif some(0.3):
        args["w_ln"] = 1 + 0.3 * rng.standard_normal(4 * H)
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


@cache
def autograd_results(block, n):
    import torch

    return run_autograd(torch, *random_options(block, n))


@every_implementation
@pytest.mark.parametrize("block", range(VARIANT_BLOCKS))
def test_variants_are_those_of_autograd(implementation, block, torch):
    for n in range(VARIANTS):
        args, d_results, options = random_options(block, n)
        actual = run_layer(implementation, args, d_results, **options)
        where = f"{n=} {[*args]} {options}"
        expected = autograd_results(block, n)
        assert_close(actual, expected, VARIANT_TOLERANCE, floor=1, where=where)


# The reference


def run_torch_layer(torch, args, d_results, *, reverse):
    """Return results and gradients by name, as `run_layer`.

    PyTorch runs backwards in time only as the second direction of a bidirectional layer. Both
    directions get the same parameters, and the gradients of the one not wanted are zero.
    """
    D, d = 2, int(reverse)
    (_, _, I), H, R = args["x"].shape, args["c0"].shape[1], args["h0"].shape[1]
    lstm = torch.nn.LSTM(
        *(I, H),
        bias="b_ih" in args,
        bidirectional=True,
        proj_size=R if "w_hr" in args else 0,
        dtype=torch.float64,
    )
    names = {ours: f"{name}_l0" for ours, name in TORCH_NAMES.items() if ours in args}
    lstm.load_state_dict(
        {
            name + end: torch.from_numpy(args[ours])
            for ours, name in names.items()
            for end in ("", "_reverse")
        }
    )
    x, h0, c0 = (torch.tensor(args[name], requires_grad=True) for name in ("x", "h0", "c0"))
    y, (hn, cn) = lstm(x, (h0.expand(D, -1, -1), c0.expand(D, -1, -1)))
    results = {"y": y[:, :, d * R : (d + 1) * R], "hn": hn[d], "cn": cn[d]}
    torch.autograd.backward(tuple(results.values()), tuple(map(torch.from_numpy, d_results)))
    parameters = dict(lstm.named_parameters())
    end = "_reverse" if reverse else ""
    tensors = results | {"dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= {f"d{ours}": parameters[name + end].grad for ours, name in names.items()}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def check_layer_of_the_reference(torch, sizes, reverse, bias, seed):
    rng = np.random.default_rng(seed)
    args, d_results = draw_layer(rng, *sizes, dtype=np.dtype(float), bias=bias)
    expected = run_torch_layer(torch, args, d_results, reverse=reverse)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        actual = run_layer(reference, args, d_results, reverse=reverse)
    assert_close(actual, expected, 1e-13, floor=1, where=f"{sizes=} {seed=}")


@pytest.mark.no_isa
@pytest.mark.parametrize(("bias", "projected", "reverse"), LAYERS)
def test_layers_of_the_reference_are_pytorchs(bias, projected, reverse, torch):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        T, B, H = (int(n) for n in rng.integers((3, 2, 3), (9, 6, 12)))
        I = H + int(rng.choice((-2, -1, 1, 2, 5)))
        P = int(rng.integers(1, H)) if projected else 0  # PyTorch wants P < H
        check_layer_of_the_reference(torch, (T, B, I, H, P), reverse, bias, seed)


@pytest.mark.no_isa
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "B", "I"), [(1, 1, 1), (1, 3, 2), (4, 1, 3)])
def test_one_unit_of_the_reference_is_pytorchs(T, B, I, reverse, torch):
    check_layer_of_the_reference(torch, (T, B, I, 1), reverse, bias=True, seed=0)


def run_torch_ragged(torch, lstm, lengths, padding, *given):
    """Return results and gradients by name. PyTorch refuses rows of length 0: they pass it by."""
    settings = {name: getattr(lstm, name) for name in ("num_layers", "bias", "bidirectional")}
    sizes = (lstm.input_size, lstm.hidden_size)
    module = torch.nn.LSTM(*sizes, proj_size=lstm.proj_size, **settings, dtype=torch.float64)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in lstm.state_dict().items()})
    x, h0, c0, dy, dhn, dcn = map(torch.tensor, given)
    if lstm.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    for tensor in (x, h0, c0):
        tensor.requires_grad_()
    T, B, _ = x.shape
    lengths = torch.tensor(lengths.tolist())
    b = lengths.nonzero()[:, 0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x[:, b], lengths[b], enforce_sorted=False)
    y, (hn, cn) = module(packed, (h0[:, b], c0[:, b]))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    y = torch.zeros_like(dy).index_copy(1, b, y)
    hn, cn = h0.index_copy(1, b, hn), c0.index_copy(1, b, cn)
    if padding == "hold":
        last = torch.where(lengths[:, None] > 0, y[lengths - 1, torch.arange(B)], 0.0)
        y = torch.where(torch.arange(T)[:, None, None] < lengths[:, None], y, last)
    torch.autograd.backward((y, hn, cn), (dy, dhn, dcn))
    tensors = {"y": y, "hn": hn, "cn": cn, "dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= {f"d{name}": parameter.grad for name, parameter in module.named_parameters()}
    if lstm.batch_first:
        tensors |= {name: tensors[name].swapaxes(0, 1) for name in ("y", "dx")}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.no_isa
@pytest.mark.parametrize("block", range(RAGGED_BLOCKS))
def test_ragged_networks_of_the_reference_are_pytorchs(block, torch):
    for n in range(RAGGED):
        lstm, lengths, padding, given = draw_ragged((block, n), np.dtype(float), least=1)
        lengths[n % len(lengths)] += not lengths.any()
        expected = run_torch_ragged(torch, lstm, lengths, padding, *given)
        actual = reference_network(lstm, *given, lengths=lengths, padding=padding)
        assert_close(actual, expected, 1e-13, where=f"{n=} {lstm} {lengths} {padding}")


@pytest.mark.no_isa
@pytest.mark.parametrize("bias_of_cell", [True, False])
def test_layer_norm_of_the_reference_is_pytorchs(bias_of_cell, rng, torch):
    """With the biases of the layer inside PyTorch's own function, and the loop written out."""
    H, norm = 3, torch.nn.functional.layer_norm
    for _ in range(3):
        args, d_results = draw_layer(rng, 4, 2, 3, H, dtype=np.dtype(float))
        sizes = {"w_ln_ih": 4 * H, "w_ln_hh": 4 * H, "w_ln_c": H}
        args |= {name: 1 + rng.standard_normal(size) / 2 for name, size in sizes.items()}
        if bias_of_cell:
            args["b_ln_c"] = rng.standard_normal(H)
        actual = run_layer(reference, args, d_results)
        w = {name: torch.tensor(array, requires_grad=True) for name, array in args.items()}
        y, h, c = [], w["h0"], w["c0"]
        for x in w["x"]:
            a = norm(x @ w["w_ih"].T, (4 * H,), w["w_ln_ih"], w["b_ih"])
            a = a + norm(h @ w["w_hh"].T, (4 * H,), w["w_ln_hh"], w["b_hh"])
            i, f, g, o = a.chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * norm(c, (H,), w["w_ln_c"], w.get("b_ln_c")).tanh()
            y.append(h)
        results = {"y": torch.stack(y), "hn": h, "cn": c}
        torch.autograd.backward(tuple(results.values()), tuple(map(torch.tensor, d_results)))
        expected = {name: tensor.detach().numpy() for name, tensor in results.items()}
        expected |= {f"d{name}": tensor.grad.numpy() for name, tensor in w.items()}
        assert_close(actual, expected, 1e-12)
