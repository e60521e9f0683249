"""A training that was stopped goes on as if it had not been, whenever and however that was."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.internals import checkpoints, storage
from support.processes import run_python
from support.training import (
    H,
    I,
    MeanSquared,
    Momentum,
    Plateau,
    Threads,
    bits,
    data,
    new_lstm,
)

import lstm_fast
from lstm_fast import LSTM, optim
from lstm_fast.training import Checkpoint, Trainer, batches, truncated

pytestmark = pytest.mark.no_isa

HIDDEN = ("seconds",)  # differs from run to run


def noisy(seed=0):
    return LSTM(
        *(I, H, 2),
        dropout=0.3,
        variational_dropout=0.1,
        recurrent_dropout=0.2,
        zoneout=(0.1, 0.2),
        seed=seed,
    )


def ragged_source(seed=4):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 9, 22)
    x = [rng.standard_normal((n, I)).astype(np.float32) for n in lengths]
    y = [rng.standard_normal((n, H)).astype(np.float32) for n in lengths]
    return batches(x, y, 4, seed=seed)


def stream_source():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, I)).astype(np.float32)
    return truncated(x, 5, 3, rng.standard_normal((90, H)).astype(np.float32))


SOURCES = {
    "ragged": ragged_source,
    "stream": stream_source,
    "list": lambda: data(5),
    "function": lambda: lambda epoch: (b for b in data(5, seed=epoch)),
}


def new_training(kind="ragged", accumulate=1, seed=0, **options):
    """Return a trainer, and the arguments of `fit` but for the checkpoint."""
    optimizer = Momentum(0.2)
    trainer = Trainer(
        *(noisy(seed), MeanSquared(), optimizer),
        **{"clip_norm": 0.2, "schedule": Plateau(0.2), "accumulate": accumulate} | options,
    )
    check = data(2, seed=11)
    return trainer, {"batches": SOURCES[kind](), "validation": check, "epochs": 4, "patience": 3}


def outcome(trainer, history):
    arrays = {k: v.tobytes() for k, v in history.state_dict().items() if k not in HIDDEN}
    optimizer = {k: v.tobytes() for k, v in trainer.optimizer.state_dict().items()}
    random = str(trainer.model.random_state())
    return bits(trainer.model), arrays, optimizer, random, trainer.schedule.state_dict()


def keep_every_checkpoint(monkeypatch, folder):
    """Have each checkpoint that is written copied to a folder; return their paths."""
    write, kept = storage.write_whole, []

    def keep(path, data):
        write(path, data)
        kept.append(folder / f"{len(kept)}.npz")
        shutil.copy(path, kept[-1])

    monkeypatch.setattr(storage, "write_whole", keep)
    return kept


@pytest.mark.parametrize(
    ("kind", "accumulate", "threads_used"),
    [
        ("ragged", 1, 2),
        ("ragged", 2, 1),
        ("stream", 1, 1),
        ("stream", 2, 2),
        ("list", 2, 2),
        ("function", 1, 1),
    ],
)
def test_from_each_checkpoint_it_goes_on_to_the_bit(
    tmp_path, monkeypatch, threads, threads_used, kind, accumulate
):
    lstm_fast.set_num_threads(threads_used)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and nobody pulls the plug
    trainer, given = new_training(kind, accumulate)
    expected = outcome(trainer, trainer.fit(**given, progress=False))
    kept = keep_every_checkpoint(monkeypatch, tmp_path)
    trainer, given = new_training(kind, accumulate)
    place = tmp_path / "run.npz"
    found = outcome(trainer, trainer.fit(**given, checkpoint=Checkpoint(place, 1), progress=False))
    assert found == expected
    assert len(kept) >= trainer.updates + 2
    for path in [*kept]:
        trainer, given = new_training(kind, accumulate, seed=5)  # all of it is in the file
        history = trainer.fit(**given, checkpoint=path, progress=False)
        assert outcome(trainer, history) == expected, path


OPTIMIZERS = {
    "SGD": lambda: optim.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: optim.Adam(0.01),
    "AdamW": lambda: optim.AdamW(0.01, no_decay="vectors"),
    "RMSprop": lambda: optim.RMSprop(0.01, momentum=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_schedules_go_on_to_the_bit(tmp_path, monkeypatch, name):
    def new():
        schedule = optim.warmup(optim.plateau(0.1, factor=0.5, patience=0), 5)
        options = {"clip_norm": 0.1, "schedule": schedule}
        trainer = Trainer(noisy(), MeanSquared(), OPTIMIZERS[name](), **options)
        return trainer, (data(3), data(1, seed=9), 4)

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    trainer, given = new()
    expected = outcome(trainer, trainer.fit(*given, progress=False))
    kept = keep_every_checkpoint(monkeypatch, tmp_path)
    trainer, given = new()
    place = Checkpoint(tmp_path / "run.npz", 1)
    assert len({*trainer.fit(*given, checkpoint=place, progress=False).lr}) >= 5
    for path in [*kept]:
        trainer, given = new()
        assert outcome(trainer, trainer.fit(*given, checkpoint=path, progress=False)) == expected


def test_more_epochs_than_before_are_those_of_one_run(tmp_path):
    trainer, given = new_training()
    expected = outcome(trainer, trainer.fit(**given | {"epochs": 4}, progress=False))
    for epochs in (1, 3, 4, 4):
        trainer, given = new_training(seed=epochs - 1)
        given |= {"epochs": epochs, "checkpoint": tmp_path / "run.npz"}
        history = trainer.fit(**given, progress=False)
    assert outcome(trainer, history) == expected


def test_an_order_that_was_drawn_is_kept(tmp_path):
    one, two = (ragged_source(seed=None) for _ in range(2))
    assert one.seed != two.seed
    for epochs, source in ((1, one), (2, two)):
        trainer = Trainer(new_lstm(), MeanSquared(), Momentum())
        trainer.fit(source, epochs=epochs, checkpoint=tmp_path / "run.npz", progress=False)
    assert one.seed == two.seed
    orders = [[batch.target.tobytes() for batch in source.epoch(1)] for source in (one, two)]
    assert orders[0] == orders[1]


def test_patience_goes_on_where_it_was(tmp_path):
    """The learning rate is negative, so that losses rise."""
    expected, place = None, tmp_path / "run.npz"
    for steps in ((9,), (1, 9), (2, 9), (1, 2, 3, 4, 9)):
        place.unlink(missing_ok=True)
        for epochs in steps:
            trainer = Trainer(new_lstm(), MeanSquared(), Momentum(-0.01))
            history = trainer.fit(
                *(data(), data(), epochs), patience=3, checkpoint=place, progress=False
            )
        found = len(history.validation), bits(trainer.model)
        expected = expected or found
        assert found == expected and found[0] == 4


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_every_kind_of_generator_is_kept(tmp_path, kind):
    def new():
        rng = np.random.Generator(getattr(np.random, kind)(3))
        return Trainer(LSTM(I, H, 2, dropout=0.5, seed=rng), MeanSquared(), Momentum())

    one, two = new(), new()
    one.fit(data(), epochs=2, progress=False)
    two.fit(data(), epochs=1, checkpoint=tmp_path / "run.npz", progress=False)
    two = new()
    two.fit(data(), epochs=2, checkpoint=tmp_path / "run.npz", progress=False)
    assert bits(one.model) == bits(two.model)


def test_what_came_before_is_not_computed_again(tmp_path):
    given = data(6)
    place = tmp_path / "run.npz"
    seen = []

    class Seeing(MeanSquared):
        def __call__(self, y, target, *rest):
            seen.append(target.tobytes())
            if len(seen) == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(y, target, *rest)

    first = Trainer(new_lstm(), Seeing(), Momentum())
    assert first.fit(given, checkpoint=place, progress=False).interrupted
    second = Trainer(new_lstm(), Seeing(), Momentum())
    assert not second.fit(given, checkpoint=place, progress=False).interrupted
    assert seen == [batch.target.tobytes() for batch in given]


def test_ctrl_c_writes_a_checkpoint_from_which_it_goes_on(tmp_path):
    trainer, given = new_training()
    expected = outcome(trainer, trainer.fit(**given, progress=False))
    updates = trainer.updates
    calls = 0

    class Interrupted(MeanSquared):
        def __call__(self, *args):
            nonlocal calls
            calls += 1
            if calls % 3 == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(*args)

    place = tmp_path / "run.npz"
    for attempt in range(100):
        trainer, given = new_training(seed=attempt)
        trainer.loss = Interrupted()
        history = trainer.fit(**given, checkpoint=place, progress=False)
        if not history.interrupted:
            break
    assert attempt >= updates / 3
    assert outcome(trainer, history) == expected


# ---- files


def test_a_file_has_no_pickle_and_numpy_reads_it(tmp_path):
    place = tmp_path / "run.npz"
    trainer, given = new_training()
    trainer.fit(**given, checkpoint=place, progress=False)
    with np.load(place, allow_pickle=False) as file:
        assert all(isinstance(file[name], (np.ndarray, bytes)) for name in file)
        tree = json.loads(file["tree.json"])
    assert tree["format"] == "lstm_fast training checkpoint" and tree["version"] == 1
    assert [*tmp_path.iterdir()] == [place]


def everything(trainer):
    return (
        bits(trainer.model),
        {k: v.tobytes() for k, v in trainer.optimizer.state_dict().items()},
        str(trainer.model.random_state()),
        trainer.schedule.state_dict(),
        trainer.updates,
    )


def refused(place, match, trainer=None, given=None):
    """Whether a file is refused, and nothing changes, the file neither."""
    if trainer is None:
        trainer, given = new_training()
    before, data = everything(trainer), place.read_bytes()
    with pytest.raises(ValueError, match=match) as caught:
        trainer.fit(**given, checkpoint=place, progress=False)
    assert str(place) in str(caught.value)
    assert everything(trainer) == before and place.read_bytes() == data


@pytest.fixture
def whole(tmp_path):
    place = tmp_path / "run.npz"
    trainer, given = new_training()
    trainer.fit(**given | {"epochs": 1}, checkpoint=place, progress=False)
    return place


def test_a_part_of_a_file_is_refused(whole):
    data = whole.read_bytes()
    for size in [0, 1, 10, len(data) // 3, len(data) // 2, len(data) - 1]:
        whole.write_bytes(data[:size])
        refused(whole, "checkpoint: .* is no checkpoint")


def test_a_changed_byte_of_an_array_is_refused(whole):
    data = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as file:
        header = file.getinfo("1.npy").header_offset
    data[header + 200] ^= 1
    whole.write_bytes(data)
    refused(whole, "checkpoint: .* is no checkpoint")


def test_other_files_are_refused(tmp_path):
    place = tmp_path / "other"
    place.write_text("hello")
    refused(place, "checkpoint: .* is no checkpoint")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    refused(tmp_path / "arrays.npz", "checkpoint: .* is no checkpoint")
    with zipfile.ZipFile(place, "w") as file:
        file.writestr("tree.json", json.dumps({"format": "other", "version": 1, "tree": 3}))
    refused(place, "format is 'other'")
    with zipfile.ZipFile(place, "w") as file:
        tree = {"format": "lstm_fast training checkpoint", "version": 1, "tree": {"dict": {}}}
        file.writestr("tree.json", json.dumps(tree))
    refused(place, "checkpoint: .* does not fit this training: it has no .*model")


def rewritten(place, change):
    """Change the tree of a file."""
    with zipfile.ZipFile(place) as file:
        members = {name: file.read(name) for name in file.namelist()}
    tree = json.loads(members["tree.json"])
    change(tree)
    with zipfile.ZipFile(place, "w") as file:
        for name, member in (members | {"tree.json": json.dumps(tree)}).items():
            file.writestr(name, member)


def test_a_newer_file_is_refused(whole):
    rewritten(whole, lambda tree: tree.update(version=2, tree="as nobody knows yet"))
    refused(whole, r"checkpoint: .* by a newer lstm_fast \(version 2 .* up to 1\)")


@pytest.mark.parametrize("key", ["model", "best", "optimizer_state", "history", "epoch"])
def test_a_file_in_which_something_is_missing_is_refused(whole, key):
    rewritten(whole, lambda tree: tree["tree"]["dict"].pop(key))
    refused(whole, "checkpoint: .*(is no|does not fit)")


@pytest.mark.parametrize("key", ["optimizer_state", "schedule", "history"])
def test_a_file_in_which_something_is_wrong_is_refused(whole, key):
    rewritten(whole, lambda tree: tree["tree"]["dict"].update({key: {"list": [3]}}))
    refused(whole, "checkpoint: .* does not fit this training")


def test_the_file_of_another_model_is_refused(whole):
    _, given = new_training()
    for model, match in (
        (LSTM(I, H + 1), r"another model, .* weight_ih_l0 is \(20, 3\) .*\(24, 3\)"),
        (LSTM(I, H), "another model, which has .*weight_ih_l1"),
        (LSTM(I, H, 3), "another model, .* weight_ih_l2 is missing"),
        (LSTM(I, H, 2, dtype=np.float64), "another model, .* of float32, .* of float64"),
    ):
        trainer = Trainer(model, MeanSquared(), Momentum(), schedule=Plateau(1.0))
        refused(whole, match, trainer, given)

    class Other(Momentum):
        pass

    trainer = Trainer(noisy(), MeanSquared(), Other(), schedule=Plateau(1.0))
    refused(whole, "a training with Momentum, not Other", trainer, given)


def test_the_file_of_another_kind_of_generator_is_refused(whole):
    rng = np.random.Generator(np.random.MT19937(3))
    trainer = Trainer(*(LSTM(I, H, 2, seed=rng), MeanSquared(), Momentum()), schedule=Plateau(1.0))
    refused(whole, "does not fit this training", trainer, new_training()[1])


def test_what_cannot_be_kept_is_named(tmp_path):
    class Odd(Momentum):
        def state_dict(self):
            return {"function": print}

    trainer = Trainer(new_lstm(), MeanSquared(), Odd())
    with pytest.raises(TypeError, match="checkpoint: cannot keep a builtin_function"):
        trainer.fit(data(), checkpoint=tmp_path / "run", progress=False)
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_leaves_the_old_file(whole, monkeypatch):
    data = whole.read_bytes()

    def full(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    trainer, given = new_training()
    with pytest.raises(OSError, match="no space"):
        trainer.fit(**given, checkpoint=whole, progress=False)
    assert whole.read_bytes() == data
    assert [*whole.parent.iterdir()] == [whole]


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, n=name, f=call: (events.append(n), f(*args))[1])
    storage.write_whole(tmp_path / "run.npz", b"data")
    assert events == ["fsync", "replace", "fsync"]


# ---- kill -9


AT_EVERY_LINE = """
import os, signal, sys
from pathlib import Path
from support.internals import storage
from support.processes import run_python

