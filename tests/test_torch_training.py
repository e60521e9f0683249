"""Training on `lstm_fast.torch`: optimisers, and weights written in every way.

Losses are those of `nn.LSTM`, and what is computed after a write is computed with what was written.
"""

import copy
import gc
import weakref
from functools import partial

import numpy as np
import pytest
from support import comparisons
from support.internals import torch_engine_class

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import (  # noqa: E402
    DOUBLE,
    assert_results,
    assert_same,
    counted,
    flat,
    losses,
    renewed,
    trained,
    twins,
)
from torch import nn, optim  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402

from lstm_fast.torch import LSTM, accelerate, enabled, refresh  # noqa: E402

pytestmark = [pytest.mark.no_isa, pytest.mark.usefixtures("one_thread_of_pytorch")]
PLAIN = {"foreach": False, "fused": False}
OPTIMISERS = {
    f"{kind.__name__} {way}": partial(kind, lr=rate, **options)
    for kind, rate in [(optim.SGD, 0.3), (optim.Adam, 0.02), (optim.AdamW, 0.02)]
    for way, options in [
        ("plain", PLAIN),
        ("foreach", {"foreach": True}),
        ("fused", {"fused": True}),
    ]
}
OPTIMISERS["RMSprop"] = partial(optim.RMSprop, lr=0.01)
OPTIMISERS["LBFGS"] = partial(optim.LBFGS, lr=0.3, max_iter=4)
CHANGES = {
    "": lambda module: module,
    "weight_norm": lambda module: parametrizations.weight_norm(module, "weight_hh_l0"),
    "pruning": lambda module: prune.l1_unstructured(module, "weight_ih_l0", 0.5),
}


# ---- optimisers


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_optimisers(optimiser):
    """Twenty steps with the losses of `nn.LSTM`, and inference with the weights of each step."""
    torch.manual_seed(0)
    theirs, ours = twins(LSTM, 3, 4, 2, **DOUBLE)
    x, found = torch.randn(6, 3, 3, **DOUBLE), {}
    for module in (theirs, ours):
        steps = OPTIMISERS[optimiser](module.parameters())
        stale = copy.deepcopy(module)

        def call(x, module=module):
            with torch.no_grad():
                y = module(x)
            if module is ours:
                assert_results(y, renewed(module)(x))
            return module(x)

        found[module is ours] = losses(module, steps, x, call=call)
        with torch.inference_mode():
            assert not torch.allclose(flat(stale(x))[0], flat(module(x))[0])
    np.testing.assert_allclose(found[True], found[False], rtol=1e-10, atol=0)
    assert_same(dict(ours.named_parameters()), dict(theirs.named_parameters()), 1e-8)


@pytest.mark.parametrize("way", ["LSTM", "accelerate", "enabled"])
@pytest.mark.parametrize("change", [*CHANGES][1:])
def test_computed_weights_are_trained(change, way):
    torch.manual_seed(0)
    theirs, x = nn.LSTM(3, 4, **DOUBLE), torch.randn(6, 3, 3, **DOUBLE)
    ours = copy.deepcopy(theirs)
    if way == "LSTM":
        ours = LSTM(3, 4, **DOUBLE)
        ours.load_state_dict(theirs.state_dict())
    theirs, ours = CHANGES[change](theirs), CHANGES[change](ours)
    if way == "accelerate":
        accelerate(ours)
    expected = losses(theirs, optim.Adam(theirs.parameters(), 0.02), x)
    with counted() as calls:
        if way == "enabled":
            with enabled():
                actual = losses(ours, optim.Adam(ours.parameters(), 0.02), x)
        else:
            actual = losses(ours, optim.Adam(ours.parameters(), 0.02), x)
    assert calls["train"] == 20
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=0)


