"""`Trainer`: updates, accumulation, validation, early stopping, Ctrl-C, numbers that are none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.internals import progress
from support.training import (
    Chain,
    Counted,
    H,
    I,
    MeanSquared,
    Momentum,
    Plateau,
    Threads,
    bits,
    data,
    new_lstm,
    part_of,
)

from lstm_fast import LSTM, nn
from lstm_fast.training import Batch, Trainer, batches, truncated

pytestmark = pytest.mark.no_isa


def train(model, source, *args, lr=0.1, loss=None, **options):
    of_fit = ("validation", "epochs", "patience", "checkpoint", "progress")
    given = {"progress": False} | {k: options.pop(k) for k in of_fit if k in options}
    trainer = Trainer(model, loss or MeanSquared(), Momentum(lr), **options)
    return trainer, trainer.fit(source, *args, **given)


def close(a, b, tolerance=1e-12):
    a, b = a.state_dict(), b.state_dict()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance)


# ---- updates


def test_an_update_is_forward_loss_backward_step():
    model, ours = new_lstm(), new_lstm()
    optimizer, loss = Momentum(), MeanSquared()
    losses = []
    for batch in data() * 2:
        y, _, cache = model.forward(batch.x)
        value, dy = loss(y, batch.target)
        losses.append(value)
        optimizer.step(model, model.backward(dy, None, cache)[2])
    trainer, history = train(ours, data(), epochs=2)
    assert bits(ours) == bits(model)
    assert history.loss.tolist() == losses
    assert trainer.updates == 8 and history.steps.tolist() == [4, 8]


def test_a_loss_falls():
    _, history = train(new_lstm(), data(8), epochs=20, lr=0.3)
    assert history.loss[-8:].mean() < 0.2 * history.loss[:8].mean()


def test_gradients_are_clipped_to_a_norm():
    seen = []

    class Seeing(Momentum):
        def step(self, model, grads):
            seen.append(np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in grads.values())))
            super().step(model, grads)

    trainer = Trainer(new_lstm(), MeanSquared(), Seeing(), clip_norm=0.05)
    history = trainer.fit(data(), progress=False)
    assert (history.gradient_norm > 0.05).any()
    np.testing.assert_allclose(seen, np.minimum(history.gradient_norm, 0.05), rtol=1e-4)


def test_the_schedule_is_asked_for_each_update():
    trainer = Trainer(new_lstm(), MeanSquared(), Momentum(), schedule=lambda step: 1 / (1 + step))
    history = trainer.fit(data(), epochs=2, progress=False)
    np.testing.assert_allclose(history.lr, 1 / np.arange(1, 9))
    assert trainer.fit(data(), progress=False).lr[0] == 1 / 9  # it goes on


def test_batches_may_come_from_a_function_of_the_epoch():
    given = data(6)
    epochs = []

    def source(epoch):
        epochs.append(epoch)
        return iter(given[2 * epoch : 2 * epoch + 2])

    one, two = new_lstm(), new_lstm()
    train(one, source, epochs=3)
    train(two, [(batch.x, batch.target) for batch in given])
    assert epochs == [0, 1, 2] and bits(one) == bits(two)


def test_the_state_is_carried_over_where_a_batch_says_so():
    rng = np.random.default_rng(0)
    stream = rng.standard_normal((41, I)).astype(np.float32)
    targets = rng.standard_normal((41, H)).astype(np.float32)
    source = truncated(stream, 5, 4, targets)
    model, ours = new_lstm(), new_lstm()
    optimizer = Momentum()
    for _ in range(2):
        state = None
        for batch in source.epoch(0):
            y, state, cache = model.forward(batch.x, state)
            optimizer.step(model, model.backward(MeanSquared()(y, batch.target)[1], None, cache)[2])
    train(ours, source, epochs=2)
    assert bits(ours) == bits(model)


def test_padding_has_no_part():
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, I)) for n in (3, 5, 0, 2)]
    y = [rng.standard_normal((len(a), H)) for a in x]
    [batch] = batches(x, y, 4, shuffle=False)
    beyond = np.arange(5)[:, None] >= batch.lengths
    dirty = batch._replace(x=batch.x.copy(), target=batch.target.copy())
    dirty.x[beyond], dirty.target[beyond] = np.nan, np.inf
    models = [new_lstm(dtype=np.float64) for _ in range(2)]
    for model, one in zip(models, (batch, dirty), strict=True):
        train(model, [one], epochs=3)
    assert bits(models[0]) == bits(models[1])


class Final:
    """An LSTM of which the last output is the only one."""

    def __init__(self, lstm):
        self.lstm = lstm
        for name in ("state_dict", "load_state_dict", "writable", "_parameters"):
            setattr(self, name, getattr(lstm, name))

    def __call__(self, x, state=None, *, lengths=None):
        _, state = self.lstm(x, state, lengths=lengths)
        return state[0][-1], state

    def forward(self, x, state=None, *, lengths=None):
        _, state, cache = self.lstm.forward(x, state, lengths=lengths)
        return state[0][-1], state, cache

    def backward(self, dy, dstate, cache):
        return self.lstm.backward(None, (dy[None], np.zeros_like(dy[None])), cache)


@pytest.mark.parametrize("batch_size", [3, 6])
def test_a_target_for_a_whole_sequence_counts_once(batch_size):
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, I)) for n in (3, 5, 1, 2, 5, 4)]
    y = rng.standard_normal((6, H))
    source = batches(x, y, batch_size, shuffle=False, bucket=False)
    model = Final(new_lstm(dtype=np.float64))
    expected = np.mean([np.square(model(a[:, None])[0][0] - b) for a, b in zip(x, y, strict=True)])
    trainer, history = train(model, source, accumulate=6 // batch_size)
    np.testing.assert_allclose(history.loss, [expected], rtol=1e-12)
    left = np.mean([np.square(model(a[:, None])[0][0] - b) for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(trainer.evaluate(source), left, rtol=1e-12)
    assert left < expected


# ---- accumulation


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("loss", [MeanSquared, Counted])
def test_accumulated_batches_are_one_large_one(parts, loss):
    rng = np.random.default_rng(0)
    lengths = [5, 1, 3, 3, 2, 5, 4, 1]
    x = [rng.standard_normal((n, I)) for n in lengths]
    y = [rng.standard_normal((n, H)) for n in lengths]
    large, small = new_lstm(dtype=np.float64), new_lstm(dtype=np.float64)
    _, one = train(large, batches(x, y, 8, shuffle=False), epochs=3, loss=loss())
    _, many = train(
        *(small, batches(x, y, 8 // parts, shuffle=False)),
        **{"epochs": 3, "accumulate": parts, "loss": loss()},
    )
    close(large, small)
    np.testing.assert_allclose(one.loss, many.loss, rtol=1e-12)
    np.testing.assert_allclose(one.gradient_norm, many.gradient_norm, rtol=1e-12)
    assert len(many.loss) == 3


def test_weights_count():
    rng = np.random.default_rng(0)
    given = data(2, dtype=np.float64)
    weights = [rng.uniform(0, 2, (6, 4, 1)) for _ in given]
    small = [b._replace(weight=w) for b, w in zip(given, weights, strict=True)]
    whole = Batch(
        *(np.concatenate([getattr(b, name) for b in given], 1) for name in ("x", "target")),
        weight=np.concatenate(weights, 1),
    )
    one, two = new_lstm(dtype=np.float64), new_lstm(dtype=np.float64)
    first, _ = train(one, [whole], loss=Counted())
    train(two, small, loss=Counted(), accumulate=2)
    close(one, two)
    np.testing.assert_allclose(first.evaluate([whole]), first.evaluate(small), rtol=1e-12)
    with pytest.raises(TypeError, match="loss: MeanSquared has no method count"):
        train(two, small)


def test_targets_may_have_lengths_of_their_own():
    [batch] = data(1)
    own = np.array([2, 6, 1, 3])
    cut = batch.target.copy()
    cut[np.arange(len(cut))[:, None] >= own] = 1e6
    one, two = new_lstm(), new_lstm()
    train(one, [Batch(batch.x, cut, target_lengths=own)], epochs=2)
    weight = (np.arange(len(cut))[:, None] < own)[..., None]
    train(two, [Batch(batch.x, batch.target, None, weight)], epochs=2, loss=Counted())
    close(one, two, 1e-6)


def test_one_sequence_takes_no_lengths():
    """Nothing would tell a loss whether its first axis is T or B: padding would be counted."""
    [batch] = data(1)
    x, target = batch.x[:, 0], batch.target[:, 0]
    with pytest.raises(ValueError, match=r"lengths: x is one sequence, of shape \(6, 3\)"):
        train(new_lstm(), [Batch(x, target, lengths=np.array([4]))])
    one, two = new_lstm(), new_lstm()
    train(one, [Batch(x[:4], target[:4])])
    train(two, [Batch(x[:, None], target[:, None], lengths=np.array([4]))], loss=nn.MeanSquared())
    close(one, two, 1e-6)


def test_words_of_one_sequence_take_no_lengths():
    model = nn.Sequential(embed=nn.Embedding(5, 3), head=nn.Linear(3, 5))
    batch = Batch(np.arange(5), np.arange(5), lengths=np.array([3]))
    with pytest.raises(ValueError, match="lengths: x is one sequence"):
        Trainer(model, nn.CrossEntropy(), Momentum()).evaluate([batch])


def test_weights_of_batches_count():
    """A sequence of weight 2 is two of them."""
    rng = np.random.default_rng(0)
    x, target = (rng.standard_normal((4, 6, n)).astype(np.float32) for n in (I, H))
    times = np.array([1, 0, 2, 1])
    one, two = new_lstm(), new_lstm()
    loss = nn.MeanSquared()
    train(one, batches(x, target, 4, weight=times, seed=0), loss=loss)
    again = np.repeat(np.arange(4), times)
    train(two, batches(x[again], target[again], 4, seed=0), loss=loss)
    close(one, two, 1e-6)


def test_what_is_left_at_the_end_of_an_epoch_makes_an_update():
    _, history = train(new_lstm(), data(5), epochs=2, accumulate=3)
    assert history.steps.tolist() == [2, 4]


# ---- nothing, and one


@pytest.mark.parametrize("accumulate", [1, 2])
def test_empty_batches_change_nothing(accumulate):
    one, two = new_lstm(), new_lstm()
    full = data(2)
    nothing = [
        Batch(np.zeros((0, 4, I), np.float32), np.zeros((0, 4, H), np.float32)),
        Batch(np.zeros((3, 0, I), np.float32), np.zeros((3, 0, H), np.float32)),
        Batch(full[0].x, full[0].target, np.zeros(4, np.intp)),
    ]
    mixed = [*nothing, full[0], full[1]] if accumulate == 1 else [nothing[0], full[0], full[1]]
    _, history = train(one, mixed, accumulate=accumulate)
    train(two, [full[0], full[1]])
    if accumulate == 1:
        assert bits(one) == bits(two)
    assert history.steps.tolist() == [2]
    trainer, history = train(new_lstm(), [], nothing, epochs=2)
    assert history.steps.tolist() == [0, 0] and np.isnan(history.validation).all()
    assert np.isnan(trainer.evaluate([])) and history.best is None
    assert train(new_lstm(), full, epochs=0)[1].steps.size == 0


def test_a_batch_of_one_unbatched_too():
    one, two = new_lstm(), new_lstm()
    [batch] = data(1, B=1)
    train(one, [batch], epochs=3)
    train(two, [(batch.x[:, 0], batch.target[:, 0])], epochs=3)
    close(one, two, 1e-6)


# ---- validation


class Rising(MeanSquared):
    """In validation, losses as they are given; in training, as they are."""

    def __init__(self, validation):
        self.validation, self.next = validation, iter(validation)

    def __call__(self, y, target, weight=None, lengths=None):
        if len(y) == 2:  # steps of validation
            return next(self.next), None
        return super().__call__(y, target, weight, lengths)


def validated(losses, epochs=6, **options):
    """Return the bits after each epoch, the model, and the history."""
    after = []
    model = new_lstm()
    given = data()

    class Remembering(Rising):
        def __call__(self, y, *rest):
            if len(y) == 2:
                after.append(bits(model))
            return super().__call__(y, *rest)

    check = [(b.x[:2], b.target[:2]) for b in data(1, seed=7)]
    _, history = train(model, given, check, epochs=epochs, loss=Remembering(losses), **options)
    return after, model, history


def test_the_best_parameters_are_put_back():
    after, model, history = validated([3.0, 1.0, 2.0, 1.0, 4.0, np.nan])
    assert len({*after}) == 6
    assert bits(model) == after[1]
    assert history.best == (1, 1.0)
    np.testing.assert_array_equal(history.validation, [3, 1, 2, 1, 4, np.nan])


@pytest.mark.parametrize(
    ("losses", "patience", "epochs"),
    [
        ([3.0, 2.0, 2.5, 2.0, 1.0, 0.0], 2, 4),
        ([3.0, 2.0, 2.5, 1.0, 2.0, 1.5], 2, 6),
        ([1.0, 1.0, 0.5, 0.0], 1, 2),
        ([np.nan, np.nan, np.nan, 1.0], 3, 3),
    ],
)
def test_training_ends_when_patience_does(losses, patience, epochs):
    after, model, history = validated(losses, patience=patience)
    assert len(after) == len(history.validation) == epochs
    if history.best is not None:
        assert bits(model) == after[history.best.epoch]


def test_a_plateau_is_told_the_validation_loss():
    schedule = Plateau(0.4)
    _, _, history = validated([3.0, 4.0, 2.0, 2.0], 4, schedule=schedule)
    assert schedule.told == [3.0, 4.0, 2.0, 2.0]
    np.testing.assert_allclose(history.lr.reshape(4, 4)[:, 0], [0.4, 0.4, 0.2, 0.2])


def test_evaluate_is_the_mean_over_all_steps():
    rng = np.random.default_rng(0)
    lengths = [5, 1, 0, 3, 2]
    x = [rng.standard_normal((n, I)) for n in lengths]
    y = [rng.standard_normal((n, H)) for n in lengths]
    model = new_lstm(dtype=np.float64)
    errors = [np.square(model(a)[0] - b).mean(axis=1) for a, b in zip(x, y, strict=True)]
    trainer = Trainer(model, MeanSquared(), Momentum())
    before = bits(model)
    for batch_size in (1, 2, 5):
        found = trainer.evaluate(batches(x, y, batch_size, seed=0))
        np.testing.assert_allclose(found, np.concatenate(errors).mean(), rtol=1e-12)
    assert bits(model) == before
    stream = truncated(np.concatenate(x), 3, 1, np.concatenate(y))
    whole = MeanSquared()(model(np.concatenate(x)[:, None])[0], np.concatenate(y)[:, None])[0]
    np.testing.assert_allclose(trainer.evaluate(stream), whole, rtol=1e-12)


# ---- numbers that are none


@pytest.mark.parametrize("where", ["x", "target", "parameter", "padding"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_stops(where, accumulate):
    good = data(5)
    x, target = good[3].x.copy(), good[3].target.copy()
    bad = Batch(x, target)
    (target if where == "target" else x)[2, 1] = np.nan
    if where == "padding":
        bad = bad._replace(lengths=np.array([6, 2, 6, 6]))
    model = Chain(low=LSTM(I, 4, seed=0), high=LSTM(4, H, seed=1))
    trainer = Trainer(model, MeanSquared(), Momentum(), accumulate=accumulate)

    class Nothing(Momentum):
        def step(self, model, grads):
            after.append(bits(model))

    after = []
    trainer.optimizer = Nothing()
    if where == "padding":
        trainer.fit([*good[:3], bad], progress=False)
        return
    if where == "parameter":
        bad = good[3]
        forward = model.forward

        def poisoned(x, *rest, **options):
            if x is bad.x:
                with model.blocks["high"].writable() as p:
                    p["weight_hh_l0"][1, 1] = np.inf
            return forward(x, *rest, **options)

        model.forward = poisoned
    named = {
        "x": "the input of block low",
        "target": "the loss, after the last block",
        "parameter": "the parameter weight_hh_l0 of block high",
    }[where]
    step = 3 if accumulate == 1 else 1
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit([*good[:3], bad, good[4]], progress=False)
    assert str(caught.value) == (
        f"step {step}: the loss is nan, the norm of the gradient nan; not finite first: {named}"
    )
    assert trainer.updates == len(after) == step


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_is_beyond_the_end_of_a_sequence_is_not_blamed(batch_first):
    [batch] = data(1)
    batch.x[2:, 1] = np.nan
    batch.target[1, 1] = np.nan
    batch = batch._replace(lengths=np.array([6, 2, 6, 6]))
    model, loss = new_lstm(batch_first=batch_first), MeanSquared()
    if batch_first:
        batch = batch._replace(x=batch.x.swapaxes(0, 1))
        time_first = MeanSquared()

        def loss(y, *rest):
            value, dy = time_first(y.swapaxes(0, 1), *rest)
            return value, dy.swapaxes(0, 1)

    with pytest.raises(FloatingPointError, match="the loss, after the last block"):
        train(model, [batch], loss=loss)


def test_the_parameters_stay_when_a_loss_is_no_number():
    good = data(3)
    bad = Batch(np.full_like(good[0].x, np.inf), good[0].target)
    one, two = new_lstm(), new_lstm()
    with pytest.raises(FloatingPointError, match=r"^step 3: .*the input of block LSTM$"):
        train(one, [*good, bad], epochs=2)
    train(two, good)
    assert bits(one) == bits(two)


def test_a_gradient_that_is_no_number_stops_though_the_loss_is_one():
    class Steep(MeanSquared):
        def __call__(self, y, *rest):
            return 1.0, np.full_like(y, np.nan)

    for model, name in (
        (new_lstm(), "LSTM"),
        (Chain(low=LSTM(I, 4, seed=0), high=LSTM(4, H, seed=1)), "high"),
    ):
        with pytest.raises(FloatingPointError, match=f"loss is 1,.*the gradients of block {name}$"):
            train(model, data(1), loss=Steep())


# ---- Ctrl-C


def press(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)


class Pressed:
    """A part of a training in which Ctrl-C comes, at a certain time."""

    def __init__(self, when, times=1, how=press):
        self.when, self.calls, self.times, self.how = when, 0, times, how

    def __call__(self):
        if self.calls == self.when:
            self.how(self.times)
        self.calls += 1


@pytest.mark.parametrize("place", ["batch", "loss", "step", "parameter", "validation"])
@pytest.mark.parametrize("when", [0, 3])
def test_ctrl_c_ends_after_a_whole_update(place, when):
    model, other = new_lstm(), new_lstm()
    pressed = Pressed(when)
    given = data(3)
    states = [bits(model)]

    def source(epoch):
        for batch in given:
            if place == "batch":
                pressed()
            yield batch

    class Loss(MeanSquared):
        def __call__(self, y, *rest):
            if place == "loss" or (place == "validation" and len(y) == 2):
                pressed()
            return super().__call__(y, *rest)

    class Optimizer(Momentum):
        def step(self, model, grads):
            if place == "step":
                pressed()
            with model.writable() as parameters:
                for n, (name, value) in enumerate(parameters.items()):
                    if place == "parameter" and n == 2:
                        pressed()
                    value -= self.lr * grads[name]

    class Plain(Momentum):
        def step(self, model, grads):
            with model.writable() as parameters:
                for name, value in parameters.items():
                    value -= self.lr * grads[name]
            states.append(bits(model))

    Trainer(other, MeanSquared(), Plain()).fit(given, epochs=6, progress=False)
    check = [(b.x[:2], b.target[:2]) for b in data(1, seed=7)]
    trainer = Trainer(model, Loss(), Optimizer())
    history = trainer.fit(source, check if place == "validation" else None, 6, progress=False)
    assert history.interrupted and "interrupted" in repr(history)
    updates = len(history.loss)
    assert trainer.updates == updates == (3 * (when + 1) if place == "validation" else when + 1)
    # With validation, the best of the epochs is put back; that of the first was not computed.
    best = history.best
    kept = updates if best is None else history.steps[best.epoch]
    assert bits(model) == states[kept]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("place", ["loss", "step"])
def test_a_second_ctrl_c_raises_but_not_within_an_update(place):
    model = new_lstm()
    seen = []

    class Loss(MeanSquared):
        def __call__(self, y, *rest):
            if place == "loss":
                press(2)
                seen.append("not stopped")
            return super().__call__(y, *rest)

    class Optimizer(Momentum):
        def step(self, model, grads):
            if place == "step":
                press(2)
            super().step(model, grads)
            seen.append(bits(model))

    with pytest.raises(KeyboardInterrupt):
        Trainer(model, Loss(), Optimizer()).fit(data(), progress=False)
    assert seen == ([] if place == "loss" else [bits(model)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_keyboard_interrupt_from_elsewhere_ends_it_too():
    def source(epoch):
        yield data(1)[0]
        raise KeyboardInterrupt

    trainer, history = train(new_lstm(), source, epochs=3)
    assert history.interrupted and trainer.updates == 1


def test_ctrl_c_at_random_moments():
    rng = np.random.default_rng(0)
    given = data(6, T=20)
    reference = new_lstm()
    states = [bits(reference)]

    class Remembering(Momentum):
        def step(self, model, grads):
            super().step(model, grads)
            states.append(bits(model))

    Trainer(reference, MeanSquared(), Remembering()).fit(given, epochs=40, progress=False)
    outside = []  # what comes before or after a training
    before = signal.signal(signal.SIGINT, lambda *_: outside.append(1))
    stopped = []
    try:
        for _ in range(40):
            model, trainer = new_lstm(), None
            trainer = Trainer(model, MeanSquared(), Momentum())
            timer = threading.Timer(rng.uniform(0, 0.03), press)
            timer.start()
            history = trainer.fit(given, epochs=40, progress=False)
            timer.join()
            assert bits(model) == states[len(history.loss)]
            assert len(history.loss) == 240 or history.interrupted
            stopped.append(len(history.loss))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len({*stopped}) > 5


def test_in_another_thread_nothing_is_done_about_ctrl_c():
    results = Threads(1).run(lambda comm: train(new_lstm(), data())[1])
    assert not results[0].interrupted


# ---- several processes


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_with_parts_of_a_batch_are_one_with_the_whole(size, accumulate):
    given = [
        b._replace(lengths=np.array([6, 2, 3, 5, 0, 1])) for b in data(5, B=6, dtype=np.float64)
    ]
    check = data(2, B=6, seed=9, dtype=np.float64)
    options = {"epochs": 3, "accumulate": accumulate, "clip_norm": 0.1}
    one = new_lstm(dtype=np.float64)
    _, alone = train(one, given, check, **options)
    models = [new_lstm(seed, dtype=np.float64) for seed in range(size)]  # that of 0 counts
    team = Threads(size)

    def run(comm):
        rank = comm.Get_rank()
        own, own_check = ([part_of(b, size, rank) for b in part] for part in (given, check))
        return train(models[rank], own, own_check, comm=comm, **options)[1]

    histories = team.run(run)
    for model, history in zip(models, histories, strict=True):
        assert bits(model) == bits(models[0])
        close(model, one)
        for name in ("loss", "validation", "gradient_norm"):
            np.testing.assert_allclose(getattr(history, name), getattr(alone, name), rtol=1e-10)
    updates = -(-5 // accumulate)
    assert team.messages == size * 3 * (updates + 2)  # the end of the epoch, and validation


def test_processes_may_have_more_and_fewer_batches():
    given = data(5, dtype=np.float64)
    models = [new_lstm(dtype=np.float64) for _ in range(2)]
    one = new_lstm(dtype=np.float64)
    histories = Threads(2).run(
        lambda comm: train(
            *(models[comm.Get_rank()], given[:3] if comm.Get_rank() else given[3:]),
            comm=comm,
        )[1]
    )
    pairs = [(0, 3), (1, 4), (2,)]
    whole = [
        Batch(*(np.concatenate([given[n][k] for n in pair], 1) for k in (0, 1))) for pair in pairs
    ]
    train(one, whole)
    assert [h.steps.tolist() for h in histories] == [[3], [3]]
    for model in models:
        close(model, one)


def test_all_processes_stop_at_a_loss_that_is_no_number():
    given = data(3)
    bad = Batch(np.full_like(given[0].x, np.nan), given[0].target)
    models = [new_lstm() for _ in range(2)]
    errors = Threads(2).run(
        lambda comm: train(
            models[comm.Get_rank()],
            [given[0], bad if comm.Get_rank() else given[1], given[2]],
            comm=comm,
        )
    )
    assert [type(error) for error in errors] == [FloatingPointError] * 2
    assert str(errors[1]).endswith("the input of block LSTM")
    assert str(errors[0]).endswith("another process")
    assert bits(models[0]) == bits(models[1])


def test_only_the_first_process_prints(capsys):
    Threads(2).run(lambda comm: train(new_lstm(), data(), comm=comm, progress=True))
    assert capsys.readouterr().err.count("\n") == 1


OF_MPI = """
import sys
import numpy as np
from mpi4py import MPI
from support.training import MeanSquared, Momentum, bits, data, part_of, new_lstm
from lstm_fast.training import Trainer

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
model = new_lstm(rank, dtype=np.float64)
own = [part_of(batch, size, rank) for batch in data(5, dtype=np.float64)]
trainer = Trainer(model, MeanSquared(), Momentum(), comm=comm)
trainer.fit(own, own, epochs=2, checkpoint=sys.argv[1], progress=False)
trainer.fit(own, own, epochs=3, checkpoint=sys.argv[1], progress=False)
np.savez(f"{sys.argv[1]}.{rank}.npz", **model.state_dict())
"""


@pytest.mark.skipif(not shutil.which("mpiexec"), reason="no MPI: install mpich or Open MPI")
def test_processes_of_mpi(tmp_path):
    pytest.importorskip("mpi4py")
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.getenv("PYTHONPATH")])])
    command = ["mpiexec", "-n", "2", sys.executable, "-c", OF_MPI, str(tmp_path / "run")]
    subprocess.run(command, check=True, timeout=100, env=os.environ | {"PYTHONPATH": path})
    one = new_lstm(dtype=np.float64)
    given = data(5, dtype=np.float64)
    train(one, given, given, epochs=3)
    for rank in range(2):
        with np.load(tmp_path / f"run.{rank}.npz") as found:
            for name, value in one.state_dict().items():
                np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)


# ---- noise


def test_the_state_of_what_a_block_draws_from():
    lstm = LSTM(I, H, 2, dropout=0.5, seed=0)
    [batch] = data(1)
    state = lstm.random_state()
    first, second = (lstm.forward(batch.x)[0] for _ in range(2))
    lstm.set_random_state(state)
    assert np.array_equal(lstm.forward(batch.x)[0], first)
    assert not np.array_equal(first, second)
    with pytest.raises((TypeError, ValueError)):
        lstm.set_random_state(np.random.MT19937(0).state)
    assert np.array_equal(lstm.forward(batch.x)[0], second)


def test_a_seed_fixes_the_noise_and_differs_between_processes():
    def run(seed, comm=None):
        model = LSTM(I, H, 2, dropout=0.5, recurrent_dropout=0.2, seed=np.random.default_rng(0))
        trainer = Trainer(model, MeanSquared(), Momentum(), seed=seed, comm=comm)
        state = str(model.random_state())
        trainer.fit(data(), progress=False)
        return state, bits(model)

    assert run(3) == run(3)
    assert run(3)[0] != run(4)[0] and run(3)[1] != run(4)[1]
    states = {state for state, _ in Threads(3).run(lambda comm: run(3, comm))}
    assert len(states) == 3


# ---- progress


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    train(new_lstm(), data(2), data(1), epochs=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("epoch 1 of 2, step 1 of 4: loss 0.")
    assert re.search(r", [\d.e+]+ steps/s, \d+:\d\d left$", lines[0])
    assert ", validation 0." in lines[-1]


def test_few_lines_where_it_is_fast(capsys):
    train(new_lstm(), data(20), epochs=3, progress=True)
    assert capsys.readouterr().err.count("\n") == 1
    train(new_lstm(), data(2), progress=False)
    assert capsys.readouterr().err == ""


def test_a_length_that_is_not_known(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    train(new_lstm(), lambda epoch: data(2), epochs=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert "step 1: " in lines[0] and "step 3 of 4: " in lines[3]


@pytest.mark.parametrize("installed", [True, False])
def test_a_bar_on_a_terminal(capsys, monkeypatch, installed):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    train(new_lstm(), data(2), data(1), epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert ("4/4" in shown) == installed
    assert "validation 0." in shown and "loss 0." in shown


# ---- errors


WRONG = [
    (TypeError, "model: int", lambda: Trainer(3, MeanSquared(), Momentum())),
    (TypeError, "loss: int", lambda: Trainer(new_lstm(), 3, Momentum())),
    (TypeError, "optimizer: int", lambda: Trainer(new_lstm(), MeanSquared(), 3)),
    (
        TypeError,
        r"loss: .*write MeanSquared\(\)",
        lambda: Trainer(new_lstm(), MeanSquared, Momentum()),
    ),
    (
        TypeError,
        r"optimizer: .*write Momentum\(\)",
        lambda: Trainer(new_lstm(), MeanSquared(), Momentum),
    ),
    (TypeError, "schedule: float", lambda: trainer(schedule=0.1)),
    (TypeError, "clip_norm", lambda: trainer(clip_norm="1")),
    (ValueError, "clip_norm", lambda: trainer(clip_norm=0.0)),
    (ValueError, "clip_norm", lambda: trainer(clip_norm=np.nan)),
    (ValueError, "accumulate", lambda: trainer(accumulate=0)),
    (ValueError, "seed", lambda: trainer(seed=-1)),
    (TypeError, "batches: .*int", lambda: trainer().fit(3)),
    (TypeError, "batches: .*3 items", lambda: trainer().fit([(1, 2, 3)])),
    (
        TypeError,
        "batches: .*ndarray; `training.batches` makes",
        lambda: trainer().fit([np.ones(2)]),
    ),
    (TypeError, "batches: .*generator", lambda: trainer().fit((b for b in data()), epochs=2)),
    (TypeError, "validation: .*list_iter", lambda: trainer().fit(data(), iter([]), epochs=2)),
    (TypeError, "validation: .*int", lambda: trainer().fit(data(1), 3, progress=False)),
    (ValueError, "epochs", lambda: trainer().fit(data(), epochs=-1)),
    (ValueError, "patience: needs validation", lambda: trainer().fit(data(), patience=1)),
    (ValueError, "patience", lambda: trainer().fit(data(), data(), patience=0)),
    (TypeError, "progress", lambda: trainer().fit(data(), progress=1)),
    (TypeError, "checkpoint", lambda: trainer().fit(data(), checkpoint=3)),
    (ValueError, "checkpoint", lambda: trainer().fit(data(), checkpoint="/nowhere/at/all")),
    (ValueError, "checkpoint", lambda: trainer().fit(data(), checkpoint=".")),
]


def trainer(**options):
    return Trainer(new_lstm(), MeanSquared(), Momentum(), **options)


@pytest.mark.parametrize(("error", "match", "call"), WRONG)
def test_errors_name_the_argument(error, match, call):
    with pytest.raises(error, match=f"^{match}"):
        call()
