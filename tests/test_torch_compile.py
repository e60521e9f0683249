"""`lstm_fast.torch.LSTM` with options, `lengths` or `mask`, compiled, exported and checkpointed.

A compiled program has one operator for it, whose numbers are those of the module, to the bit.
"""

import io
from functools import partial

import numpy as np
import pytest
from support import comparisons
from support.internals import torch_engine_class

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import DOUBLE, compiled, flat, leaves, living_caches, loss  # noqa: E402
from torch import nn  # noqa: E402
from torch._dynamo.exc import BackendCompilerFailed  # noqa: E402
from torch.autograd.graph import saved_tensors_hooks  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from lstm_fast.torch import LSTM, accelerate  # noqa: E402

pytestmark = [
    pytest.mark.no_isa,
    pytest.mark.usefixtures("one_thread_of_pytorch"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

T, B, I, H = 5, 3, 4, 6
LENGTHS = [3, 5, 2]
MASK = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 1]], bool)
QUIET = [
    {"peephole": True},
    {"coupled": True, "clip": 0.5, "cell_clip": 0.4},
    {"activations": ("HardSigmoid", "Softsign", ("Elu", 0.5)), "bias": False, "clip": np.inf},
    {"layer_norm": True, "bidirectional": True, "merge": "mul"},
    {"layer_norm": "gates", "peephole": True, "coupled": True},
    {"residual": True, "num_layers": 2, "batch_first": True},
    {"hidden_size": [4, 6], "reverse": True},
    {"peephole": True, "proj_size": 3, "batch_first": True},
]
NOISY = [
    {"zoneout": (0.1, 0.2), "batch_first": True},
    {"recurrent_dropout": 0.3, "variational_dropout": 0.3, "dropout": 0.4, "num_layers": 2},
]
HOW = [{"lengths": LENGTHS}, {"mask": MASK}, {"lengths": torch.tensor(LENGTHS), "mask": MASK}]


def named(options):
    return ",".join(options) or "plain"


def made(options):
    """Return a module, and x and a state for it."""
    torch.manual_seed(1)
    module = LSTM(I, **{"hidden_size": H, **options}, **DOUBLE)
    x = torch.randn((B, T, I) if module.batch_first else (T, B, I), **DOUBLE)
    with torch.no_grad():
        _, state = module(x)
    return module, x, state


def like(state):
    """Return another state of the same form, whose tensors require gradients."""
    if isinstance(state, tuple):
        return tuple(map(like, state))
    return torch.linspace(-1, 1, state.numel(), **DOUBLE).view(state.shape).requires_grad_()


def run(call, module, x, state, **how):
    """Return results and gradients of a call, with the same random numbers each time."""
    module.zero_grad()
    if isinstance(x, PackedSequence):
        (data,) = leaves(x.data)
        x = x._replace(data=data)
    else:
        x = data = leaves(x)[0]
    state = None if state is None else like(state)
    torch.manual_seed(3)
    results = call(x, state, **how)
    loss(results).backward()
    inputs = [data, *flat(state or ())]
    return [*flat(results), *(t.grad for t in (*inputs, *module.parameters()))]


def assert_equal(actual, expected):
    for ours, wanted in zip(actual, expected, strict=True):
        assert torch.equal(ours, wanted)
        assert ours.stride() == wanted.stride()


# Every program is compiled anew, for about a second: each of the options, of the ways to pass
# lengths and of the modes is in some of them, and those that meet in the module are together.
def assert_compiled(module, *arguments, **how):
    """Compiled whole, a module gives the same results and gradients."""
    expected = run(module, module, *arguments, **how)
    assert_equal(run(compiled(module), module, *arguments, **how), expected)


@torch.no_grad()
def assert_compiled_without_gradients(module, x, **how):
    torch.manual_seed(3)
    results = compiled(module)(x, **how)
    torch.manual_seed(3)
    assert_equal(flat(results), flat(module(x, **how)))


@pytest.mark.parametrize("options", [*QUIET, *NOISY], ids=named)
def test_compiled_whole(options):
    module, x, state = made(options)
    assert_compiled(module, x, state)
    assert_compiled_without_gradients(module.eval(), x, lengths=LENGTHS)


