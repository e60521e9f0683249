"""`History`, its table and its pictures; those of gates and of gradients."""

import sys

import numpy as np
import pytest
from support.processes import run_python
from support.training import H, I, MeanSquared, Momentum, data, new_lstm

from lstm_fast import LSTM, nn
from lstm_fast.training import History, Trainer, gates, gradient_norms, learning_curve

pytestmark = pytest.mark.no_isa


def history(epochs=4, validation=True, steps=3):
    found = History()
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        for step in range(steps):
            found.add_step(float(np.exp(-epoch) * (1 + rng.uniform())), 0.1 * step, 0.5**epoch)
        found.add_epoch([4.0, 2.0, 3.0, 2.5, 9.0][epoch % 5] if validation else None, 0.25)
    return found


def test_arrays():
    found = history()
    assert found.loss.shape == found.lr.shape == found.gradient_norm.shape == (12,)
    assert found.steps.tolist() == [3, 6, 9, 12] and found.steps.dtype == np.intp
    assert found.validation.tolist() == [4, 2, 3, 2.5] and found.seconds.tolist() == [0.25] * 4
    assert found.best == (1, 2.0) and not found.interrupted
    assert {"loss", "validation"} <= {*dir(found)}
    found.loss[:] = 0
    assert found.loss.all()  # what is handed out is a copy
    with pytest.raises(AttributeError, match="'History' object has no attribute 'losses'"):
        found.losses  # noqa: B018
    assert np.isnan(history(validation=False).validation).all()
    assert history(validation=False).best is None
    assert History().best is None and History().loss.size == 0


def test_state():
    found, other = history(), History()
    other.load_state_dict(found.state_dict())
    assert repr(other) == repr(found)
    other.add_step(1.0, 1.0, 1.0)
    assert len(found.loss) == 12 and len(other.loss) == 13


