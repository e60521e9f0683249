"""What autograd does with a call of `lstm_fast.torch`, against `torch.nn`.

Checkpoints, hooks on what it saves, writes in between, backward twice and of backward, what is kept
in memory, functional transforms.
"""

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
    hidden,
    leaves,
    living_caches,
    loss,
    trained,
    twins,
)
from torch import nn  # noqa: E402
from torch.autograd import forward_ad, gradgradcheck  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from lstm_fast.torch import LSTM, LSTMCell  # noqa: E402

pytestmark = [
    pytest.mark.no_isa,
    pytest.mark.usefixtures("one_thread_of_pytorch"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # of forward-mode
]


# ---- backward


def test_zeros_without_memory():
    """PyTorch's own, as gradients of what is not used may be."""
    for one in twins(LSTM, 3, 4, **DOUBLE):
        y = one(torch.randn(5, 2, 3, **DOUBLE))[0]
        (dw,) = torch.autograd.grad(
            y, one.weight_hh_l0, torch._efficientzerotensor(y.shape, **DOUBLE)
        )
        assert dw.count_nonzero() == 0


def results_by(change, *modules, inputs=None, **options):
    """Yield what `trained` finds, with a change to each module's calls."""
    inputs = [torch.randn(5, 2, 3, **DOUBLE)] if inputs is None else inputs
    for module in modules:
        yield trained(module, *inputs, call=partial(change, module, **options))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant):
    """With dropout, whose numbers come back for the second forward."""
    modules = twins(LSTM, 3, 4, 2, dropout=0.5, **DOUBLE)

    def call(module, x, hx):
        torch.manual_seed(2)
        return checkpoint(module, x, hx, use_reentrant=reentrant)

    with counted() as calls:
        theirs, ours = results_by(call, *modules)
    assert calls["differentiate"] == 2  # of the layers one by one
    assert_same(ours, theirs)


def save_on_cpu(module, *arguments):
    with torch.autograd.graph.save_on_cpu():
        return module(*arguments)


def saved_in_numpy(module, *arguments):
    pack, unpack = (lambda t: t.detach().numpy().copy()), torch.from_numpy
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return module(*arguments)


@pytest.mark.parametrize(("change", "forwards"), [(save_on_cpu, 1), (saved_in_numpy, 2)])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_hooks_on_saved_tensors(change, forwards, settings):
    """What comes back may be the same tensors, or others: then forward is computed again."""
    modules = twins(LSTM, 3, 4, **settings, **DOUBLE)
    with counted() as calls:
        theirs, ours = results_by(change, *modules)
    assert calls == {"train": forwards, "differentiate": 1}
    assert_same(ours, theirs)
    assert living_caches() == 0


@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0", "x", "h"])
def test_a_write_between_forward_and_backward_raises(name):
    for module in twins(LSTM, 3, 4, **DOUBLE):
        x = torch.randn(5, 2, 3, **DOUBLE)
        h, c = hidden(module, 2)
        y, _ = module(x, (h, c))
        with torch.no_grad():
            {"x": x, "h": h}.get(name, getattr(module, name, None)).mul_(0.5)
        if module is not None and name == "bias_ih_l0" and type(module) is nn.LSTM:
            continue  # which PyTorch does not need
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def written(module, x, hx):
    """Return results that were written after the call, as programs mask states."""
    y, (h, c) = module(x, hx)
    y.mul_(2)
    h[:, :1] = 0
    c.zero_()
    return y, (h, c)


def test_writing_to_results():
    theirs, ours = results_by(written, *twins(LSTM, 3, 4, 2, **DOUBLE))
    assert_same(ours, theirs)


def test_states_go_on_from_call_to_call():
    """Truncated and whole backpropagation through time, the states' gradients included."""

    def call(module, x, hx, cut):
        found = []
        for piece in x.split(2):
            y, hx = module(piece, hx)
            if cut:
                hx = tuple(s.detach() for s in hx)
            found.append(y)
        return torch.cat(found), hx

    for cut in (False, True):
        theirs, ours = results_by(call, *twins(LSTM, 3, 4, **DOUBLE), cut=cut)
        assert_same(ours, theirs)


def test_backward_twice_and_its_memory():
    """What forward keeps lives until backward, or as long as the graph is retained or there."""
    assert living_caches() == 0
    module, x = LSTM(3, 4, **DOUBLE), torch.randn(5, 2, 3, **DOUBLE)
    y, _ = module(x)
    assert living_caches() == 1
    y.sum().backward(retain_graph=True)
    once = [p.grad.clone() for p in module.parameters()]
    y.sum().backward(retain_graph=True)
    assert_same(
        *(
            {k: t for k, t in enumerate(ts)}
            for ts in ([p.grad for p in module.parameters()], [2 * t for t in once])
        )
    )
    assert living_caches() == 1
    y.sum().backward()
    assert living_caches() == 0 and y is not None
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    results = module(x)
    assert living_caches() == 1
    del results
    assert living_caches() == 0
    with torch.no_grad():
        y = module(x)
    assert living_caches() == 0


