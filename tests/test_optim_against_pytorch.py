"""Optimisers, clipping, schedules and averages against PyTorch's, for 20 steps."""

import math

import numpy as np
import pytest
from support import comparisons

from lstm_fast import LSTM, optim

comparisons.require("PyTorch", "torch")

STEPS = 20
# Absolute where numbers are below 1. Found: 5e-7 and 7e-16, of RMSprop with momentum; SGD has the
# same bits where PyTorch has the same vectors.
TOLERANCE = {"float32": 5e-6, "float64": 1e-14}
OPTIONS = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"betas": (0.3, 0.9), "eps": 0.1}),
    ("Adam", {"betas": (0.0, 0.0)}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5}),
    ("AdamW", {"weight_decay": 0}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.5, "eps": 0.01, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
]
# PyTorch's names of what is kept.
KEPT = ["exp_avg", "exp_avg_sq", "square_avg", "momentum_buffer"]


@pytest.fixture
def torch():
    """PyTorch on one thread: two pools of threads in turn disturb each other."""
    import torch

    torch.set_num_threads(1)
    return torch


@pytest.fixture
def lstm(dtype):
    return LSTM(5, 6, 2, dtype=dtype, seed=0)


@pytest.fixture
def module(torch, lstm):
    """The parameters of the LSTM in a module of PyTorch."""
    module = torch.nn.LSTM(5, 6, 2).to(getattr(torch, lstm.dtype.name))
    module.load_state_dict({k: torch.tensor(v) for k, v in lstm.state_dict().items()})
    return module


def draw_grads(lstm, rng):
    return {k: rng.standard_normal(v.shape).astype(v.dtype) for k, v in lstm.state_dict().items()}


def set_grads(torch, module, grads):
    for name, parameter in module.named_parameters():
        parameter.grad = torch.tensor(grads[name])


def assert_close(actual, module):
    for name, parameter in module.named_parameters():
        expected = parameter.detach().numpy()
        bound = TOLERANCE[expected.dtype.name]
        np.testing.assert_allclose(actual[name], expected, rtol=bound, atol=bound, err_msg=name)


def test_defaults_are_pytorchs(torch):
    for name in ("SGD", "Adam", "AdamW", "RMSprop"):
        other = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(1))]).defaults
        mine = {k: v for k, v in vars(getattr(optim, name)()).items() if not k.startswith("_")}
        assert mine == {k: other[k] for k in mine}
        assert next(iter(mine)) == "lr"


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_steps(torch, lstm, module, rng, isa, name, options):
    mine = getattr(optim, name)(**options)
    other = getattr(torch.optim, name)(module.parameters(), **options)
    for n in range(STEPS):
        grads = draw_grads(lstm, rng)
        set_grads(torch, module, grads)
        if n == STEPS // 2:
            mine.lr = other.param_groups[0]["lr"] = mine.lr / 2
        mine.step(lstm, grads)
        other.step()
        assert_close(lstm.state_dict(), module)
    state = mine.state_dict()
    assert state.pop("step") == STEPS
    for parameter, (key, _) in zip(
        other.param_groups[0]["params"], module.named_parameters(), strict=True
    ):
        for kind in KEPT:
            value = other.state[parameter].get(kind)
            if value is not None:
                bound = TOLERANCE[lstm.dtype.name]
                kept = state.pop(f"{kind}.{key}")
                np.testing.assert_allclose(kept, value.numpy(), rtol=bound, atol=bound)
    assert not state


@pytest.mark.parametrize(("name", "options"), [o for o in OPTIONS if "weight_decay" in o[1]])
def test_decay_that_leaves_out_vectors(torch, lstm, module, rng, name, options):
    mine = getattr(optim, name)(**options, no_decay="vectors")
    vectors = [p for p in module.parameters() if p.ndim == 1]
    others = [p for p in module.parameters() if p.ndim > 1]
    groups = [{"params": others}, {"params": vectors, "weight_decay": 0}]
    other = getattr(torch.optim, name)(groups, **options)
    for _ in range(STEPS):
        grads = draw_grads(lstm, rng)
        set_grads(torch, module, grads)
        mine.step(lstm, grads)
        other.step()
    assert_close(lstm.state_dict(), module)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3, math.inf])
