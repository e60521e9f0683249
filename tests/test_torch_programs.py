"""Programs around an LSTM: scripted, frozen, traced, exported, compiled, and what others wrote.

`enable` serves what calls PyTorch's operators, and leaves nothing behind; `accelerate` goes through
the compiler as one operator. Programs that nobody here wrote give the same results with both.
"""

import copy
import io
from contextlib import nullcontext
from importlib.util import find_spec

import numpy as np
import pytest
from support import comparisons

comparisons.require("PyTorch", "torch")

import torch  # noqa: E402
from support.torch_lstms import (  # noqa: E402
    DOUBLE,
    SETTINGS,
    Tagger,
    assert_results,
    assert_same,
    compiled,
    counted,
    gradients,
    hidden,
    leaves,
    loss,
    trained,
    twins,
)
from torch import nn  # noqa: E402
from torch._dynamo.exc import BackendCompilerFailed  # noqa: E402
from torch.autograd import gradcheck  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402

from lstm_fast.torch import LSTM, LSTMCell, accelerate, disable, enable, enabled  # noqa: E402

pytestmark = [
    pytest.mark.no_isa,
    pytest.mark.usefixtures("one_thread_of_pytorch"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The tensor attributes .* were assigned during export"),
]
OPERATORS = ["aten::lstm.input", "aten::lstm.data", "aten::lstm_cell"]


# ---- enable


def registered():
    """Return what PyTorch's dispatcher has for the operators that `enable` serves."""
    return {name: torch._C._dispatch_dump(name) for name in OPERATORS}


def served(call):
    """Whether the engine computes a call."""
    with counted() as calls:
        call()
    return bool(calls)


def test_enabled_serves_and_leaves_nothing_behind():
    module, cell, before = nn.LSTM(3, 4), nn.LSTMCell(3, 4), registered()
    x = torch.randn(5, 2, 3)
    packed = pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    calls = [lambda: module(x), lambda: module(packed), lambda: cell(x[0])]
    expected = [call() for call in calls]
    assert not any(map(served, calls))
    with enabled():
        assert all(map(served, calls))
        for call, wanted in zip(calls, expected, strict=True):
            assert_results(call(), wanted)
        with enabled():
            assert all(map(served, calls))
        assert all(map(served, calls))
        assert registered() != before
    assert registered() == before and not any(map(served, calls))
    with pytest.raises(ZeroDivisionError), enabled():
        assert 1 / 0
    assert registered() == before
    enable()
    enable()
    try:
        assert all(map(served, calls))
        with enabled():
            pass
        assert all(map(served, calls))
    finally:
        disable()
    assert registered() == before
    disable()
    assert registered() == before and not any(map(served, calls))


def test_what_the_engine_does_not_have_stays_with_pytorch():
    """Other dtypes, empty batches, operators of other layers: bit by bit."""
    module, half = nn.LSTM(3, 4), nn.LSTM(3, 4, dtype=torch.bfloat16)
    double, gru, x = nn.LSTM(3, 4, **DOUBLE), nn.GRU(3, 4), torch.randn(5, 2, 3)
    calls = [
        lambda: half(x.bfloat16()),
        lambda: module(x[:, :0]),
        lambda: gru(x),
        lambda: torch.func.grad(lambda x: module(x)[0].sum())(x),
        lambda: torch.func.jvp(lambda x: double(x)[0], (x.double(),), (x.double(),)),
    ]
    expected = [call() for call in calls]
    with enabled():
        for call, wanted in zip(calls, expected, strict=True):
            assert_results(call(), wanted, 0)
            assert not served(call)


def test_what_is_wrong_is_refused():
    """With PyTorch's exception; of weights that do not fit, the engine says which."""
    weights = [*nn.LSTM(3, 4, **DOUBLE).parameters()]
    x, state = torch.randn(5, 2, 3, **DOUBLE), torch.zeros(1, 2, 4, **DOUBLE)
    wrong = [
        (x, (state,), weights, True, 1),
        (x, (state, state), weights, True, 2),
        (x[..., :2], (state, state), weights, True, 1),
        (x, (state[..., :2], state), weights, True, 1),
    ]
    for arguments in wrong:
        with pytest.raises(RuntimeError) as expected:
            torch.lstm(*arguments, 0.0, False, False, False)
        with enabled(), pytest.raises(RuntimeError) as actual:
            torch.lstm(*arguments, 0.0, False, False, False)
        found = str(actual.value)
        assert found == str(expected.value) or found.startswith("weight_ih_l0: expected shape")


# ---- scripts


def saved(save, load, program):
    file = io.BytesIO()
    save(program, file)
    file.seek(0)
    return load(file)


def scripted(module, tokens):
    return saved(torch.jit.save, torch.jit.load, torch.jit.script(module))


def frozen(module, tokens):
    return saved(torch.jit.save, torch.jit.load, torch.jit.freeze(torch.jit.script(module.eval())))


def traced(module, tokens):
    return saved(torch.jit.save, torch.jit.load, torch.jit.trace(module, (tokens,)))


def exported(module, tokens):
    program = torch.export.export(module, (tokens,))
    return saved(torch.export.save, torch.export.load, program).module()


WAYS = [scripted, frozen, traced, exported]


@pytest.mark.parametrize("settings", [{}, SETTINGS[1] | {"batch_first": False}], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_programs_of_pytorchs_modules_are_served(way, settings):
    """Saved and loaded; made without the engine, or while it serves."""
    tagger, tokens = Tagger(**settings).eval(), torch.randint(7, (5, 2))
    expected = tagger(tokens)
    program = way(tagger, tokens)
    with enabled():
        same = way(tagger, tokens)
    for one in (program, same):
        assert_results(one(tokens), expected)
        with enabled():
            for _ in range(3):  # the second call is of an optimized script
                with counted() as calls:
                    assert_results(one(tokens), expected)
                assert sum(calls.values()) == (1 if way is traced else 2)  # a trace has no cells
        assert not served(lambda one=one: one(tokens))
        assert_results(one(tokens), expected)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_programs_of_our_modules(way):
    """A script and a trace are of PyTorch's operators; an exported program is served by itself.

    Scripting puts PyTorch's own modules in the places of ours: `accelerate` brings these back.
    """
    tagger, tokens = Tagger(num_layers=2).eval(), torch.randint(7, (5, 2))
    expected = tagger(tokens)
    program = way(accelerate(tagger), tokens)
    assert_results(program(tokens), expected)
    assert served(lambda: program(tokens)) == (way is exported)
    accelerate(tagger)
    assert served(lambda: tagger(tokens))
    with enabled():
        assert served(lambda: program(tokens))
        assert_results(program(tokens), expected)


def test_a_script_is_trained_on_the_engine():
    theirs, tokens = Tagger(num_layers=2, bidirectional=True).double(), torch.randint(7, (5, 2))
    script = torch.jit.script(copy.deepcopy(theirs))
    loss(theirs(tokens)).backward()
    with enabled(), counted() as calls:
        loss(script(tokens)).backward()
    assert calls == {"train": 2, "differentiate": 2}
    assert_same(gradients(script), gradients(theirs))


def test_symbolic_traces_keep_an_lstm_whole():
    for kind in (LSTM, LSTMCell):
        theirs, ours = twins(kind, 3, 4)
        x = torch.randn(5, 3) if kind is LSTMCell else torch.randn(5, 2, 3)
        program = torch.fx.symbolic_trace(nn.Sequential(ours))
        assert any(node.op == "call_module" for node in program.graph.nodes)
        assert_results(program(x), theirs(x))


# ---- the compiler


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_compiled_whole(settings):
    """With states and without, forward and backward, and again after a write to the weights."""
    theirs, ours = twins(LSTM, 3, 4, **settings, **DOUBLE)
    call = compiled(ours)
    x, (h, c) = torch.randn(5, 2, 3, **DOUBLE), hidden(ours, 5 if ours.batch_first else 2)
    for arguments in ((x,), (x, h, c)):
        with counted() as calls:
            actual = trained(ours, *arguments, call=call)
        assert calls["differentiate"] == 1
        assert_same(actual, trained(theirs, *arguments))
    with torch.no_grad():
        for module in (theirs, ours):
            module(x)
            for parameter in module.parameters():
                parameter.mul_(0.5)
        assert served(lambda: call(x))
        assert_results(call(x), theirs(x))


def test_compiled_with_dropout():
    """The mask is the compiler's: equal in forward and backward, as a numerical check says."""
    ours = LSTM(3, 4, 2, dropout=0.5, **DOUBLE)
    call = compiled(ours)

    def run(x):
        torch.manual_seed(3)
        return call(x)[0]

    x = torch.randn(3, 2, 3, **DOUBLE, requires_grad=True)
    assert torch.equal(run(x), run(x)) and not torch.equal(call(x)[0], call(x)[0])
    assert gradcheck(run, x)


def test_compiled_cells_and_the_rest_of_a_program():
    theirs, tokens = Tagger(num_layers=2), torch.randint(7, (5, 2))
    ours = accelerate(copy.deepcopy(theirs))
    call = compiled(ours)
    for module, run in ((theirs, theirs), (ours, call)):
        module.zero_grad()
        loss(run(tokens)).backward()
    assert served(lambda: call(tokens))
    grads = ({k: p.grad for k, p in module.named_parameters()} for module in (ours, theirs))
    assert_same(*grads)


def test_compiled_for_any_length():
    theirs, ours = twins(LSTM, 3, 4, batch_first=True, **DOUBLE)
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph

    call = compiled(ours, backend, dynamic=True)
    for B, T in ((2, 5), (4, 7), (3, 9)):
        x = torch.randn(B, T, 3, **DOUBLE)
        assert_same(trained(ours, x, call=call), trained(theirs, x))
    assert len(seen) == 1


def test_compiled_by_inductor():
    theirs, ours = twins(LSTM, 3, 4, batch_first=True)
    call, x = compiled(ours, "inductor"), torch.randn(2, 5, 3)
    try:
        actual = trained(ours, x, call=call)
    except (torch._inductor.exc.InductorError, BackendCompilerFailed) as error:
        pytest.skip(f"inductor does not work here: {error}")
    assert_same(actual, trained(theirs, x))


def test_exported_for_any_batch():
    theirs, ours = twins(LSTM, 3, 4, 2, batch_first=True)
    B, T = (torch.export.Dim(name, min=2, max=64) for name in "BT")
    x = torch.randn(3, 5, 3)
    program = torch.export.export(ours, (x,), dynamic_shapes=({0: B, 1: T}, None)[:1])
    program = saved(torch.export.save, torch.export.load, program)
    assert any("lstm_fast" in str(node.target) for node in program.graph.nodes)
    for shape in ((3, 5, 3), (7, 2, 3)):
        x = torch.randn(shape)
        assert_results(program.module()(x), theirs(x))


@pytest.mark.parametrize(
    ("settings", "packed"),
    [*((s, False) for s in SETTINGS), *((s, True) for s in SETTINGS[:2])],
    ids=str,
)
def test_the_operator_is_a_good_one(settings, packed):
    """By PyTorch's own checks: its schema, shapes without values, autograd, the compiler's way."""
    module = LSTM(3, 4, **settings)
    weights, B = [*module.parameters()], 2
    x, state = torch.randn(5, B, 3, requires_grad=True), hidden(module, B)
    if packed:
        x = torch.randn(3, 3, requires_grad=True)
    sizes = torch.tensor([2, 1]) if packed else None
    layers, bias, both, P = module.num_layers, module.bias, module.bidirectional, module.proj_size
    given = (weights, layers, bias, both, P)
    operator = torch.ops.lstm_fast.lstm.default
    soon = ("test_schema", "test_faketensor")  # the others compile
    both_states = (x, sizes, [*state], *given)
    if settings or packed:
        torch.library.opcheck(operator, both_states)
    else:
        torch.library.opcheck(operator, both_states, test_utils=soon)
        (x,) = leaves(x.mT.contiguous().mT)
        torch.library.opcheck(operator, (x, sizes, [], *given))
    y, _, cn = (t.detach() for t in operator(x, sizes, [*state], *given))
    with torch.no_grad():
        backward = torch.ops.lstm_fast.lstm_backward.default
        for of_input in (True, False):
            arguments = ([y, None, cn], x, sizes, [*state], *given, of_input)
            torch.library.opcheck(backward, arguments, test_utils=soon)


# ---- others' programs


def skorchs_training(change):
    """A classifier of skorch's that finds out whether the mean of a sequence is positive."""
    from skorch import NeuralNetClassifier

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 8, 2, batch_first=True, dropout=0.2)
            self.linear = nn.Linear(8, 2)
            change(self)

        def forward(self, x):
            return self.linear(self.lstm(x)[1][0][-1])

    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 6, 2)).astype(np.float32)
    y = (x.mean((1, 2)) > 0).astype(np.int64)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Classifier,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=4,
        batch_size=16,
        train_split=None,
        verbose=0,
    )
    net.fit(x, y)
    return np.concatenate([net.history[:, "train_loss"], net.predict_proba(x).ravel()])