def test_the_table_is_short_and_marks_the_best():
    lines = repr(history()).splitlines()
    assert len(lines) == 5
    assert lines[0].split() == ["epoch", "steps", "loss", "validation", "lr", "norm", "seconds"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert [line.count("*") for line in lines] == [0, 0, 1, 0, 0]
    loss = f"{history().loss[3:6].mean():.5g}"
    assert lines[2].split() == ["2", "6", loss, "2*", "0.5", "0.1", "0.2"]
    assert {len(line) for line in lines} == {len(lines[0])}
    long = repr(history(1000)).splitlines()
    assert len(long) <= 14
    assert long[1].split()[0] == "1" and long[-1].split()[0] == "1000"
    assert repr(history(1000)).count("*") == 1
    assert len(repr(History()).splitlines()) == 1
    found = history()
    found.add_step(1.0, 1.0, 1.0)
    found.interrupted = True
    assert repr(found).endswith("interrupted after 13 steps")


# ---- pictures


PNG = b"\x89PNG"


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


def test_learning_curve(matplotlib, tmp_path):
    found = history()
    axes = learning_curve(found)
    assert found.plot(tmp_path / "a.png").get_xlabel() == axes.get_xlabel() == "update"
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    each, means, validation, best = axes.lines
    assert each.get_ydata().tolist() == found.loss.tolist()
    np.testing.assert_allclose(means.get_ydata(), found.loss.reshape(4, 3).mean(axis=1))
    assert validation.get_xydata().tolist() == [[3, 4], [6, 2], [9, 3], [12, 2.5]]
    assert best.get_xydata().tolist() == [[6, 2]]
    assert len(learning_curve(history(validation=False)).lines) == 2
    interrupted = history()
    interrupted.add_step(1.0, 1.0, 1.0)
    assert len(learning_curve(interrupted).lines) == 4
    assert len(learning_curve(History()).lines) == 2


@pytest.mark.parametrize(
    ("dtype", "bias", "layer"), [(np.float32, True, 0), (np.float64, False, 1)]
)
def test_gates_are_those_of_the_layer(matplotlib, tmp_path, dtype, bias, layer):
    lstm = LSTM(I, H, 2, bias=bias, dtype=dtype, seed=0)
    x = np.random.default_rng(0).standard_normal((9, I)).astype(dtype)
    axes = gates(lstm, x, tmp_path / "a.png", layer=layer)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    i, f, o, c = (np.array(axis.images[0].get_array()).T for axis in axes)
    assert all(((gate > 0) & (gate < 1)).all() for gate in (i, f, o))
    assert (np.diff(f.mean(axis=0)) <= 0).all()
    # The cells, and with the output gate h, are those that the layer has after each step.
    hs, cs = zip(*(lstm(x[: t + 1])[1] for t in range(len(x))), strict=True)
    expected_h, expected_c = np.array(hs)[:, layer], np.array(cs)[:, layer]
    order = [int(np.argmin(np.abs(expected_c[-1] - value))) for value in c[-1]]
    np.testing.assert_allclose(c, expected_c[:, order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(o * np.tanh(c), expected_h[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("lstm", "shape", "match"),
    [
        (LSTM(I, H, bidirectional=True), (4, I), "lstm: .*bidirectional"),
        (LSTM(I, H, peephole=True, clip=3.0), (4, I), "lstm: .*peephole, clip"),
        (LSTM(I, H), (4, I, 1), r"x: .*\(T, 3\).*\(4, 3, 1\)"),
        (LSTM(I, H), (4, H), "x: "),
        (LSTM(I, H), (0, I), "x: .*T > 0"),
    ],
)
def test_gates_of_what_they_are_not_for(lstm, shape, match):
    with pytest.raises(ValueError, match=f"^{match}"):
        gates(lstm, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"^layer"):
        gates(LSTM(I, H), np.zeros((4, I), np.float32), layer=1)
    with pytest.raises(TypeError, match=r"^x: .*float64"):
        gates(LSTM(I, H), np.zeros((4, I)))


def test_the_gradient_of_the_plain_recurrence_vanishes_first(matplotlib, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4, 8)).astype(np.float32)
    lstms = {f"forget bias {b}": LSTM(8, 32, forget_bias=float(b), seed=0) for b in (0, 1)}
    axes = gradient_norms(lstms, x, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    zero, one, plain = (line.get_ydata() for line in axes.lines)
    names = [text.get_text() for text in axes.get_legend().texts]
    assert names == [*lstms, "plain tanh recurrence"]
    assert zero[-1] == one[-1] == plain[-1] == 1
    assert one[30] > 10 * zero[30] and zero[30] > plain[30] > 0


def test_norms_are_those_of_the_gradient(matplotlib):
    """Of both, by central differences in float64."""
    T, size, seed = 5, 4, 3
    x = np.random.default_rng(0).standard_normal((T, I))
    lstm = LSTM(I, size, dtype=np.float64, seed=0)
    curves = [line.get_ydata() for line in gradient_norms(lstm, x, seed=seed).lines]

    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(size)
    bound = size**-0.5
    w_ih, w_hh, b = (rng.uniform(-bound, bound, s) for s in ((size, I), (size, size), size))

    def plain(x):
        h = np.zeros(size)
        for x_t in x:
            h = np.tanh(w_ih @ x_t + w_hh @ h + b)
        return h @ direction

    def ours(x):
        return lstm(x)[0][-1] @ direction

    for loss, curve in zip((ours, plain), curves, strict=True):
        gradient = np.empty_like(x)
        for index in np.ndindex(*x.shape):
            step = np.zeros_like(x)
            step[index] = 1e-6
            gradient[index] = (loss(x + step) - loss(x - step)) / 2e-6
        norms = np.linalg.norm(gradient, axis=1)
        np.testing.assert_allclose(curve, norms / norms[-1], rtol=1e-6)


def test_a_picture_changes_nothing_in_a_training(matplotlib):
    lstm = LSTM(I, H, 2, dropout=0.5, seed=0)
    before = str(lstm.random_state())
    gradient_norms(lstm, np.zeros((4, I), np.float32))
    assert str(lstm.random_state()) == before


def test_gradients_of_what_they_are_not_for():
    x = np.zeros((4, I), np.float32)
    for lstm in (LSTM(I, H, bidirectional=True), LSTM(I, H, batch_first=True)):
        with pytest.raises(ValueError, match=r"^lstm: .*time first and one direction"):
            gradient_norms(lstm, x)
    with pytest.raises(ValueError, match=r"^lstm: .*at least one"):
        gradient_norms({}, x)
    with pytest.raises(ValueError, match=r"^x: .*at least one step"):
        gradient_norms(new_lstm(), x[:0])


def test_pictures_of_a_model():
    model, x = nn.Sequential(lstm=LSTM(2, 3), head=nn.Linear(3, 1)), np.zeros((4, 2), np.float32)
    for draw in (gates, gradient_norms):
        with pytest.raises(TypeError, match=r"LSTM, got Sequential; of a model take model\["):
            draw(model, x)


def test_a_clear_message_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    x = np.zeros((4, I), np.float32)
    for draw in (
        history().plot,
        lambda: gates(new_lstm(), x),
        lambda: gradient_norms(new_lstm(), x),
    ):
        with pytest.raises(ImportError, match=r"pip install 'lstm_fast\[plot\]'"):
            draw()


def test_training_imports_nothing_optional():
    code = """if True:
        import sys
        import numpy as np
        from lstm_fast import LSTM, training
        from support.training import MeanSquared, Momentum, data, new_lstm
        training.Trainer(new_lstm(), MeanSquared(), Momentum()).fit(data())
        print({"matplotlib", "tqdm", "scipy", "mpi4py"} & sys.modules.keys())
        """
    assert run_python(code, "-W", "error") == "set()\n"


def test_a_trained_history():
    trainer = Trainer(new_lstm(), MeanSquared(), Momentum())
    found = trainer.fit(data(3), data(1), epochs=2, progress=False)
    assert found.loss.shape == (6,) and (found.seconds > 0).all() and found.best is not None