@pytest.mark.parametrize(
    ("options", "how"),
    [*(({**QUIET[4], **NOISY[0]}, how) for how in HOW), (QUIET[5], HOW[2])],
    ids=named,
)
def test_lengths_and_masks_are_compiled(options, how):
    module, x, state = made(options)
    assert_compiled(module, x, state, **how)


@pytest.mark.parametrize(
    ("options", "with_state"), [(QUIET[5], True), (NOISY[1], False)], ids=["quiet", "noisy"]
)
def test_packed_sequences_are_compiled(options, with_state):
    module, x, state = made(options)
    order = {"enforce_sorted": False, "batch_first": module.batch_first}
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), **order)
    assert_compiled(module, packed, state if with_state else None)
    assert_compiled_without_gradients(module, packed)


@pytest.mark.parametrize(
    ("options", "with_state"), [(QUIET[5], False), (NOISY[0], True)], ids=["quiet", "noisy"]
)
def test_one_sequence_is_compiled(options, with_state):
    module, _, _ = made(options)
    x = torch.randn(T, I, **DOUBLE)
    _, state = module(x)
    assert_compiled(module, x, state if with_state else None)
    assert_compiled_without_gradients(module, x)


def test_an_accelerated_module_with_lengths_is_compiled():
    module = accelerate(nn.LSTM(I, H, 2, dropout=0.3, **DOUBLE))
    assert_compiled(module, torch.randn(T, B, I, **DOUBLE), None, lengths=torch.tensor(LENGTHS))


def test_compiled_for_any_batch():
    module, _, _ = made({**NOISY[0], "clip": 0.5})
    call = compiled(module, dynamic=True)
    for rows, steps in ((2, 5), (4, 7), (3, 9)):
        x = torch.randn(rows, steps, I, **DOUBLE)
        lengths = torch.randint(1, steps + 1, (rows,))
        expected = run(module, module, x, None, lengths=lengths)
        assert_equal(run(call, module, x, None, lengths=lengths), expected)


@pytest.mark.parametrize("options", [QUIET[1], NOISY[0]], ids=named)
def test_what_is_set_later_is_seen(options):
    """By modules and by their compiled programs, and what was before, again."""
    module, x, _ = made(options)
    call, found = compiled(module, "eager"), []  # what is guarded is the same, and soon compiled

    def both():
        expected = run(module, module, x, None)
        assert_equal(run(call, module, x, None), expected)
        found.append(expected[0])

    both()
    for name, *values in [
        ("zoneout", None, (0.3, 0.4), (0.3, 0.5)),
        ("clip", 0.3, 0.2),
        ("activations", ("Sigmoid", "Tanh", ("ScaledTanh", 0.5, 0.5))),
    ]:
        for value in values:
            setattr(module, name, value)
            both()
    module.eval()
    both()
    different = [a for n, a in enumerate(found) if not any(torch.equal(a, b) for b in found[:n])]
    assert len(different) == len(found) - (options is QUIET[1])


@torch._inductor.config.patch(fallback_random=True)  # PyTorch's random numbers
def test_compiled_by_inductor():
    module, x, state = made({**QUIET[4], "zoneout": (0.1, 0.2)})
    call = compiled(module, "inductor")
    try:
        actual = run(call, module, x, state, lengths=LENGTHS)
    except (torch._inductor.exc.InductorError, BackendCompilerFailed) as error:
        pytest.skip(f"inductor does not work here: {error}")
    assert_equal(actual, run(module, module, x, state, lengths=LENGTHS))


@pytest.mark.parametrize("options", [QUIET[4], QUIET[5], NOISY[0]], ids=named)
def test_exported(options):
    module, x, _ = made(options)
    lengths = torch.tensor(LENGTHS)
    program = torch.export.export(module, (x,), {"lengths": lengths})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for steps in (LENGTHS, [5, 1, 4]):
        how = {"lengths": torch.tensor(steps)}
        torch.manual_seed(3)
        expected = module(x, **how)
        torch.manual_seed(3)
        assert_equal(flat(loaded(x, **how)), flat(expected))


