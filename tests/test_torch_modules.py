"""`lstm_fast.torch.LSTM` and `LSTMCell` as modules, and PyTorch's own tests of both.

What is a module's own: arguments, attributes, first values, copies, hooks, names. What it computes
is in `test_torch_against_nn.py`.
"""

import copy
import inspect
import io
import pickle
from importlib.util import find_spec
from unittest import mock

import pytest
from support import comparisons

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import (  # noqa: E402
    SETTINGS,
    assert_results,
    assert_same,
    assert_served,
    counted,
    example,
    flat,
    hidden,
    loss,
    twins,
)
from torch import nn  # noqa: E402

from lstm_fast.torch import LSTM, LSTMCell, enabled  # noqa: E402

pytestmark = [pytest.mark.no_isa, pytest.mark.usefixtures("one_thread_of_pytorch")]
BOTH = pytest.mark.parametrize("ours", [LSTM, LSTMCell], ids=lambda ours: ours.__name__)


# ---- as modules


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_lstm_is_made_as_pytorchs(settings):
    torch.manual_seed(3)
    theirs = nn.LSTM(3, 4, **settings)
    torch.manual_seed(3)
    ours = LSTM(3, 4, **settings)
    assert isinstance(ours, nn.LSTM) and isinstance(ours, LSTM)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    own = {name for name in vars(ours) if name not in vars(theirs)}
    assert vars(theirs).keys() <= vars(ours).keys(), own
    for name in (*settings, "mode", "input_size", "hidden_size", "dropout", "training"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.all_weights[0][0] is ours.weight_ih_l0
    assert repr(ours) == repr(theirs)
    assert nn.LSTM is not type(ours)


@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_is_made_as_pytorchs(bias):
    torch.manual_seed(3)
    theirs = nn.LSTMCell(3, 4, bias)
    torch.manual_seed(3)
    ours = LSTMCell(3, 4, bias)
    assert isinstance(ours, nn.LSTMCell)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    assert repr(ours) == repr(theirs)


@BOTH
def test_arguments_are_pytorchs(ours):
    theirs = getattr(nn, ours.__name__)
    names = [*inspect.signature(theirs.forward).parameters]
    assert [*inspect.signature(ours.forward).parameters][: len(names)] == names
    module = ours(input_size=3, hidden_size=4, bias=False, device="cpu", dtype=torch.float64)
    assert module.bias is False
    assert {(p.dtype, p.device.type) for p in module.parameters()} == {(torch.float64, "cpu")}
    x = example(module)
    assert_results(module(input=x, hx=None), module(x))
    for wrong in ({"hidden_size": -1}, {"hidden_size": 4, "nonsense": 1}):
        with pytest.raises((ValueError, RuntimeError, TypeError)) as actual:
            ours(3, **wrong)
        with pytest.raises(actual.type):
            theirs(3, **wrong)


def test_a_module_without_memory_yet():
    """As large models are made: on the device meta, then filled; or there by a context."""
    with torch.device("meta"):
        module = LSTM(3, 4)
    assert module.weight_ih_l0.is_meta
    assert module(torch.zeros(5, 2, 3, device="meta"))[0].shape == (5, 2, 4)
    module = module.to_empty(device="cpu")
    module.reset_parameters()
    assert_served(module, torch.randn(5, 2, 3))
    other = LSTM(3, 4, device="meta")
    other.load_state_dict(module.state_dict(), assign=True)
    assert_results(other(torch.ones(5, 2, 3)), module(torch.ones(5, 2, 3)))


@BOTH
def test_dtypes_change(ours):
    theirs, module = twins(ours, 3, 4)
    for change in ("double", "bfloat16", "float"):
        theirs, module = getattr(theirs, change)(), getattr(module, change)()
        x = example(module)
        with counted() as calls:
            actual = module(x)
        assert bool(calls) == (change != "bfloat16")
        tolerance = 0 if change == "bfloat16" else None
        assert_results(actual, theirs(x), tolerance)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "save": lambda module: saved_and_loaded(module),
}


