"""Optimisers, clipping, schedules and averages: against the reference, and what they promise."""

import copy
import math
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
from support.comparing import assert_identical
from support.fenv import needs_fenv, unusual_environment
from support.internals import Gradients, parameters_of

import lstm_fast
from lstm_fast import LSTM, optim
from lstm_fast.reference import optimisers

pytestmark = pytest.mark.no_isa

# What makes an optimiser, and a step of the reference from (p, g, kept arrays, number of the step).
MAKERS = {
    "SGD": (lambda **k: optim.SGD(lr=0.1, **k), []),
    "momentum": (lambda **k: optim.SGD(lr=0.1, momentum=0.9, **k), ["momentum_buffer"]),
    "nesterov": (
        lambda **k: optim.SGD(lr=0.1, momentum=0.9, nesterov=True, **k),
        ["momentum_buffer"],
    ),
    "Adam": (lambda **k: optim.Adam(lr=0.01, **k), ["exp_avg", "exp_avg_sq"]),
    "AdamW": (lambda **k: optim.AdamW(lr=0.01, **k), ["exp_avg", "exp_avg_sq"]),
    "RMSprop": (lambda **k: optim.RMSprop(lr=0.01, **k), ["square_avg"]),
    "RMSprop with momentum": (
        lambda **k: optim.RMSprop(lr=0.01, momentum=0.9, **k),
        ["square_avg", "momentum_buffer"],
    ),
}
every_optimizer = pytest.mark.parametrize("name", MAKERS)
SIZES = (4, 5, 2)


def step_of_reference(name, p, g, kept, t, decay):
    """Return p and what is kept, in the order of MAKERS, after step t."""
    if name in ("SGD", "momentum", "nesterov"):
        momentum = 0.0 if name == "SGD" else 0.9
        m = kept[0] if kept else np.zeros_like(p)
        options = {"lr": 0.1, "momentum": momentum, "nesterov": name == "nesterov"}
        p, m = optimisers.sgd(p, g, m, weight_decay=decay, **options)
        return p, [m] if kept else []
    if name in ("Adam", "AdamW"):
        options = {"lr": 0.01, "decoupled": name == "AdamW", "weight_decay": decay}
        p, *kept = optimisers.adam(p, g, *kept, t, **options)
        return p, kept
    m = kept[1] if len(kept) > 1 else np.zeros_like(p)
    momentum = 0.9 if len(kept) > 1 else 0.0
    p, m, v = optimisers.rmsprop(p, g, m, kept[0], momentum=momentum, weight_decay=decay)
    return p, [v, m][: len(kept)]


@pytest.fixture
def lstm(dtype):
    return LSTM(*SIZES, dtype=dtype, seed=0)


@pytest.fixture
def draw(lstm, rng):
    """Return new gradients."""

    def draw():
        values = lstm.state_dict().items()
        return {name: rng.standard_normal(v.shape).astype(v.dtype) for name, v in values}

    return draw


def same_layer(lstm):
    other = LSTM(*SIZES, dtype=lstm.dtype)
    other.load_state_dict(lstm.state_dict())
    return other


# ---- steps


@pytest.mark.parametrize("no_decay", [None, "vectors", "names", "function"])
@every_optimizer
def test_twenty_steps_are_those_of_the_reference(lstm, draw, name, no_decay):
    make, kinds = MAKERS[name]
    values = {k: v.astype(float) for k, v in lstm.state_dict().items()}
    left_out = {None: [], "vectors": [k for k, v in values.items() if v.ndim == 1]}
    left_out["names"] = left_out["function"] = ["weight_hh_l0", "bias_ih_l1", "bias_hh_l1"]
    chosen = {"names": left_out["names"], "function": left_out["function"].__contains__}
    optimizer = make(weight_decay=0.1, no_decay=chosen.get(no_decay, no_decay))
    kept = {k: [np.zeros_like(v) for _ in kinds] for k, v in values.items()}
    for t in range(1, 21):
        grads = draw()
        optimizer.step(lstm, grads)
        for k in values:
            decay = 0.0 if k in left_out[no_decay] else 0.1
            g = grads[k].astype(float)
            values[k], kept[k] = step_of_reference(name, values[k], g, kept[k], t, decay)
    bound = 1e-10 if lstm.dtype == np.float64 else 1e-5
    for k, v in lstm.state_dict().items():
        np.testing.assert_allclose(v, values[k], rtol=bound, atol=bound)
    state = optimizer.state_dict()
    assert state.pop("step") == optimizer.steps == 20
    for n, kind in enumerate(kinds):
        for k in values:
            np.testing.assert_allclose(state.pop(f"{kind}.{k}"), kept[k][n], bound, bound)
    assert not state


