"""`lstm_fast.torch.LSTM` with what PyTorch's own has not: options, `lengths`, `mask`.

The numbers are those of `lf.LSTM`, to the bit, which other tests hold to the reference.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest
from support import comparisons
from support.internals import torch_engine_class

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

import lstm_fast as lf  # noqa: E402
from lstm_fast.torch import LSTM, accelerate  # noqa: E402

pytestmark = [pytest.mark.no_isa, pytest.mark.usefixtures("one_thread_of_pytorch")]

T, B, I, H = 6, 3, 5, 8
LENGTHS = [4, 6, 2]
MASK = np.array([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 1, 0]], bool)
DOUBLE = {"dtype": torch.float64}
QUIET = [  # nothing is drawn
    {},
    {"peephole": True},
    {"coupled": True, "num_layers": 2},
    {"clip": 0.5, "cell_clip": 0.4},
    {"layer_norm": True, "bidirectional": True},
    {"layer_norm": "gates", "bidirectional": True, "peephole": True},
    {"residual": True, "num_layers": 2},
    {"bidirectional": True, "merge": "mul", "num_layers": 2},
    {"hidden_size": [4, 6]},
    {"hidden_size": [4, 6], "bidirectional": True, "peephole": True},
    {"reverse": True, "batch_first": True},
    {"activations": ("HardSigmoid", "Softsign", ("Elu", 0.5)), "bias": False},
    {"peephole": True, "proj_size": 3},
]
NOISY = [
    {"zoneout": (0.1, 0.2)},
    {"recurrent_dropout": 0.3, "peephole": True},
    {"variational_dropout": 0.3, "dropout": 0.4, "num_layers": 2},
]
HOW = [{}, {"lengths": LENGTHS}, {"mask": MASK}, {"lengths": LENGTHS, "mask": MASK}]


def named(options):
    return ",".join(options) or "plain"


def beside(options):
    """Return a module and the `lf.LSTM` with the same weights."""
    settings = {"hidden_size": H, **options}
    torch.manual_seed(1)
    module = LSTM(I, **settings, **DOUBLE)
    lstm = lf.LSTM(I, **settings, dtype=np.float64)
    with lstm.writable() as parameters:
        for name, value in module.named_parameters():
            parameters[name] = value.detach().numpy()
    return module, lstm


def example(module):
    """Return x and a state, which require gradients."""
    shape = (B, T, I) if module.batch_first else (T, B, I)
    x = torch.randn(shape, **DOUBLE).requires_grad_()
    D = 2 if module.bidirectional else 1
    sizes = module.hidden_size
    if isinstance(sizes, tuple):
        state = tuple(
            tuple(torch.randn(D, B, n, **DOUBLE).requires_grad_() for n in sizes) for _ in "hc"
        )
        return x, state
    rows = module.num_layers * D, B
    h = torch.randn(*rows, module.proj_size or sizes, **DOUBLE).requires_grad_()
    return x, (h, torch.randn(*rows, sizes, **DOUBLE).requires_grad_())


def flat(parts):
    for part in parts:
        if isinstance(part, (tuple, list)):
            yield from flat(part)
        else:
            yield part


def numpys(part):
    """Return the arrays of tensors, in tuples as they are."""
    if isinstance(part, tuple):
        return tuple(map(numpys, part))
    return part.detach().numpy()


@pytest.mark.parametrize("how", HOW, ids=named)
@pytest.mark.parametrize("options", QUIET, ids=named)
def test_results_and_gradients_are_those_of_the_layer(options, how):
    module, lstm = beside(options)
    x, state = example(module)
    y, end = module(x, state, **how)
    y_, end_, cache = lstm.forward(numpys(x), numpys(state), **how)
    for ours, expected in zip(flat((y, end)), flat((y_, end_)), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), expected)
    dy, dend = torch.randn_like(y), tuple(map(torch.randn_like, flat(end)))
    torch.autograd.backward([y, *flat(end)], [dy, *dend])
    half = len(dend) // 2
    given = numpys(dend) if half == 1 else (numpys(dend[:half]), numpys(dend[half:]))
    dx, dstate, grads = lstm.backward(numpys(dy), given, cache)
    for ours, expected in zip(flat((x, state)), flat((dx, dstate)), strict=True):
        np.testing.assert_array_equal(ours.grad.numpy(), expected)
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(parameter.grad.numpy(), grads[name])
    with torch.no_grad():
        for ours, expected in zip(flat(module(x, state, **how)), flat((y, end)), strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("how", HOW, ids=named)
@pytest.mark.parametrize("options", [*QUIET, *NOISY], ids=named)
def test_an_input_that_needs_no_gradient(monkeypatch, options, how):
    """Its gradient is not computed, its weights are not packed for that; the others stay."""
    module, _ = beside(options)
    x, state = example(module)
    calls, engine = [], torch_engine_class("options" if options or how else "all")
    differentiate = engine.differentiate

    def noted(self, *given):
        calls.append((self, *given))
        return differentiate(self, *given)

    monkeypatch.setattr(engine, "differentiate", noted)
    found = []
    for given in (x, x.detach()):
        torch.manual_seed(7)
        y, _ = module(given, state, **how)
        found.append(torch.autograd.grad(y.sum(), [*flat(state), *module.parameters()]))
    for ours, expected in zip(*found, strict=True):
        assert torch.equal(ours, expected)
    (*_, of_input), (self, cache, grads, not_wanted) = calls
    assert of_input and not not_wanted
    assert differentiate(self, cache, grads, False)[0] is None
    with pytest.raises(RuntimeError, match="packed for no gradient of the input"):
        differentiate(self, cache, grads)


@pytest.mark.parametrize("options", [*QUIET, *NOISY], ids=named)
def test_a_packed_sequence_is_a_batch_with_lengths(options):
    module, _ = beside(options)
    module.eval()
    x, state = example(module)
    order = {"enforce_sorted": False, "batch_first": module.batch_first}
    y, end = module(pack_padded_sequence(x, torch.tensor(LENGTHS), **order), state)
    padded, lengths = pad_packed_sequence(y, module.batch_first)
    assert lengths.tolist() == LENGTHS
    expected = module(x, state, lengths=torch.tensor(LENGTHS))
    for ours, other in zip(flat((padded, end)), flat(expected), strict=True):
        assert torch.equal(ours, other)
    y.data.square().sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    expected[0].square().sum().backward()
    for ours, parameter in zip(found, module.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", NOISY, ids=named)
def test_noise_comes_from_pytorchs_seed_and_only_in_training(options):
    module, lstm = beside(options)
    x, state = example(module)

    def with_seed(seed, call=module):
        torch.manual_seed(seed)
        return call(x, state)[0]

    assert torch.equal(with_seed(1), with_seed(1))
    assert not torch.equal(with_seed(1), with_seed(2))
    with torch.no_grad():  # as PyTorch's dropout, it is drawn there, too
        assert torch.equal(with_seed(1), with_seed(1).detach())
        assert not torch.equal(with_seed(1), with_seed(2))
    assert torch.equal(with_seed(1), with_seed(1, pickle.loads(pickle.dumps(module))))
    module.eval()
    expected, _ = lstm(numpys(x), numpys(state))
    for _ in range(2):
        np.testing.assert_array_equal(with_seed(3).detach().numpy(), expected)
    assert torch.autograd.gradcheck(lambda x: module(x, state)[0], (x,))
    module.train()
    assert torch.autograd.gradcheck(lambda x: with_seed(1, lambda _, s: module(x, s)), (x,))


def test_rates_may_change():
    module, _ = beside({"zoneout": (0.5, 0.5)})
    x, _ = example(module)
    first = module(x)[0]
    module.zoneout = None
    assert torch.equal(module(x)[0], module(x)[0])
    assert not torch.equal(module(x)[0], first)


def test_one_sequence_has_no_batch():
    module, _ = beside({"peephole": True})
    x = torch.randn(T, I, **DOUBLE)
    y, (h, c) = module(x)
    batch, (h_, c_) = module(x[:, None])
    assert torch.equal(y, batch[:, 0])
    assert torch.equal(h, h_[:, 0])
    assert torch.equal(c, c_[:, 0])


def test_an_accelerated_module_takes_lengths():
    module = accelerate(nn.LSTM(I, H, **DOUBLE))
    x = torch.randn(T, B, I, **DOUBLE)
    x[2:, 2] = float("nan")
    y, (h, _) = module(x, lengths=LENGTHS)
    assert torch.equal(y[1, 2], h[0, 2])
    assert not y[2:, 2].any()
    h.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_first_values_and_names():
    torch.manual_seed(3)
    module = LSTM(I, H, 2, peephole=True, forget_bias=1.0, init="keras")
    torch.manual_seed(3)
    again = LSTM(I, H, 2, peephole=True, forget_bias=1.0, init="keras")
    template = lf.LSTM(I, H, 2, peephole=True, forget_bias=1.0, init="keras", seed=0)
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == {
        n: template.state_dict()[n].shape for n in template.parameters
    }
    for one, other in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(module.bias_ih_l1[H : 2 * H], torch.ones(H))
    module.reset_parameters()
    assert not torch.equal(module.weight_hh_l0, again.weight_hh_l0)
    assert repr(module) == "LSTM(5, 8, num_layers=2, peephole=True)"
    assert torch.equal(copy.deepcopy(module).weight_ch_l0, module.weight_ch_l0)


def test_initial_options_alone_leave_a_plain_lstm():
    module = LSTM(I, H, forget_bias=1.0)
    theirs = nn.LSTM(I, H)
    theirs.load_state_dict(module.state_dict())
    x = torch.randn(T, B, I)
    torch.testing.assert_close(module(x)[0], theirs(x)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert isinstance(torch.jit.script(nn.Sequential(module)), torch.jit.ScriptModule)


def test_a_state_dict_says_the_options_that_parameters_do_not():
    module, other = LSTM(I, H, clip=0.5, coupled=True), LSTM(I, H, clip=0.7)
    state = nn.Sequential(module).state_dict()
    assert "0.lstm_options" in state
    again = nn.Sequential(LSTM(I, H, clip=0.5, coupled=True))
    again.load_state_dict(state)
    x = torch.randn(T, B, I)
    assert torch.equal(again(x)[0], module(x)[0])
    with pytest.raises(RuntimeError, match=r"clip=0\.5, and this one has clip=0\.7"):
        other.load_state_dict(module.state_dict())
    plain = {name: value for name, value in state.items() if "options" not in name}
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.lstm_options"):
        again.load_state_dict(plain)
    again.load_state_dict(plain, strict=False)
    with pytest.raises(RuntimeError, match="plain options"):
        LSTM(I, H).load_state_dict(module.state_dict())
    assert "lstm_options" not in LSTM(I, H, peephole=True).state_dict()


def test_a_compiled_program_computes_the_same():
    module, _ = beside({"peephole": True})

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = module, nn.Linear(H, 2, **DOUBLE)

        def forward(self, x):
            return self.head(self.lstm(x, lengths=LENGTHS)[0])

    model = Model()
    x = torch.randn(T, B, I, **DOUBLE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        found = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(found, model(x))


ERRORS = [
    (lambda: LSTM(I, H, peephol=True), TypeError, "peephol: no option"),
    (lambda: LSTM(I, H, peephole=1), TypeError, "peephole: expected a bool"),
    (lambda: LSTM(I, H, merge="sum"), ValueError, "two directions"),
    (lambda: LSTM(I, [4, 0]), ValueError, r"hidden_size\[1\]"),
    (lambda: LSTM(I, H)(torch.zeros(T, B, I), lengths=[1, 2]), ValueError, "lengths"),
    (lambda: LSTM(I, H)(torch.zeros(T, B, I), lengths=[1, 2, 99]), ValueError, "lengths"),
    (lambda: LSTM(I, H)(torch.zeros(T, B, I), mask=[[1]]), TypeError, "mask"),
    (lambda: LSTM(I, H, peephole=True)(torch.zeros(T, B, 2)), ValueError, "x: expected shape"),
    (lambda: LSTM(I, H, peephole=True)(torch.zeros(T, B, I).double()), TypeError, "parameters"),
    (lambda: LSTM(I, H, peephole=True)(np.zeros((T, B, I))), TypeError, "input: expected a Tensor"),
    (
        lambda: LSTM(I, H, peephole=True, dtype=torch.bfloat16)(
            torch.zeros(T, B, I, dtype=torch.bfloat16)
        ),
        TypeError,
        "input: with options",
    ),
    (
        lambda: LSTM(I, H)(
            pack_padded_sequence(torch.zeros(T, B, I), [6, 5, 4]), lengths=[6, 5, 4]
        ),
        ValueError,
        "neither lengths nor mask",
    ),
    (lambda: torch.jit.script(LSTM(I, H, peephole=True)), RuntimeError, "knows no peephole"),
    (
        lambda: torch.func.grad(lambda x: LSTM(I, H, peephole=True)(x)[0].sum())(
            torch.zeros(T, B, I)
        ),
        RuntimeError,
        "torch.func",
    ),
]


@pytest.mark.parametrize(("call", "kind", "words"), ERRORS, ids=range(len(ERRORS)))
def test_errors_name_what_is_wrong(call, kind, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        with pytest.raises(kind, match=words):
            call()


def test_gradients_of_gradients_are_refused():
    module, _ = beside({"layer_norm": True})
    x, _ = example(module)
    with pytest.raises(RuntimeError, match="without create_graph"):
        torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