@pytest.fixture
def swapping():
    """PyTorch gives parameters other memory by `torch.utils.swap_tensors`."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("options", [{}, {"peephole": True}], ids=str)
@BOTH
def test_tensors_are_swapped(ours, options):
    """In conversions and loading, between calls of every kind."""
    if ours is LSTMCell and options:
        return
    module = ours(3, 4, **options)
    for dtype in (torch.float64, torch.float32):
        for training in (False, True):
            with torch.set_grad_enabled(training):
                results = module(example(module))
            if training:
                loss(results).backward()
            del results
        weights = [*module.parameters()]
        module.to(dtype)
        assert all(a is b for a, b in zip(weights, module.parameters(), strict=True))
        other = ours(3, 4, **options, dtype=dtype)
        with torch.no_grad():
            module(example(module))
            module.load_state_dict(other.state_dict())
            x = example(module)
            assert_results(module(x), other(x), 0)


@pytest.mark.usefixtures("swapping")
def test_tensors_of_pytorchs_modules_are_swapped():
    module, x = nn.LSTMCell(3, 4), torch.randn(2, 3)
    with enabled(), torch.no_grad():
        module(x)
        module.double()
        with counted() as calls:
            h, _ = module(x.double())
    assert h.dtype is torch.float64 and calls["infer"] == 1


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@BOTH
@pytest.mark.parametrize("how", COPIES)
def test_copies(how, ours):
    module = ours(3, 4).eval()
    module.alias = next(module.parameters())
    x = example(module)
    module(x)  # the engine has packed the weights
    found = COPIES[how](module)
    assert type(found) is ours and not found.training
    assert found.alias is next(found.parameters())
    assert_results(found(x), module(x), 0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(0.5)
        scaled, before = flat(found(x)), flat(module(x))
    assert not torch.equal(scaled[0], before[0])
    assert_results(module(x), before, 0)


def test_an_lstm_of_pytorch_is_loaded_into_ours_and_back():
    theirs = nn.LSTM(3, 4, 2)
    ours, x = LSTM(3, 4, 2), torch.randn(5, 2, 3)
    ours.load_state_dict(theirs.state_dict())
    assert_results(ours(x), theirs(x))
    again = nn.LSTM(3, 4, 2)
    again.load_state_dict(ours.state_dict())
    assert_results(again(x), theirs(x), 0)


def test_shared_memory():
    module, x = LSTM(3, 4), torch.randn(5, 2, 3)
    before = module(x)
    assert module.share_memory() is module
    assert all(p.is_shared() for p in module.parameters())
    assert_results(module(x), before, 0)
    assert_served(module, x)


@BOTH
def test_hooks(ours):
    """They are called with the same things, in the same order, and may change them."""
    seen = {}
    for module in twins(ours, 3, 4, dtype=torch.float64):
        torch.manual_seed(0)
        calls = seen[type(module) is ours] = []

        def before(_, args, kwargs, calls=calls):
            calls.append(("before", *flat(args)))
            return (args[0] * 2, *args[1:]), kwargs

        def after(_, args, results, calls=calls):
            calls.append(("after", *flat(args), *flat(results)))

        def backward_before(_, grads, calls=calls):
            calls.append(("backward before", *grads[:1]))

        def backward(_, grads, grads_out, calls=calls):
            calls.append(("backward", *grads, *grads_out[:1]))
            return tuple(None if g is None else g * 3 for g in grads)

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after)
        module.register_full_backward_pre_hook(backward_before)
        module.register_full_backward_hook(backward)
        x = example(module).requires_grad_()
        flat(module(x))[0].sin().sum().backward()
        calls.append(("x", x.grad))
    assert [call[0] for call in seen[True]] == [call[0] for call in seen[False]]
    assert [call[0] for call in seen[True]] == [
        "before",
        "after",
        "backward before",
        "backward",
        "x",
    ]
    for actual, expected in zip(seen[True], seen[False], strict=True):
        assert_same(*(dict(enumerate(call[1:])) for call in (actual, expected)), where=actual[0])


# ---- PyTorch's own tests of modules, as in its test/test_modules.py


def entries():
    """Return PyTorch's entries of both modules, which make their tests' arguments."""
    if find_spec("expecttest") is None:
        return [pytest.param(None, marks=pytest.mark.skip("pip install expecttest"))]
    # Its import would keep the whole process from choosing between oneDNN and PyTorch's own code.
    with mock.patch.object(torch.backends, "disable_global_flags"):
        from torch.testing._internal.common_modules import module_db

    ours = {nn.LSTM: LSTM, nn.LSTMCell: LSTMCell}
    found = [entry for entry in module_db if entry.module_cls in ours]
    assert len(found) == 2
    return [pytest.param((entry, ours[entry.module_cls]), id=entry.name) for entry in found]


ENTRIES = pytest.mark.parametrize("entry", entries())
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


def made(entry, dtype, training):
    """Yield a module of ours, arguments of a call, and the input, for each of PyTorch's inputs."""
    info, ours = entry
    given = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": training}
    torch.manual_seed(0)
    for one in info.module_inputs_func(info, **given):
        module = ours(*one.constructor_input.args, **one.constructor_input.kwargs)
        yield module.to(dtype).train(training), one.forward_input, one