place = Path(os.environ["PLACE"])
old, new = b"old" * 100, b"new" * 200
found = []
for line in range(1000):
    storage.write_whole(place, old)
    if not (child := os.fork()):
        seen = 0

        def trace(frame, event, argument):
            global seen
            seen += event == "line"
            if seen > line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        storage.write_whole(place, new)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found.append(place.read_bytes())
    if not os.WIFSIGNALED(status):
        break
assert {*found} == {old, new} and found == sorted(found, key=new.__eq__), found
print(line)
"""


def test_killed_at_any_line_of_a_save_a_file_is_whole(tmp_path):
    assert int(run_python(AT_EVERY_LINE, PLACE=str(tmp_path / "run.npz"))) > 10


KILLED = """
import sys
import numpy as np
from support.training import MeanSquared, Momentum
from lstm_fast import LSTM, optim
from lstm_fast.training import Batch, Checkpoint, Trainer

rng = np.random.default_rng(0)
x = rng.standard_normal((3, 2, 64)).astype(np.float32)
model = LSTM(64, 128, seed=0)
y = rng.standard_normal((3, 2, 128)).astype(np.float32)
trainer = Trainer(model, MeanSquared(), Momentum(-0.01))
epochs = int(sys.argv[2])
trainer.fit([Batch(x, y)] * 5, epochs=epochs, checkpoint=Checkpoint(sys.argv[1], 1), progress=False)
print(trainer.updates, sum(map(float, model.state_dict()["bias_hh_l0"])))
"""


def child(place, epochs):
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.getenv("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(place), str(epochs)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_kill_9_loses_nothing(tmp_path):
    """Killed at random moments, nearly all of them in a save, it comes to the same end."""
    rng = np.random.default_rng(0)
    place = tmp_path / "run.npz"
    before = 0, 0
    for _ in range(6):
        process = child(place, 10**6)
        written = changed = place.stat().st_mtime_ns if place.exists() else 0
        start = time.monotonic()
        while changed == written and time.monotonic() < start + 60:
            time.sleep(0.001)
            changed = place.stat().st_mtime_ns if place.exists() else 0
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        tree = checkpoints.unpack(place.read_bytes(), place)
        now = tree["updates"], tree["epoch"]
        assert now > before
        before = now
    epochs = before[1] + 2
    (out, _), (expected, _) = (
        child(path, epochs).communicate(timeout=100) for path in (place, tmp_path / "other.npz")
    )
    assert out == expected and out.startswith(f"{5 * epochs} ")


# ---- several processes


@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_processes_go_on_from_one_file(tmp_path, monkeypatch, size):
    place = tmp_path / "run.npz"

    def run(comm, place=None, epochs=3):
        rank = comm.Get_rank()
        trainer = Trainer(noisy(), MeanSquared(), Momentum(), comm=comm, seed=7)
        source = data(4, seed=rank)
        check = data(1, seed=20 + rank)
        history = trainer.fit(
            *(source, check, epochs), checkpoint=place and Checkpoint(place, 3), progress=False
        )
        assert trainer.updates == 4 * epochs == len(history.loss)
        return bits(trainer.model), str(trainer.model.random_state()), history.loss.tobytes()

    expected = Threads(size).run(run)
    assert len({random for _, random, _ in expected}) == size
    kept = keep_every_checkpoint(monkeypatch, tmp_path)
    assert Threads(size).run(lambda comm: run(comm, place)) == expected
    assert len(kept) == 4 + 3  # by the first process alone
    monkeypatch.undo()
    for path in kept:
        assert Threads(size).run(lambda comm, path=path: run(comm, path)) == expected
    [error, *_] = Threads(size + 1).run(lambda comm: run(comm, kept[0]))
    assert isinstance(error, ValueError)
    assert str(error).endswith(f"is of {size} processes, not {size + 1}")


def test_a_broken_file_stops_all_processes(tmp_path):
    place = tmp_path / "run.npz"
    place.write_bytes(b"broken")

    def run(comm):
        Trainer(new_lstm(), MeanSquared(), Momentum(), comm=comm).fit(data(), checkpoint=place)

    assert [type(error) for error in Threads(2).run(run)] == [ValueError] * 2