@every_optimizer
def test_gradients_in_a_buffer_give_the_same_bits(lstm, draw, name):
    other, layout = same_layer(lstm), parameters_of(lstm).layout
    first, second = MAKERS[name][0](), MAKERS[name][0]()
    for _ in range(3):
        grads = draw()
        flat = Gradients(layout, layout.flat(grads))
        before = copy.deepcopy(grads)
        first.step(lstm, grads)
        second.step(other, flat)
        assert_identical(grads, before)
        assert_identical(dict(flat), before)
    assert_identical(lstm.state_dict(), other.state_dict())


@every_optimizer
def test_calls_use_what_a_step_wrote(lstm, draw, rng, name):
    x = rng.standard_normal((3, 2, 4)).astype(lstm.dtype)
    optimizer = MAKERS[name][0]()
    y = lstm(x)[0]
    for _ in range(3):
        optimizer.step(lstm, draw())
        before, y = y, lstm(x)[0]
        np.testing.assert_array_equal(y, same_layer(lstm)(x)[0])
        assert not np.array_equal(y, before)
    assert not lstm.weight_ih_l0.flags.writeable


@every_optimizer
def test_large_blocks_on_several_threads(name, threads, dtype):
    found = []
    for n in (1, 2):
        lstm_fast.set_num_threads(n)
        lstm, optimizer = LSTM(200, 200, dtype=dtype, seed=0), MAKERS[name][0](weight_decay=0.1)
        for _ in range(2):
            optimizer.step(lstm, lstm.state_dict())
        found.append(lstm.state_dict() | optimizer.state_dict())
    assert_identical(*found)


@needs_fenv
@every_optimizer
def test_bits_do_not_depend_on_the_environment(lstm, draw, name):
    other, grads = same_layer(lstm), [draw() for _ in range(3)]
    found = []
    for block, environment in [(lstm, nullcontext), (other, unusual_environment)]:
        optimizer, average = MAKERS[name][0](weight_decay=0.1), optim.Average(block)
        for g in copy.deepcopy(grads):
            with environment():
                norm = optim.clip_by_global_norm(g, 1.0)
                optimizer.step(block, g)
                average.update()
        found.append(optimizer.state_dict() | average.state_dict() | {"norm": np.array(norm)})
    assert_identical(*found)
    assert_identical(lstm.state_dict(), other.state_dict())


@every_optimizer
def test_what_is_not_finite_is_seen(lstm, draw, name):
    optimizer = MAKERS[name][0]()
    for value, where in [(np.nan, 1), (np.inf, 2)]:
        grads = draw()
        grads["bias_ih_l0"][where] = value
        optimizer.step(lstm, grads)
    optimizer.step(lstm, draw())
    found = lstm.state_dict()
    assert np.isnan(found["bias_ih_l0"][1]) and not np.isfinite(found["bias_ih_l0"][2])
    assert sum(np.count_nonzero(~np.isfinite(v)) for v in found.values()) == 2


def test_a_step_trains(lstm, rng):
    x = rng.standard_normal((6, 3, 4)).astype(lstm.dtype)
    target, optimizer, losses = 0.3 * rng.standard_normal((6, 3, 5)), optim.Adam(lr=0.01), []
    for _ in range(50):
        y, _, cache = lstm.forward(x)
        losses.append(np.mean((y - target) ** 2))
        grads = lstm.backward((y - target).astype(lstm.dtype), None, cache)[2]
        optim.clip_by_global_norm(grads, 1.0)
        optimizer.step(lstm, grads)
    assert losses[-1] < 0.7 * losses[0]


# ---- state