def test_an_optimiser_of_before_and_a_cell():
    theirs = nn.LSTMCell(3, 4, **DOUBLE)
    ours, x = copy.deepcopy(theirs), torch.randn(5, 2, 3, **DOUBLE)
    found = []
    for module in (theirs, ours):
        steps = optim.Adam(module.parameters(), 0.02, fused=True)
        if module is ours:
            accelerate(module)

        def call(x, module=module):
            h, c = module(x[0])
            for one in x[1:]:
                h, c = module(one, (h, c))
            return h, (h, c)

        found.append(losses(module, steps, x, call=call))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-10, atol=0)


class ByData(optim.Optimizer):
    """One that somebody else wrote, whose steps PyTorch's versions do not tell of."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self, closure):
        value = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad, alpha=0.3)
        return value


def test_an_optimiser_that_writes_unseen():
    module, x = LSTM(3, 4, **DOUBLE), torch.randn(6, 3, 3, **DOUBLE)

    def call(x):
        with torch.no_grad():
            assert_results(module(x), renewed(module)(x))
        return module(x)

    losses(module, ByData(module.parameters()), x, call=call)


# ---- never stale


def scaled(tensor):
    return tensor.detach() * 0.5


def by_data(module):
    for parameter in module.parameters():
        parameter.data.mul_(0.5)
    refresh()


def by_new_data(module):
    for parameter in module.parameters():
        parameter.data = scaled(parameter)


def by_new_data_where_the_old_was(module):
    """A new tensor, which gets the memory of the old one if that was given back."""
    parameter = module.weight_hh_l0
    address, value = parameter.data_ptr(), scaled(parameter)
    parameter.data = torch.zeros_like(parameter)
    others = [value]
    while others[-1].data_ptr() != address and len(others) < 100:
        others.append(value.clone())
    parameter.data = others[-1]


def by_average(module):
    average = AveragedModel(
        copy.deepcopy(module).apply(zeroed), multi_avg_fn=get_ema_multi_avg_fn(0)
    )
    average.module(torch.zeros(1, 1, 3, **DOUBLE))
    average.update_parameters(copy.deepcopy(module))
    average.update_parameters(module)
    module.load_state_dict({k: 0.5 * v for k, v in average.module.state_dict().items()})


def zeroed(module):
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


def by_numpy(module):
    for parameter in module.parameters():
        np.multiply(parameter.detach().numpy(), 0.5, parameter.detach().numpy())
    refresh()


def in_place(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)


def in_inference_mode(module):
    with torch.inference_mode():
        for parameter in module.parameters():
            parameter.mul_(0.5)


def foreach(module):
    with torch.no_grad():
        torch._foreach_mul_([*module.parameters()], 0.5)


def by_vector(module):
    vector = nn.utils.parameters_to_vector(module.parameters())
    nn.utils.vector_to_parameters(scaled(vector), module.parameters())


def by_set(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.set_(scaled(parameter))


def by_replacement(module):
    for name, parameter in [*module.named_parameters()]:
        setattr(module, name, nn.Parameter(scaled(parameter)))


def by_wrapping(module):
    """Other tensors with the same memory and version, which was written unseen."""
    for name, parameter in [*module.named_parameters()]:
        setattr(module, name, nn.Parameter(parameter.data.mul_(0.5)))


def by_wrapping_at_its_place(module):
    """A new tensor at the place of one that is gone, with its memory and version."""
    memory, version = module.weight_hh_l0.data, module.weight_hh_l0._version
    place = id(module.weight_hh_l0)
    module.weight_hh_l0 = None
    others = [nn.Parameter(memory.data)]
    while id(others[-1]) != place and len(others) < 100:
        others.append(nn.Parameter(memory.data))
    module.weight_hh_l0 = others[-1]
    memory.mul_(0.5)
    torch._C._autograd._unsafe_set_version_counter((others[-1],), (version,))


def by_loading(module, assign=False):
    state = {name: scaled(value) for name, value in module.state_dict().items()}
    module.load_state_dict(state, assign=assign)


def by_swapping(module):
    """The same objects, with the memory of others, as PyTorch can be told to load."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        by_loading(module)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def one_weight(module):
    with torch.no_grad():
        module.bias_hh_l0[1] = 7