@ENTRIES
@DTYPES
@TRAINING
def test_pytorchs_test_of_forward_and_pickle(entry, dtype, training):
    for module, call, one in made(entry, dtype, training):
        with counted() as calls:
            results = module(*call.args, **call.kwargs)
        assert calls["train"]
        expected = one.reference_fn(module, *call.args, **call.kwargs)
        torch.testing.assert_close(results, expected)
        loaded = saved_and_loaded(module)
        torch.testing.assert_close(loaded(*call.args, **call.kwargs), results, rtol=0, atol=0)


@ENTRIES
@TRAINING
@pytest.mark.parametrize("check", ["gradcheck", "gradgradcheck"])
def test_pytorchs_tests_of_gradients(entry, training, check):
    """Of inputs and parameters; as one vector, since the time is that of the number of inputs."""
    for module, call, _ in made(entry, torch.float64, training):
        names, parameters = zip(*module.named_parameters(), strict=True)
        parts = [*flat(call.args), *parameters]
        assert not call.kwargs

        def run(vector, module=module, args=call.args, names=names, parts=parts):
            pieces = vector.split([part.numel() for part in parts])
            pieces = [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
            inputs, weights = pieces[: -len(names)], pieces[-len(names) :]
            args = inputs[0] if len(inputs) == 1 else (inputs[0], tuple(inputs[1:]))
            given = dict(zip(names, weights, strict=True))
            return loss(torch.func.functional_call(module, given, args))

        vector = torch.cat([part.detach().flatten() for part in parts]).requires_grad_()
        with counted() as calls:
            assert getattr(torch.autograd, check)(run, vector, fast_mode=True)
        assert calls["train"]


@ENTRIES
@DTYPES
@TRAINING
def test_pytorchs_test_of_errors(entry, dtype, training):
    from torch.testing._internal.common_modules import ModuleErrorEnum

    info, ours = entry
    given = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": training}
    samples = info.module_error_inputs_func(info, **given)
    assert samples
    for sample in samples:
        made_of, call = sample.module_error_input.constructor_input, None
        if sample.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                ours(*made_of.args, **made_of.kwargs)
        else:
            module, call = (
                ours(*made_of.args, **made_of.kwargs),
                sample.module_error_input.forward_input,
            )
            module.to(dtype).train(training)
            with pytest.raises(sample.error_type, match=sample.error_regex):
                module(*call.args, **call.kwargs)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_wrong_arguments_are_refused_as_by_pytorch(settings):
    theirs, ours = twins(LSTM, 3, 4, **settings)
    h, c = hidden(theirs, 2)
    x, one = torch.randn(2, 2, 3), torch.randn(2, 3)
    wrong = [(x[..., :2],), (x[0, 0],), (x[None],), (x.long(),), (x.double(),), (None,)]
    states = [(h[:, :1], c), (h, c[..., :3]), (h[0], c[0]), (h.double(), c), (h, c.double())]
    wrong += [(x, state) for state in states] + [(one, (h, c))]
    for arguments in wrong:
        with pytest.raises(Exception) as expected:
            theirs(*arguments)
        with pytest.raises(expected.type) as actual:
            ours(*arguments)
        assert str(actual.value) == str(expected.value)