@every_optimizer
def test_a_state_saved_and_loaded_goes_on_to_the_bit(lstm, draw, name, tmp_path):
    first, second = MAKERS[name][0](weight_decay=0.1), MAKERS[name][0](weight_decay=0.1)
    stepped = MAKERS[name][0](weight_decay=0.1)
    for _ in range(3):
        first.step(lstm, draw())
    np.savez(tmp_path / "state.npz", **first.state_dict())
    others = same_layer(lstm), same_layer(lstm), same_layer(lstm)
    stepped.step(LSTM(*SIZES, dtype=lstm.dtype), draw())
    unpickled = pickle.loads(pickle.dumps(first))
    with np.load(tmp_path / "state.npz") as state:
        second.load_state_dict(state)
        stepped.load_state_dict(state)
    optimizers = second, stepped, unpickled
    for n in range(3):
        for optimizer in optimizers:
            assert_identical(optimizer.state_dict(), first.state_dict())
            assert optimizer.steps == 3 + n
        grads = draw()
        first.step(lstm, grads)
        for optimizer, other in zip(optimizers, others, strict=True):
            optimizer.step(other, grads)
            assert_identical(other.state_dict(), lstm.state_dict())


def test_a_state_is_a_copy(lstm, draw):
    optimizer = optim.Adam()
    assert_identical(optimizer.state_dict(), {"step": np.array(0)})
    optimizer.step(lstm, draw())
    before = optimizer.state_dict()
    for array in optimizer.state_dict().values():
        array[...] = 7
    assert_identical(optimizer.state_dict(), before)
    other = copy.copy(optimizer)
    other.step(same_layer(lstm), draw())
    assert_identical(optimizer.state_dict(), before)
    optimizer.load_state_dict({"step": 0})
    assert all(not array.any() for array in optimizer.state_dict().values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.pop("step"), ValueError, r"missing keys \['step'\]"),
        (lambda d: d.update(step=-1), ValueError, "at least 0"),
        (lambda d: d.update(step=1.5), TypeError, r"\['step'\]: expected an integer"),
        (lambda d: d.pop("exp_avg.bias_hh_l1"), ValueError, "missing keys .*exp_avg.bias_hh_l1"),
        (lambda d: d.update({"exp_avg.x": np.ones(1)}), ValueError, "unknown keys .*exp_avg.x"),
        (lambda d: d.update(momentum=np.ones(1)), ValueError, "unknown keys .*momentum"),
        (
            lambda d: d.update({"exp_avg_sq.bias_hh_l1": np.ones(3)}),
            ValueError,
            r"exp_avg_sq.bias_hh_l1.*expected shape \(20,\), got \(3,\)",
        ),
        (
            lambda d: d.update({"exp_avg_sq.bias_hh_l1": np.ones(20, int)}),
            TypeError,
            "exp_avg_sq.bias_hh_l1.*floating-point",
        ),
    ],
)
def test_a_wrong_state_changes_nothing(lstm, draw, change, error, message):
    optimizer, fresh = optim.Adam(), optim.Adam()
    optimizer.step(lstm, draw())
    before, weights = optimizer.state_dict(), lstm.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    change(state)
    with pytest.raises(error, match=f"^state_dict.*{message}"):
        optimizer.load_state_dict(state)
    assert_identical(optimizer.state_dict(), before)
    with pytest.raises(error, match=f"^state_dict.*{message}"):  # at the latest here
        fresh.load_state_dict(state)
        fresh.step(lstm, draw())
    assert_identical(lstm.state_dict(), weights)
    with pytest.raises(TypeError, match=r"^state_dict: expected a mapping, got list"):
        optimizer.load_state_dict([])
    with pytest.raises(ValueError, match=r"^state_dict: no arrays exp_avg and exp_avg_sq"):
        optimizer.load_state_dict({"step": 3})