WRITES = [
    *(by_data, by_new_data, by_new_data_where_the_old_was, by_average, by_numpy, in_place),
    *(in_inference_mode, foreach, by_vector, by_set, by_replacement, by_wrapping, by_loading),
    *(by_swapping, by_wrapping_at_its_place, partial(by_loading, assign=True), one_weight),
]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "write", WRITES, ids=lambda write: getattr(write, "__name__", "by_assigning")
)
def test_inference_is_never_stale(write, mode):
    module, x = LSTM(3, 4, **DOUBLE), torch.randn(5, 2, 3, **DOUBLE)
    for _ in range(3):
        with mode():
            before = flat(module(x))
        write(module)
        with mode(), counted() as calls:
            after = flat(module(x))
        assert calls == {"infer": 1}
        assert_results(after, renewed(module)(x))
        assert not torch.equal(before[0], after[0]) or write is one_weight


def test_weights_of_inference_mode():
    """They have no version, which nothing could tell of: read at every call."""
    with torch.inference_mode():
        module, x = LSTM(3, 4), torch.randn(5, 2, 3)
        for _ in range(3):
            assert_results(module(x), renewed(module)(x))
            module.weight_hh_l0.mul_(0.5)


def test_training_sees_what_nothing_tells():
    """With gradients, weights are read at every call, whoever wrote them."""
    module, x = LSTM(3, 4, **DOUBLE), torch.randn(5, 2, 3, **DOUBLE)
    for _ in range(2):
        module(x)
        module.weight_hh_l0.detach().numpy()[:] *= 0.5
        assert_same(trained(module, x), trained(renewed(module), x))


def test_weights_packed_once():
    """As long as nothing is written, inference packs nothing: then it sees no unseen write."""
    module, x = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        before = flat(module(x))
        module.weight_hh_l0.numpy()[:] *= 0.5
        assert torch.equal(flat(module(x))[0], before[0])
        refresh()
        assert not torch.equal(flat(module(x))[0], before[0])


def test_modules_that_come_and_go():
    """New weights at the addresses of old ones, of the same sizes."""
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        for _ in range(30):
            module = LSTM(3, 4)
            assert_results(module(x), renewed(module)(x))
            del module


def living_engines():
    engine = torch_engine_class()
    return sum(issubclass(type(thing), engine) for thing in gc.get_objects())


@pytest.mark.parametrize("options", [{}, {"peephole": True}], ids=str)
def test_engines_go_with_their_weights(options):
    """In inference and training, also where the first weight has itself as an attribute."""
    x = torch.randn(5, 2, 3)
    gc.collect()
    before = living_engines()
    for itself in (False, True):
        for mode in (torch.no_grad, torch.enable_grad):
            module = LSTM(3, 4, **options)
            if itself:
                module.weight_ih_l0.itself = module.weight_ih_l0
            weight = weakref.ref(module.weight_hh_l0)
            with mode():
                for _ in range(3):
                    module(x)
            assert living_engines() == before + 1
            del module
            if itself:
                gc.collect()
            assert living_engines() == before and weight() is None


def test_attributes_of_weights():
    """Plain values do not keep them from being packed once; of others nothing tells."""
    module, x = LSTM(3, 4), torch.randn(5, 2, 3)
    module.weight_hh_l0.is_initialized, module.bias_hh_l0.kind = True, "bias"
    for stale in (True, False):
        with torch.no_grad():
            before = flat(module(x))
            module.weight_hh_l0.numpy()[:] *= 0.5
            assert torch.equal(flat(module(x))[0], before[0]) is stale
            refresh()
            module(x)
        module.weight_hh_l0.others = [1]
        refresh()
