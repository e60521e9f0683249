"""What `lstm_fast.torch` computes, against `torch.nn`: all that `nn.LSTM` accepts.

Random configurations in both dtypes, by the ways to the engine, and arguments of every kind.
"""

import random
import re
from contextlib import nullcontext
from functools import partial

import pytest
from support import comparisons

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import (  # noqa: E402
    DOUBLE,
    SETTINGS,
    assert_results,
    assert_same,
    counted,
    flat,
    gradients,
    hidden,
    loss,
    twins,
)
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence  # noqa: E402

from lstm_fast.torch import LSTM, accelerate, enabled  # noqa: E402

pytestmark = [
    pytest.mark.no_isa,
    pytest.mark.usefixtures("one_thread_of_pytorch"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
BLOCKS, CONFIGURATIONS = 6, 52
CELLS = 60
SIZES = [1, 2, 3, 4, 5, 8, 9, 16, 17, 33]
# In float32 the engine errs by no more than twice what PyTorch errs by (roots of mean squares), and
# some roundings, where PyTorch has luck, with arrays of two or three numbers; in the mean over the
# configurations of a block there is no luck.
WORSE, ROUNDINGS = 2, 16
FLOAT64 = 1e-12


# ---- random configurations


def laid_out(tensor, layout):
    """Return a tensor with a layout in memory; an expanded one has other values."""
    if tensor is None or layout == "plain" or tensor.dim() == 0:
        return tensor
    if layout == "expanded":
        return tensor[:1].expand_as(tensor)
    if layout == "strided":
        return torch.stack([tensor, tensor], -1)[..., 1]
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


LAYOUTS = ["plain"] * 3 + ["expanded", "strided", "transposed"]


def draw_lstm(n):
    """Return PyTorch's module in float64, a function that calls such a module, and its inputs."""
    draw = random.Random(n)
    torch.manual_seed(n)
    I, H, T, B = (draw.choice(SIZES), draw.choice(SIZES), draw.randint(1, 7), draw.randint(1, 9))
    layers = draw.randint(1, 3)
    settings = {
        "num_layers": layers,
        "bias": draw.random() < 0.8,
        "batch_first": draw.random() < 0.4,
        "bidirectional": draw.random() < 0.4,
        "proj_size": draw.randint(1, H - 1) if H > 1 and draw.random() < 0.3 else 0,
        "dropout": 0.4 if layers > 1 and draw.random() < 0.4 else 0.0,
    }
    module = nn.LSTM(I, H, **settings, **DOUBLE).train(draw.random() < 0.7)
    kind = draw.choice(["dense", "dense", "unbatched", "packed"])
    sequence = (T,) if kind == "unbatched" else (B, T) if module.batch_first else (T, B)
    x = laid_out(torch.randn(*sequence, I), draw.choice(LAYOUTS))
    h, c = hidden(module, *(() if kind == "unbatched" else (B,)))
    h, c = (laid_out(s, draw.choice(LAYOUTS)) for s in (h, c))
    if draw.random() < 0.3:
        h = c = None
    ordered = draw.random() < 0.5
    lengths = torch.randint(1, T + 1, (B,)).sort(descending=ordered).values
    pack = partial(pack_padded_sequence, batch_first=module.batch_first, enforce_sorted=ordered)

    def call(module, x, h, c):
        if kind == "packed":
            x = pack(x, lengths)
        return module(x, None if h is None else (h, c))

    layout = draw.choice(LAYOUTS)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.float())  # the same numbers in both dtypes
            parameter.data = laid_out(parameter.data, layout)
            parameter.requires_grad_(draw.random() < 0.8)
    inputs = [None if t is None else t.float().double() for t in (x, h, c)]
    inputs = [laid_out(t, draw.choice(LAYOUTS)) if t is not None else None for t in inputs]
    for tensor in inputs:
        if tensor is not None:
            tensor.requires_grad_(draw.random() < 0.6)
    return module, call, inputs, draw


def results_and_gradients(module, call, inputs, chosen, dtype):
    """Return everything by name, of a call in a dtype whose chosen results have gradients."""
    inputs = [
        None if t is None else t.detach().to(dtype).requires_grad_(t.requires_grad) for t in inputs
    ]
    torch.manual_seed(1)
    found = flat(call(module, *inputs))
    value = loss([found[k] for k in chosen])
    if value.requires_grad:
        value.backward()
    named = {f"result {k}": tensor for k, tensor in enumerate(found)}
    return named | gradients(module, *(t for t in inputs if t is not None))


def copied(module, dtype):
    """Return PyTorch's LSTM again in a dtype, with the layouts of its weights."""
    names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
    settings = {name: getattr(module, name) for name in names}
    found = nn.LSTM(module.input_size, module.hidden_size, **settings, dtype=dtype)
    for name, parameter in module.named_parameters():
        found.get_parameter(name).data = parameter.data.to(dtype)
        found.get_parameter(name).requires_grad_(parameter.requires_grad)
    return found.train(module.training)


def roundings(tensor, exact):
    """Return the error, in units of float32's last place of the array (root of mean square)."""
    sizes = [t.double().square().mean().sqrt().item() for t in (tensor.double() - exact, exact)]
    return sizes[0] / (sizes[1] * torch.finfo(torch.float32).eps) if sizes[1] else sizes[0]


def errors_as_pytorchs(actual, theirs, exact, where):
    """Return errors in float32, ours and PyTorch's; none is much larger than PyTorch's own."""
    assert actual.keys() == theirs.keys() == exact.keys()
    found = []
    for name, wanted in exact.items():
        if wanted is None:
            assert theirs[name] is None and (actual[name] is None or not actual[name].any()), where
            continue
        assert actual[name].dtype == torch.float32 and actual[name].shape == wanted.shape, where
        error, limit = (
            roundings(which[name].detach(), wanted.detach()) for which in (actual, theirs)
        )
        assert error <= WORSE * limit + ROUNDINGS, f"{name}: {error} {limit} {where}"
        found.append((error, limit))
    return found


def check_against_nn(module, call, inputs, draw, copies, where):
    """Compare in both dtypes, by one of the ways to the engine; return errors in float32."""
    count = 2 if isinstance(module, nn.LSTMCell) else 3
    chosen = sorted(draw.sample(range(count), draw.randint(1, count)))
    way = draw.choice(["enabled", "module"])
    where = f"{where} {way} {module} {chosen} {[None if t is None else t.shape for t in inputs]}"
    exact = results_and_gradients(module, call, inputs, chosen, torch.float64)
    theirs = results_and_gradients(
        copies(module, torch.float32), call, inputs, chosen, torch.float32
    )
    for dtype in (torch.float64, torch.float32):
        ours = copies(module, dtype)
        with (enabled if way == "enabled" else nullcontext)(), counted() as calls:
            if way == "module":
                accelerate(ours)
            actual = results_and_gradients(ours, call, inputs, chosen, dtype)
            assert calls["train"] or calls["infer"], where
            assert_repeated(ours, call, inputs, actual, dtype)
        assert way == "enabled" or not calls.forwards
        if dtype == torch.float64:
            assert_same(actual, exact, FLOAT64, where)
    return errors_as_pytorchs(actual, theirs, exact, where)


def assert_repeated(ours, call, inputs, results, dtype):
    """Inference again and again gives the same: the first call finds a shorter way for the next."""
    inputs = [None if t is None else t.detach().to(dtype) for t in inputs]
    expected = [tensor for name, tensor in results.items() if name.startswith("result")]
    with torch.no_grad():
        for _ in range(3):
            torch.manual_seed(1)
            assert_results(call(ours, *inputs), expected)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_lstms(block):
    errors = []
    for n in range(block * CONFIGURATIONS, (block + 1) * CONFIGURATIONS):
        errors += check_against_nn(*draw_lstm(n), copied, f"{n=}")
    assert_no_worse(errors)


def assert_no_worse(errors):
    ours, theirs = (sum(one) for one in zip(*errors, strict=True))
    assert ours <= WORSE * theirs


def copied_cell(module, dtype):
    found = nn.LSTMCell(module.input_size, module.hidden_size, module.bias, dtype=dtype)
    for name, parameter in module.named_parameters():
        found.get_parameter(name).data = parameter.data.to(dtype)
        found.get_parameter(name).requires_grad_(parameter.requires_grad)
    return found


def test_random_cells():
    errors = []
    for n in range(CELLS):
        draw = random.Random(n)
        torch.manual_seed(n)
        I, H, B = draw.choice(SIZES), draw.choice(SIZES), draw.randint(1, 9)
        batch = () if draw.random() < 0.3 else (B,)
        module = nn.LSTMCell(I, H, draw.random() < 0.8, dtype=torch.float32).double()
        shapes = [(*batch, I), (*batch, H), (*batch, H)]
        inputs = [laid_out(torch.randn(s), draw.choice(LAYOUTS)).double() for s in shapes]
        if draw.random() < 0.3:
            inputs[1:] = None, None
        for tensor in (*module.parameters(), *inputs):
            if tensor is not None:
                tensor.requires_grad_(draw.random() < 0.7)

        def call(module, x, h, c):
            return module(x, None if h is None else (h, c))

        errors += check_against_nn(module, call, inputs, draw, copied_cell, f"{n=}")
    assert_no_worse(errors)


# ---- arguments of all kinds


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", [(5, 0), (0, 2)], ids=["B = 0", "T = 0"])
def test_empty_arguments(settings, shape):
    """What PyTorch computes of them, or what it says."""
    theirs, ours = twins(LSTM, 3, 4, **settings)
    x = torch.zeros(*(shape[::-1] if theirs.batch_first else shape), 3)
    try:
        expected = theirs(x)
    except RuntimeError as error:
        with pytest.raises(type(error)) as actual:
            ours(x)
        assert str(actual.value) == str(error)
    else:
        assert_results(ours(x), expected)
        with enabled():
            assert_results(theirs(x), expected)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_packed_sequences(settings, ordered):
    theirs, ours = twins(LSTM, 3, 4, **settings, **DOUBLE)
    lengths = [5, 3, 3, 1] if ordered else [3, 1, 5, 3]
    x = [torch.randn(length, 3, **DOUBLE) for length in lengths]
    packed = pack_sequence(x, enforce_sorted=ordered)
    state = hidden(theirs, 4)
    with counted() as calls:
        actual = ours(packed, state)
    assert calls["train"] == 1
    y = actual[0]
    assert type(y) is PackedSequence and y.batch_sizes is packed.batch_sizes
    assert y.sorted_indices is packed.sorted_indices
    assert y.unsorted_indices is packed.unsorted_indices
    assert_results(actual, theirs(packed, state))
    with torch.no_grad():
        assert_results(ours(packed), theirs(packed))


def test_batch_sizes_that_lie_are_refused():
    theirs, ours = twins(LSTM, 3, 4)
    for sizes in ([1, 2], [2], [4]):
        packed = PackedSequence(torch.randn(3, 3), torch.tensor(sizes))
        with pytest.raises((RuntimeError, ValueError, IndexError)) as expected:
            theirs(packed)
        with pytest.raises(expected.type):
            ours(packed)


@pytest.mark.parametrize("settings", SETTINGS[1:3], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_dropout_draws_pytorchs_numbers(settings, packed):
    theirs, ours = twins(LSTM, 3, 6, **settings, dropout=0.5, **DOUBLE)
    x = torch.randn(5, 4, 3, **DOUBLE)
    if packed:
        order = {"batch_first": theirs.batch_first, "enforce_sorted": False}
        x = pack_padded_sequence(
            x, torch.tensor([3, 4, 1, 4, 2])[: 5 if theirs.batch_first else 4], **order
        )
    found = {}
    for module in (theirs, ours):
        for mode in (torch.enable_grad, torch.no_grad):
            torch.manual_seed(5)
            found[module is ours, mode] = flat(module(x)), torch.rand(3)
    for mode in (torch.enable_grad, torch.no_grad):
        assert_results(found[True, mode][0], found[False, mode][0])
        assert torch.equal(found[True, mode][1], found[False, mode][1])  # no more was drawn
    torch.manual_seed(6)
    assert not torch.equal(flat(ours(x))[0], found[True, torch.enable_grad][0][0])
    theirs.eval(), ours.eval()
    assert_results(ours(x), theirs(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    theirs, ours = twins(LSTM, 3, 4, 2)
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = theirs(x)
    with mode(), counted() as calls:
        actual = ours(x)
    assert calls == {"infer": 1}
    assert not any(t.requires_grad or t.grad_fn for t in flat(actual))
    assert all(t.is_inference() == (mode is torch.inference_mode) for t in flat(actual))
    assert_results(actual, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_pytorchs(dtype):
    """PyTorch computes, where the CPU has such an LSTM, and says so where it has none."""
    theirs, ours = twins(LSTM, 3, 4)
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype), counted() as calls:
        try:
            expected = theirs(x)
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match=re.escape(str(error)[:40])):
                ours(x)
        else:
            assert_results(ours(x), expected, 0)
    assert not calls and calls.forwards[nn.LSTM] == 2


def test_views_with_a_lazy_sign_are_pytorchs():
    theirs, ours = twins(LSTM, 3, 4, **DOUBLE)
    x = torch.randn(5, 2, 3, **DOUBLE)
    assert_results(ours(torch._neg_view(x)), theirs(-x))
    h, c = hidden(theirs, 2)
    assert_results(ours(x, (torch._neg_view(h), c)), theirs(x, (-h, c)))