def test_a_state_belongs_to_a_block(lstm, draw):
    optimizer = optim.Adam()
    optimizer.step(lstm, draw())
    before = optimizer.state_dict()
    for other in (
        LSTM(4, 6, dtype=lstm.dtype),
        LSTM(*SIZES, dtype="f4" if lstm.dtype == "f8" else "f8"),
    ):
        weights = other.state_dict()
        with pytest.raises(
            ValueError, match=r"^block: the state of this optimizer belongs to a bl"
        ):
            optimizer.step(other, other.state_dict())
        assert_identical(other.state_dict(), weights)
    assert_identical(optimizer.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g: g.pop("bias_hh_l1"), ValueError, r"^grads: missing keys \['bias_hh_l1'\]"),
        (lambda g: g.update(x=np.ones(1)), ValueError, r"^grads: unknown keys \['x'\]"),
        (
            lambda g: g.update(bias_hh_l1=np.ones(3)),
            ValueError,
            r"^grads\['bias_hh_l1'\]: expected",
        ),
        (lambda g: g.update(bias_hh_l1=None), TypeError, r"^grads\['bias_hh_l1'\]: expected"),
    ],
)
@every_optimizer
def test_wrong_gradients_change_nothing(lstm, draw, name, change, error, message):
    optimizer = MAKERS[name][0]()
    for _ in range(2):
        before, weights, grads = optimizer.state_dict(), lstm.state_dict(), draw()
        change(grads)
        with pytest.raises(error, match=message):
            optimizer.step(lstm, grads)
        assert_identical(optimizer.state_dict(), before)
        assert_identical(lstm.state_dict(), weights)
        optimizer.step(lstm, draw())


def test_wrong_blocks(draw):
    with pytest.raises(TypeError, match=r"^block: expected a block, got dict"):
        optim.SGD().step(draw(), draw())
    with pytest.raises(TypeError, match=r"^block: expected a block, got dict"):
        optim.Average(draw())


