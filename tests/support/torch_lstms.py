"""`lstm_fast.torch` beside `torch.nn`: twins with the same weights, results, who computed."""

import gc
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from support.internals import Cache, torch_engine_class
from support.processes import run_python

DOUBLE = {"dtype": torch.float64}
# Relative to the largest element of an array.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
# Arguments of an LSTM of 3 inputs and 4 units, which together use all that there are.
SETTINGS = [
    {},
    {"num_layers": 2, "batch_first": True, "bidirectional": True},
    {"bias": False, "proj_size": 2, "num_layers": 2},
    {"proj_size": 3, "bidirectional": True},
]


def twins(ours, *args, **kwargs):
    """Return PyTorch's module and ours of that class, with parameters of the same values."""
    theirs = getattr(nn, ours.__name__)(*args, **kwargs)
    module = ours(*args, **kwargs)
    module.load_state_dict(theirs.state_dict())
    return theirs, module


def hidden(module, *batch):
    """Return random h0 and c0 for that batch, as `nn.LSTM` takes them."""
    layers = module.num_layers * (2 if module.bidirectional else 1)
    like = module.weight_hh_l0
    return (
        torch.randn(layers, *batch, module.proj_size or module.hidden_size).to(like),
        torch.randn(layers, *batch, module.hidden_size).to(like),
    )


def flat(results):
    """Return y, hn and cn of what an LSTM returned, or hn and cn of a cell; packed or not."""
    if isinstance(results, torch.Tensor):
        return [results]
    if isinstance(results, PackedSequence):
        return [results.data]
    return [tensor for part in results for tensor in flat(part)]


def loss(results):
    """Return a number that depends on every element of the results, each in another way."""
    total = 0
    for tensor in flat(results):
        weights = torch.linspace(0.5, 1.5, max(tensor.numel(), 1), dtype=tensor.dtype)
        total = total + (weights[: tensor.numel()].view(tensor.shape) * tensor.sin()).sum()
    return total


def gradients(module, *inputs):
    """Return the gradients of parameters and inputs by name, after backward."""
    named = dict(module.named_parameters())
    named |= {f"input {k}": tensor for k, tensor in enumerate(inputs)}
    return {name: tensor.grad for name, tensor in named.items() if tensor.requires_grad}


def leaves(*tensors):
    """Return copies that require gradients; None remains None."""
    return [None if t is None else t.detach().clone().requires_grad_() for t in tensors]


def trained(module, x, h=None, c=None, call=None):
    """Return results and gradients of a dense call by name; all inputs require gradients."""
    x, h, c = leaves(x, h, c)
    module.zero_grad()
    results = (module if call is None else call)(x, None if h is None else (h, c))
    loss(results).backward()
    found = {f"result {k}": tensor for k, tensor in enumerate(flat(results))}
    return found | gradients(module, *(t for t in (x, h, c) if t is not None))


def assert_same(actual, expected, tolerance=None, where=""):
    """Tensors by name: shapes, dtypes, and values to a tolerance relative to the largest one.

    Where PyTorch has no gradient, as of the projection where only cn counts, ours may be zero.
    """
    assert actual.keys() == expected.keys(), where
    for name, wanted in expected.items():
        got = actual[name]
        if wanted is None or got is None:
            assert wanted is None and (got is None or not got.any()), f"{name} {where}"
            continue
        assert got.shape == wanted.shape, f"{name}: {got.shape} {wanted.shape} {where}"
        assert got.dtype == wanted.dtype, f"{name} {where}"
        got, wanted = got.detach().double(), wanted.detach().double()
        limit = TOLERANCE[expected[name].dtype] if tolerance is None else tolerance
        largest = wanted.abs().max().item() if wanted.numel() else 0.0
        error = (got - wanted).abs().max().item() if wanted.numel() else 0.0
        assert error <= limit * largest, f"{name}: {error:.3g} of {largest:.3g} {where}"


def assert_results(actual, expected, tolerance=None, where=""):
    """What two LSTMs returned."""
    pair = (dict(enumerate(flat(results))) for results in (actual, expected))
    assert_same(*pair, tolerance, where)


class Calls(Counter):
    """Numbers of calls of the engine, by name; in `forwards` those of PyTorch's modules."""

    def __init__(self):
        super().__init__()
        self.forwards = Counter()


@contextmanager
def counted():
    """Return a context that counts the calls of the engine, by the names of its methods.

    It does not see short calls of our modules in inference, after a first one; but `forwards`
    counts, by class, those of PyTorch's modules, to which ours leave what the engine does not have.
    """
    engine, calls = torch_engine_class(), Calls()
    places = [(calls, engine, name) for name in ("infer", "train", "differentiate")]
    places += [(calls.forwards, kind, "forward") for kind in (nn.LSTM, nn.LSTMCell)]

    def counting(counts, name, method):
        def counted_method(*args, **kwargs):
            counts[name] += 1
            return method(*args, **kwargs)

        return counted_method

    with ExitStack() as stack:
        for counts, owner, name in places:
            key = name if counts is calls else owner
            replacement = counting(counts, key, getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield calls


def living_caches():
    """Return how many caches of forward there are now, without collecting any."""
    return sum(type(thing) is Cache for thing in gc.get_objects())


def losses(module, optimiser, x, steps=20, call=None):
    """Return the losses of some steps of training, in which the results become zero, slowly."""
    found = []

    def closure():
        optimiser.zero_grad()
        y, (h, c) = (module if call is None else call)(x)
        value = y.square().mean() + (h - 0.3).square().mean() + c.sin().square().mean()
        value.backward()
        return value

    for _ in range(steps):
        found.append(optimiser.step(closure).item())
    assert found[-1] < found[0]
    return np.array(found)


def renewed(module):
    """Return PyTorch's own LSTM with the values that the parameters have now."""
    names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
    settings = {name: getattr(module, name) for name in names}
    like = module.weight_hh_l0
    theirs = nn.LSTM(module.input_size, module.hidden_size, **settings, dtype=like.dtype)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(getattr(module, name))
    return theirs.train(module.training)


def example(module):
    """Return random arguments of a call of a module."""
    size = (2, module.input_size) if isinstance(module, nn.LSTMCell) else (5, 2, module.input_size)
    return torch.randn(size, dtype=next(module.parameters()).dtype)


def assert_served(module, *arguments):
    """The engine computes what PyTorch does with the same parameters, forward and backward."""
    theirs = renewed(module)
    with counted() as calls:
        actual = trained(module, *arguments)
    assert calls["train"] and calls["differentiate"]
    expected = trained(theirs, *arguments)
    common = {name: actual[name] for name in actual if name in expected}
    assert_same(common, {name: expected[name] for name in common})


def compiled(module, backend="aot_eager", **options):
    """Return a module compiled without a graph break, and forget what was compiled before."""
    torch.compiler.reset()
    return torch.compile(module, backend=backend, fullgraph=True, **options)


class Tagger(nn.Module):
    """A program's module: an embedding, an LSTM, a cell, a linear layer; (T, B) integers go in."""

    def __init__(self, **settings):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.lstm = nn.LSTM(3, 4, **settings)
        self.cell = nn.LSTMCell(self.lstm.hidden_size * (2 if self.lstm.bidirectional else 1), 5)
        self.linear = nn.Linear(5, 2)

    def forward(self, tokens):
        y, _ = self.lstm(self.embedding(tokens))
        h, _ = self.cell(y[-1])
        return self.linear(h)


def run_with_torch(code, **environment):
    """Run code in a new interpreter, where nothing warns."""
    return run_python(code, "-W", "ignore", **environment)