def test_gradients_that_are_no_plain_tensors():
    """Expanded, with a lazy sign, and of several backwards at once."""
    modules = twins(LSTM, 3, 4, **DOUBLE)
    x = torch.randn(5, 2, 3, **DOUBLE)
    found = []
    for module in modules:
        grads = []
        for change in (
            lambda g: g,
            lambda g: torch._neg_view(g.clone()),
            lambda g: g.mT.contiguous().mT,
        ):
            (one,) = leaves(x)
            y, (h, _) = module(one)
            y.register_hook(change)
            grads += torch.autograd.grad(y.sum() + h.sum(), (one, *module.parameters()))
        (one,) = leaves(x)
        y, _ = module(one)
        several = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(0), **DOUBLE)
        grads += torch.autograd.grad(y, (one, *module.parameters()), several, is_grads_batched=True)
        jacobian = torch.autograd.functional.jacobian
        grads.append(jacobian(lambda x, module=module: module(x)[0].sum(0), x, vectorize=True))
        found.append(dict(enumerate(grads)))
    assert_same(found[1], found[0])


def test_only_what_needs_a_gradient_gets_one():
    module = LSTM(3, 4, **DOUBLE).requires_grad_(False)
    x = torch.randn(5, 2, 3, **DOUBLE)
    with counted() as calls:
        assert flat(module(x))[0].requires_grad is False
    assert calls == {"infer": 1}
    h, c = hidden(module, 2)
    c.requires_grad_()
    y, _ = module(x, (h, c))
    y.sum().backward()
    assert c.grad is not None and h.grad is None and module.weight_hh_l0.grad is None


def test_a_cell_in_a_loop():
    def call(module, x, hx):
        found = []
        for one in x:
            hx = module(one, hx)
            found.append(hx[0])
        return torch.stack(found), hx

    theirs, ours = results_by(call, *twins(LSTMCell, 3, 4, **DOUBLE))
    assert_same(ours, theirs)


# ---- transforms


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradients_of_gradients(settings):
    """Of inputs, states and weights; by differences, and PyTorch's own numbers."""
    theirs, ours = twins(LSTM, 2, 4, **settings, **DOUBLE)
    x, (h, c) = torch.randn(3, 3, 2, **DOUBLE), hidden(ours, 3)
    found = []
    for module in (ours, theirs):
        inputs, weights = leaves(x, h, c), [*module.parameters()]
        y, (hn, cn) = module(inputs[0], inputs[1:])
        value = y.sin().sum() + hn.square().sum() + cn.sum()
        grads = torch.autograd.grad(value, (*inputs, *weights), create_graph=True)
        twice = torch.autograd.grad(loss(grads), (*inputs, *weights))
        found.append(dict(enumerate((*grads, *twice))))
    assert_same(*found, 1e-11)
    inputs = leaves(x, h, c)
    assert gradgradcheck(lambda x, *hx: flat(ours(x, hx))[0], inputs, fast_mode=True)


def test_gradients_of_gradients_in_float32():
    """Where PyTorch computes with oneDNN, which is there again afterwards."""
    double, ours = twins(LSTM, 3, 4, 2)
    double, x, found = double.double(), torch.randn(5, 2, 3), []
    enabled = torch._C._get_mkldnn_enabled()
    for module in (ours, double):
        (one,) = leaves(x.to(module.weight_hh_l0.dtype))
        (grad,) = torch.autograd.grad(loss(module(one)), one, create_graph=True)
        twice = torch.autograd.grad(loss(grad), (one, *module.parameters()))
        found.append({k: tensor.float() for k, tensor in enumerate((grad, *twice))})
    assert_same(*found)
    assert torch._C._get_mkldnn_enabled() == enabled


def test_transforms_give_pytorchs_numbers():
    theirs, ours = twins(LSTM, 3, 4, **DOUBLE)
    x = torch.randn(5, 2, 3, **DOUBLE)

    def value(module, parameters, x):
        return torch.func.functional_call(module, parameters, (x,))[0].sin().sum()

    found = []
    for module in (ours, theirs):
        parameters = {k: 0.5 * p.detach() for k, p in module.named_parameters()}
        call = partial(value, module)
        one = torch.func.grad(call, argnums=(0, 1))(parameters, x)
        dual = torch.func.jvp(lambda x, call=call, p=parameters: call(p, x), (x,), (x,))
        with forward_ad.dual_level():
            y, _ = module(forward_ad.make_dual(x, x.cos()))
            tangent = forward_ad.unpack_dual(y).tangent
        hessian = torch.func.hessian(lambda x, call=call, p=parameters: call(p, x))(x[:2, :1])
        jacobian = torch.func.jacrev(lambda x, module=module: module(x)[0].sum(0))(x)
        got = [call(parameters, x), one[1], *dual, tangent, hessian, jacobian]
        found.append(one[0] | {f"{k}": t for k, t in enumerate(got)})
    assert_same(*found)


def test_what_pytorch_refuses_to_transform_is_refused():
    x = torch.randn(5, 2, 3)
    for module in twins(LSTM, 3, 4):
        with pytest.raises(RuntimeError, match="Batching rule not implemented for aten::lstm"):
            torch.func.vmap(module)(torch.stack([x, x]))


def test_a_functional_call_with_other_parameters_is_served():
    theirs, ours = twins(LSTM, 3, 4)
    other, x = dict(nn.LSTM(3, 4).named_parameters()), torch.randn(5, 2, 3)
    with counted() as calls:
        actual = torch.func.functional_call(ours, other, (x,))
    assert calls["train"] == 1
    theirs.load_state_dict(other)
    assert_results(actual, theirs(x))
    loss(actual).backward()
    assert all(p.grad is not None for p in other.values())
    assert all(p.grad is None for p in ours.parameters())