def test_clip_by_global_norm(torch, lstm, module, rng, max_norm):
    grads = draw_grads(lstm, rng)
    set_grads(torch, module, grads)
    norm = optim.clip_by_global_norm(grads, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)
    bound = TOLERANCE[lstm.dtype.name]
    assert norm == pytest.approx(expected.item(), rel=bound)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(grads[name], parameter.grad.numpy(), rtol=bound)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_clip_by_global_norm_of_what_is_not_finite(torch, lstm, module, rng, value):
    grads = draw_grads(lstm, rng)
    grads["bias_hh_l1"][3] = value
    set_grads(torch, module, grads)
    norm = optim.clip_by_global_norm(grads, 1.0)
    np.testing.assert_equal(norm, torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0).item())
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(grads[name], parameter.grad.numpy())


def test_clip_by_value(torch, lstm, module, rng):
    grads = draw_grads(lstm, rng)
    grads["bias_hh_l1"][:3] = np.nan, np.inf, -np.inf
    set_grads(torch, module, grads)
    optim.clip_by_value(grads, 0.5)
    torch.nn.utils.clip_grad_value_(module.parameters(), 0.5)
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(grads[name], parameter.grad.numpy())


# ---- schedules


def rates_of(torch, lr, make, steps):
    """Return the learning rates of a scheduler of PyTorch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("final", [0.0, 0.01])
def test_cosine(torch, steps, final):
    expected = rates_of(
        torch, 0.3, lambda s, o: s.CosineAnnealingLR(o, steps, eta_min=final), steps + 1
    )
    schedule = optim.cosine(0.3, steps, final)
    np.testing.assert_allclose([schedule(n) for n in range(steps + 1)], expected, atol=1e-15)


@pytest.mark.parametrize("steps", [3, 10, 33])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pct_start": 0.5, "anneal_strategy": "linear"},
        {"pct_start": 0.0},
        {"div_factor": 10.0, "final_div_factor": 5.0, "pct_start": 0.8},
    ],
)
def test_one_cycle(torch, steps, options):
    expected = rates_of(
        torch,
        0.3,
        lambda s, o: s.OneCycleLR(o, 0.3, steps, cycle_momentum=False, **options),
        steps - 1,
    )
    schedule = optim.one_cycle(0.3, steps, **options)
    np.testing.assert_allclose([schedule(n) for n in range(steps - 1)], expected, rtol=1e-12)


def test_warmup(torch):
    expected = rates_of(torch, 0.3, lambda s, o: s.LinearLR(o, 1 / 5, total_iters=4), 9)
    schedule = optim.warmup(optim.constant(0.3), 5)
    np.testing.assert_allclose([schedule(n) for n in range(9)], expected, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 0},
        {"factor": 0.5, "patience": 2},
        {"factor": 0.5, "patience": 1, "cooldown": 3},
        {"factor": 0.5, "patience": 1, "threshold": 0.2},
        {"factor": 0.1, "patience": 0, "min_lr": 0.002},
    ],
)
def test_plateau(torch, rng, options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options, eps=0)
    schedule = optim.plateau(0.3, **options)
    losses = np.exp(-np.arange(60) / 20) + 0.3 * rng.random(60)
    losses[[5, 30]] = np.nan
    for n, loss in enumerate(losses):
        schedule.tell(loss)
        other.step(loss)
        assert schedule(n) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert schedule.lr < 0.3


# ---- averages


@pytest.mark.parametrize("decay", [None, 0.9, 0.3])
def test_average(torch, lstm, module, rng, decay):
    swa = torch.optim.swa_utils
    average_of = swa.get_swa_avg_fn() if decay is None else swa.get_ema_avg_fn(decay)
    other = swa.AveragedModel(module, avg_fn=average_of)
    mine, optimizer = optim.Average(lstm, decay), optim.SGD(lr=0.1)
    sgd = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(STEPS):
        grads = draw_grads(lstm, rng)
        set_grads(torch, module, grads)
        optimizer.step(lstm, grads)
        sgd.step()
        mine.update()
        other.update_parameters(module)
    with mine.applied():
        assert_close(lstm.state_dict(), other.module)
    assert_close(lstm.state_dict(), module)
