"""`accelerate`: LSTMs of PyTorch become ours in place; what holds their parameters goes on."""

import copy
import logging

import pytest
from support import comparisons

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import (  # noqa: E402
    Tagger,
    assert_results,
    assert_same,
    assert_served,
    counted,
    example,
    flat,
    losses,
    renewed,
    twins,
)
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

from lstm_fast.torch import LSTM, LSTMCell, accelerate  # noqa: E402

pytestmark = [pytest.mark.no_isa, pytest.mark.usefixtures("one_thread_of_pytorch")]
BOTH = pytest.mark.parametrize("ours", [LSTM, LSTMCell], ids=lambda ours: ours.__name__)


# ---- the modules of a program


def test_accelerate_changes_modules_in_place():
    torch.manual_seed(0)
    tagger = Tagger(num_layers=2, bidirectional=True)
    tokens = torch.randint(7, (5, 2))
    expected, keys = tagger(tokens), [*tagger.state_dict()]
    parts, parameters = dict(tagger.named_modules()), dict(tagger.named_parameters())
    optimiser = torch.optim.SGD(tagger.parameters(), 0.1)
    assert accelerate(tagger) is tagger
    assert all(part is parts[name] for name, part in tagger.named_modules())
    assert all(p is parameters[name] for name, p in tagger.named_parameters())
    assert [*tagger.state_dict()] == keys
    assert type(tagger.lstm) is LSTM and type(tagger.cell) is LSTMCell
    assert isinstance(tagger.lstm, nn.LSTM) and isinstance(tagger.cell, nn.LSTMCell)
    with counted() as calls:
        actual = tagger(tokens)
    assert calls["train"] == 2
    assert_results(actual, expected)
    actual.sum().backward()
    optimiser.step()
    assert not torch.equal(tagger(tokens), actual)
    assert accelerate(accelerate(tagger)) is tagger and type(tagger.lstm) is LSTM


@pytest.mark.parametrize("kind", [nn.LSTM, nn.LSTMCell])
def test_accelerate_of_an_lstm_itself(kind):
    module = kind(3, 4)
    assert accelerate(module) is module and type(module) in (LSTM, LSTMCell)
    with counted() as calls:
        module(example(module))
    assert calls["train"] == 1


def test_accelerate_wants_a_module():
    with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got int"):
        accelerate(3)


class Mine(nn.LSTM):
    """A user's own."""

    def forward(self, input, hx=None):
        y, state = super().forward(input, hx)
        return y + 1, state


def test_subclasses_are_left_and_told(caplog):
    module = nn.ModuleDict({"mine": Mine(3, 4), "plain": nn.LSTM(3, 4)})
    x = torch.randn(5, 2, 3)
    expected = module["mine"](x)
    with caplog.at_level(logging.INFO, logger="lstm_fast"):
        accelerate(module)
    assert type(module["mine"]) is Mine and type(module["plain"]) is LSTM
    assert_results(module["mine"](x), expected, 0)
    (record,) = (r for r in caplog.records if r.name == "lstm_fast")
    assert "mine" in record.getMessage() and "Mine" in record.getMessage()


@pytest.mark.parametrize("shared", ["weight_hh_l0", "weight_ih_l0"])
def test_shared_weights(shared):
    """Two LSTMs that share one parameter, each called between the calls of the other."""
    modules = [nn.LSTM(3, 4, dtype=torch.float64) for _ in range(2)]
    setattr(modules[1], shared, getattr(modules[0], shared))
    accelerate(nn.ModuleList(modules))
    assert getattr(modules[0], shared) is getattr(modules[1], shared)
    theirs = [renewed(module) for module in modules]
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        for k in (0, 1, 0, 1):
            assert_results(modules[k](x), theirs[k](x))
    for pair in (modules, theirs):
        sum(flat(pair[k](x))[0].sin().sum() for k in (0, 1)).backward()
    actual, expected = (
        [getattr(module, name).grad for module in pair for name, _ in theirs[0].named_parameters()]
        for pair in (modules, theirs)
    )
    names = [name for _ in range(2) for name, _ in theirs[0].named_parameters()]
    for k in [k for k, name in enumerate(names) if name == shared]:
        expected[k] = sum(getattr(module, shared).grad for module in theirs)
    assert_same(dict(enumerate(actual)), dict(enumerate(expected)))


def old_weight_norm(module):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module, "weight_hh_l0")


CHANGES = {
    "weight_norm": lambda module: parametrizations.weight_norm(module, "weight_hh_l0"),
    "old weight_norm": old_weight_norm,
    "pruning": lambda module: prune.l1_unstructured(module, "weight_hh_l0", 0.5),
}


@pytest.mark.parametrize("first", [False, True], ids=["after", "before"])
@pytest.mark.parametrize("change", CHANGES)
def test_parameters_that_are_computed(change, first):
    """Changed by PyTorch's utilities before and after `accelerate`: still served, and trained."""
    torch.manual_seed(0)
    plain = nn.LSTM(3, 4, dtype=torch.float64)
    module = copy.deepcopy(plain)
    functions = [CHANGES[change], accelerate]
    for function in functions if first else functions[::-1]:
        module = function(module)
    assert isinstance(module, nn.LSTM)
    x = torch.randn(6, 3, 3, dtype=torch.float64)
    assert_served(module, x)
    optimiser = torch.optim.SGD(module.parameters(), 0.5)
    with counted() as calls:
        losses(module, optimiser, x, 5)
    assert calls["train"] == 5
    with torch.no_grad(), counted() as calls:
        y = module(x)
    assert calls["infer"] == 1
    assert_results(y, renewed(module)(x))
    with torch.inference_mode():
        assert_results(module(x), renewed(module)(x))
    twin = copy.deepcopy(module)
    assert_results(twin(x), module(x), 0)
    if change == "weight_norm":
        parametrize.remove_parametrizations(module, "weight_hh_l0")
    elif change == "pruning":
        prune.remove(module, "weight_hh_l0")
    else:
        nn.utils.remove_weight_norm(module, "weight_hh_l0")
    assert type(module) is LSTM
    with counted() as calls:
        assert_results(module(x), y)
    assert calls["train"] == 1


@pytest.mark.parametrize("served", [False, True], ids=["PyTorch computes", "engine"])
def test_pytorch_reads_computed_parameters_too(served):
    """What the engine does not serve is computed with the parameters of now, as well."""
    module = parametrizations.weight_norm(LSTM(3, 4), "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(3)
    x, expected = torch.randn(5, 2, 3), renewed(module)
    if served:
        assert_results(module(x), expected(x))
    else:
        with torch.autograd.forward_ad.dual_level(), counted() as calls:
            actual = module(x)
        assert not calls
        assert_results(actual, expected(x))


@BOTH
def test_a_loaded_state_that_is_assigned(ours):
    theirs, module = twins(ours, 3, 4)
    x = example(module)
    with torch.no_grad():
        module(x)
        module.load_state_dict({k: 2 * v for k, v in theirs.state_dict().items()}, assign=True)
        theirs.load_state_dict({k: 2 * v for k, v in theirs.state_dict().items()})
        assert_results(module(x), theirs(x))
    assert all(isinstance(p, nn.Parameter) for p in module.parameters())


def test_a_parameter_that_is_replaced():
    module, x = LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        module(x)
    for name in ("weight_hh_l0", "weight_ih_l0"):
        setattr(module, name, nn.Parameter(torch.randn_like(getattr(module, name))))
        assert_served(module, x)
        with torch.no_grad():
            assert_results(module(x), renewed(module)(x))