# ---- arguments


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD(lr=-1), ValueError, "^lr: expected a finite number"),
        (lambda: optim.SGD(lr=math.nan), ValueError, "^lr: expected a finite number"),
        (lambda: optim.Adam(lr="0.1"), TypeError, "^lr: expected a number"),
        (lambda: optim.SGD(momentum=-0.1), ValueError, "^momentum"),
        (lambda: optim.SGD(nesterov=True), ValueError, "^nesterov: expected a momentum"),
        (lambda: optim.SGD(momentum=1, nesterov=1), TypeError, "^nesterov: expected a bool"),
        (lambda: optim.Adam(betas=0.9), TypeError, "^betas: expected two numbers"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), ValueError, r"^betas\[1\]: expected .*below 1"),
        (lambda: optim.Adam(eps=-1), ValueError, "^eps"),
        (lambda: optim.AdamW(weight_decay=math.inf), ValueError, "^weight_decay"),
        (lambda: optim.RMSprop(alpha=2), ValueError, "^alpha: expected a number from 0 to 1"),
        (lambda: optim.SGD(no_decay="biases"), ValueError, "^no_decay: expected one of vectors"),
        (lambda: optim.SGD(no_decay=3), TypeError, "^no_decay: expected"),
        (lambda: optim.cosine(0.1, 0), ValueError, "^steps: expected at least 1"),
        (lambda: optim.one_cycle(0.1, 9, anneal_strategy="x"), ValueError, "^anneal_strategy"),
        (lambda: optim.one_cycle(0.1, 9, div_factor=0), ValueError, "^div_factor: expected a pos"),
        (lambda: optim.warmup(0.1, 9), TypeError, "^schedule: expected a function"),
        (lambda: optim.plateau(0.1, factor=1), ValueError, "^factor: expected a number below 1"),
        (lambda: optim.plateau(0.1).tell(None), TypeError, "^loss: expected a number"),
        (lambda: optim.plateau(0.1).load_state_dict({"lr": 1}), ValueError, "^state_dict: exp"),
        (lambda: optim.Average(LSTM(1, 1), 2), ValueError, "^decay: expected a number from 0"),
        (lambda: optim.clip_by_global_norm({}, -1), ValueError, "^max_norm"),
        (lambda: optim.clip_by_global_norm([], 1), TypeError, "^grads: expected a mapping"),
        (lambda: optim.clip_by_value({"a": np.ones(1, int)}, 1), TypeError, r"^grads\['a'\]"),
        (lambda: optim.clip_by_value({}, math.nan), ValueError, "^limit"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_learning_rate_can_be_set(lstm):
    optimizer = optim.SGD(lr=0.5)
    ones = {name: np.ones_like(value) for name, value in lstm.state_dict().items()}
    before = lstm.state_dict()
    for lr in (0.5, 0.25):
        optimizer.lr = lr
        optimizer.step(lstm, ones)
    np.testing.assert_array_equal(lstm.bias_hh_l0, before["bias_hh_l0"] - 0.5 - 0.25)
    with pytest.raises(ValueError, match=r"^lr: expected"):
        optimizer.lr = -1
    assert optimizer.lr == 0.25
    with pytest.raises(AttributeError, match=r"^momentum is fixed"):
        optimizer.momentum = 0.9
    assert repr(optimizer) == "SGD(lr=0.25, weight_decay=0.0, momentum=0.0, nesterov=False)"


def test_names_that_no_parameter_has(lstm, draw):
    optimizer, before = optim.SGD(weight_decay=0.1, no_decay=["bias"]), lstm.state_dict()
    with pytest.raises(ValueError, match=r"^no_decay: the block has no parameters \['bias'\]"):
        optimizer.step(lstm, draw())
    assert_identical(lstm.state_dict(), before)


def test_an_optimizer_with_a_function_is_pickled_after_its_first_step(lstm, draw):
    optimizer = optim.SGD(weight_decay=0.5, no_decay=lambda name: name.startswith("bias"))
    optimizer.step(lstm, draw())
    other, twin = pickle.loads(pickle.dumps(optimizer)), same_layer(lstm)
    grads = draw()
    optimizer.step(lstm, grads)
    other.step(twin, grads)
    assert_identical(twin.state_dict(), lstm.state_dict())


# ---- clipping


@pytest.mark.parametrize("in_buffer", [False, True])
def test_clipping(lstm, draw, in_buffer):
    grads, layout = draw(), parameters_of(lstm).layout
    if in_buffer:
        grads = Gradients(layout, layout.flat(grads))
    before = copy.deepcopy(dict(grads))
    for max_norm in (math.inf, 1e3, 0.5):
        norm, expected = optimisers.clip_by_global_norm(before, max_norm)
        assert optim.clip_by_global_norm(grads, max_norm) == pytest.approx(norm, rel=1e-12)
        for name, g in grads.items():
            np.testing.assert_allclose(g, expected[name], rtol=4 * np.finfo(g.dtype).eps)
    optim.clip_by_value(grads, 0.01)
    for name, g in optimisers.clip_by_value(expected, 0.01).items():
        np.testing.assert_allclose(grads[name], g, rtol=4 * np.finfo(g.dtype).eps)
    if in_buffer:
        assert layout.flat(grads) is grads.flat
        assert max(abs(grads.flat)) == grads.flat.dtype.type(0.01)


def test_clipping_of_arrays_with_strides(rng):
    a = rng.standard_normal((6, 8))
    grads = {"t": a.T[::2], "f": np.asfortranarray(a), "none": np.zeros((0, 3), "f4")}
    expected = optimisers.clip_by_global_norm({k: g.copy() for k, g in grads.items()}, 0.5)
    grads["f"] = grads["f"].copy(order="F")
    before = grads["t"]
    assert optim.clip_by_global_norm(grads, 0.5) == pytest.approx(expected[0])
    assert grads["t"] is before
    for name, g in expected[1].items():
        np.testing.assert_allclose(grads[name], g, rtol=1e-12)
    assert optim.clip_by_global_norm({}, 1.0) == 0


def test_read_only_gradients_change_nothing(draw):
    grads = draw()
    grads["bias_hh_l1"].flags.writeable = False
    before = copy.deepcopy(grads)
    for call in (
        lambda: optim.clip_by_global_norm(grads, 0.1),
        lambda: optim.clip_by_value(grads, 0.1),
    ):
        with pytest.raises(TypeError, match=r"^grads\['bias_hh_l1'\]: expected an array that can"):
            call()
    assert_identical(grads, before)


# ---- schedules


def test_schedules():
    steps = range(12)
    assert [optim.constant(0.3)(n) for n in steps] == [0.3] * 12
    cosine = optim.cosine(0.3, 10, 0.1)
    assert [cosine(0), cosine(10), cosine(11)] == [0.3, 0.1, 0.1]
    assert cosine(5) == pytest.approx(0.2)
    cycle = optim.one_cycle(0.5, 10)
    assert cycle(0) == pytest.approx(0.02) and cycle(2) == 0.5
    assert cycle(9) == cycle(1000) == pytest.approx(2e-6)
    assert optim.one_cycle(0.5, 1)(0) == pytest.approx(2e-6)
    assert optim.one_cycle(0.5, 4, pct_start=1.0)(3) == 0.5
    warm = optim.warmup(cosine, 4)
    assert [warm(n) / cosine(n) for n in steps] == pytest.approx([0.25, 0.5, 0.75, *[1] * 9])
    assert optim.warmup(cosine, 0)(0) == 0.3


@pytest.mark.parametrize(
    "schedule",
    [
        optim.constant(0.1),
        optim.cosine(0.1, 7),
        optim.one_cycle(0.1, 7),
        optim.warmup(optim.cosine(0.1, 7), 3),
        optim.warmup(optim.plateau(0.1), 3),
    ],
)
def test_schedules_are_pickled(schedule):
    other = pickle.loads(pickle.dumps(schedule))
    assert [other(n) for n in range(9)] == [schedule(n) for n in range(9)]


def test_plateau():
    schedule = optim.plateau(0.8, 0.5, 1)
    warm = optim.warmup(schedule, 2)
    for loss in (3, 2, 2, 2.5):
        warm.tell(loss)
    assert schedule(0) == schedule(99) == 0.4
    assert warm(0) == 0.2 and warm(5) == 0.4
    other = optim.plateau(0.8, 0.5, 1)
    other.load_state_dict(schedule.state_dict())
    for loss in (math.nan, math.nan, 1, 2, 2):
        schedule.tell(loss)
        other.tell(loss)
        assert other(0) == schedule(0)
    assert schedule(0) == 0.1
    with pytest.raises(AttributeError, match="tell"):
        optim.warmup(optim.constant(1), 2).tell(3)


# ---- averages


@pytest.mark.parametrize("decay", [None, 0.9])
def test_average(lstm, draw, decay):
    average, optimizer = optim.Average(lstm, decay), optim.SGD(lr=0.1)
    first, seen = lstm.state_dict(), []
    with average.applied():
        assert_identical(lstm.state_dict(), first)
    for n in range(5):
        optimizer.step(lstm, draw())
        average.update()
        seen.append(lstm.state_dict())
        assert average.updates == n + 1
    expected = seen[0]
    if decay is None:
        expected = {k: np.mean([s[k] for s in seen], axis=0) for k in first}
    else:
        for s in seen[1:]:
            expected = {k: decay * expected[k] + (1 - decay) * s[k] for k in first}
    with average.applied():
        for k, v in lstm.state_dict().items():
            np.testing.assert_allclose(v, expected[k], rtol=1e-5, atol=1e-6)
        for call in (average.update, lambda: average.applied().__enter__()):
            with pytest.raises(ValueError, match="the weights are the average now"):
                call()
    assert_identical(lstm.state_dict(), seen[-1])
    with pytest.raises(RuntimeError, match="stop"), average.applied():
        raise RuntimeError("stop")
    assert_identical(lstm.state_dict(), seen[-1])


def test_a_state_of_an_average(lstm, draw, tmp_path):
    average, optimizer = optim.Average(lstm), optim.SGD(lr=0.1)
    for _ in range(3):
        optimizer.step(lstm, draw())
        average.update()
    np.savez(tmp_path / "state.npz", **average.state_dict())
    other = optim.Average(same_layer(lstm))
    with np.load(tmp_path / "state.npz") as state:
        other.load_state_dict(state)
    for one in (average, other):
        one.update()
    assert other.updates == 4
    assert_identical(other.state_dict(), average.state_dict())
    before = average.state_dict()
    with pytest.raises(ValueError, match=r"^state_dict: missing keys \['average.bias_hh_l1'\]"):
        average.load_state_dict({k: v + 1 for k, v in before.items() if k[8:] != "bias_hh_l1"})
    with pytest.raises(ValueError, match=r"bias_hh_l1.*expected shape \(20,\), got \(3,\)"):
        average.load_state_dict(
            {k: v + 1 for k, v in before.items()} | {"average.bias_hh_l1": np.ones(3)}
        )
    assert_identical(average.state_dict(), before)