def recurrent_ppo(change):
    """Two updates of sb3-contrib's RecurrentPPO, in a world where one has to remember a number."""
    import gymnasium
    from sb3_contrib import RecurrentPPO

    class Memory(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t, self.number = 0, int(self.np_random.integers(2))
            return np.array([2 * self.number - 1, 0], np.float32), {}

        def step(self, action):
            self.t += 1
            reward = float(action == self.number) if self.t == 5 else 0.0
            return np.array([0, self.t / 5], np.float32), reward, self.t == 5, False, {}

    model = RecurrentPPO(
        *("MlpLstmPolicy", Memory()),
        policy_kwargs={"lstm_hidden_size": 8, "net_arch": [8]},
        **{"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu"},
    )
    change(model.policy)
    model.learn(64)
    values = torch.cat([p.detach().flatten() for p in model.policy.parameters()])
    return np.concatenate([values.numpy(), np.ravel(model.ep_info_buffer[-1]["r"])])


PROGRAMS = [
    pytest.param(
        program,
        marks=pytest.mark.skipif(find_spec(name) is None, reason=f"pip install {pip}"),
        id=pip,
    )
    for program, name, pip in [
        (skorchs_training, "skorch", "skorch"),
        (recurrent_ppo, "sb3_contrib", "sb3-contrib"),
    ]
]


@pytest.mark.filterwarnings("ignore")  # of the programs, about themselves
@pytest.mark.parametrize("program", PROGRAMS)
def test_others_programs(program):
    """The same seeds and so the same course; only roundings differ, and they grow a little."""
    expected = program(lambda module: module)
    for way in (nullcontext, enabled):
        with way(), counted() as calls:
            actual = program(accelerate if way is nullcontext else lambda module: module)
        assert calls["train"] >= 8 and calls["infer"]
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)