@pytest.mark.parametrize("options", [QUIET[5], NOISY[0], NOISY[1]], ids=named)
def test_the_operator_is_a_good_one(options):
    module, x, state = made(options)
    seen = []

    def backend(graph, inputs):
        seen.extend(node for node in graph.graph.nodes if "lstm_fast" in str(node.target))
        return graph

    compiled(module, backend)(x, lengths=LENGTHS)
    computed, rates = seen[0].args[-2:]
    operator = torch.ops.lstm_fast.lstm_with_options.default
    seed = torch.tensor(7) if options in NOISY else None
    states, weights = flat(like(state)), [*module.parameters()]
    (x,) = leaves(x)
    tests = ("test_schema", "test_faketensor")  # the others compile
    given = x, None, None, None, seed, states, weights, computed, rates
    torch.library.opcheck(operator, given, test_utils=tests)
    lengths, mask = torch.tensor(LENGTHS), torch.from_numpy(MASK)
    given = x, None, lengths, mask, seed, states, weights, computed, rates
    torch.library.opcheck(operator, given)
    results = [t.detach() for t in operator(*given)]
    backward = torch.ops.lstm_fast.lstm_with_options_backward.default
    with torch.no_grad():
        for of_input in (True, False):
            torch.library.opcheck(backward, (results, *given, of_input), test_utils=tests)


@pytest.mark.parametrize("how", [{}, {"lengths": torch.tensor(LENGTHS)}], ids=["plain", "lengths"])
def test_an_input_that_needs_no_gradient(monkeypatch, how):
    """Compiled, too, its gradient is not computed; the others stay."""
    module = accelerate(nn.LSTM(I, H, 2, **DOUBLE))
    wanted, engine = [], torch_engine_class("options" if how else "all")
    differentiate = engine.differentiate

    def noted(self, cache, grads, of_input):
        wanted.append(of_input)
        return differentiate(self, cache, grads, of_input)

    monkeypatch.setattr(engine, "differentiate", noted)
    call, x = compiled(module), torch.randn(T, B, I, **DOUBLE)
    found = []
    for given in (x.clone().requires_grad_(), x):
        y, _ = call(given, **how)
        found.append(torch.autograd.grad(y.sum(), [*module.parameters()]))
    assert_equal(*found)
    assert wanted == [True, False]


@pytest.mark.parametrize("options", NOISY, ids=named)
def test_checkpointed_with_noise(options):
    """Computed once more, forward draws the same: by checkpointing, and where the cache is lost."""
    module, x, state = made(options)
    expected = run(module, module, x, state, lengths=LENGTHS)

    def again(*arguments, **how):
        return checkpoint(module, *arguments, use_reentrant=False, **how)

    assert_equal(run(again, module, x, state, lengths=LENGTHS), expected)
    lengths = np.array(LENGTHS)

    def changed(x, state):
        with saved_tensors_hooks(torch.clone, torch.clone):
            results = module(x, state, lengths=lengths)
        lengths[:] = 1
        module.zoneout = (0.5, 0.5)
        return results

    assert_equal(run(changed, module, x, state), expected)


@pytest.mark.parametrize("options", NOISY, ids=named)
def test_the_cache_goes_after_backward(options):
    module, x, state = made(options)
    results = module(x, state)
    assert living_caches() == 1
    loss(results).backward()
    assert living_caches() == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch's own
def test_backward_of_the_operator_is_compiled():
    """By compiled autograd, which reads it."""
    weights = [w.detach().clone().requires_grad_() for w in nn.LSTM(I, H).parameters()]
    x = torch.randn(T, B, I)
    given = x, None, [], weights, 1, True, False, 0
    expected = torch.autograd.grad(torch.ops.lstm_fast.lstm(*given)[0].square().sum(), weights)
    result = torch.ops.lstm_fast.lstm(*given)[0].square().sum()
    compiler = partial(torch.compile, backend="eager", fullgraph=True)
    with torch._dynamo.compiled_autograd._enable(compiler):
        result.backward()
    assert_equal([w.grad for w in weights], [*expected])
