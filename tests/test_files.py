"""Blocks, models and streams in files: what comes back, what is refused, what a crash leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.processes import run_python

import lstm_fast as lf
from lstm_fast import LSTM, nn

pytest.importorskip("safetensors", reason="files need safetensors: pip install '.[files]'")
import safetensors
import safetensors.numpy

OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True, "merge": "sum", "batch_first": True},
    {"proj_size": 2, "bias": False, "dtype": np.float64},
    {"peephole": True, "coupled": True, "clip": 3.0, "cell_clip": 2.0},
    {"activations": ("HardSigmoid", ("LeakyRelu", 0.2), "Tanh")},
    {"layer_norm": True, "zoneout": (0.1, 0.2), "recurrent_dropout": 0.3},
    {"layer_norm": "gates", "coupled": True, "peephole": True},
    {"reverse": True, "init": "keras", "forget_bias": 2.0, "matmul": "packed"},
]


def model():
    return nn.Sequential(
        embed=nn.Embedding(9, 4, seed=0),
        inner=nn.Sequential(lstm=LSTM(4, 5, seed=1), norm=nn.LayerNorm(5)),
        act=nn.Activation(("LeakyRelu", 0.2)),
        drop=nn.Dropout(0.25),
        head=nn.Linear(5, 3, seed=2),
    )


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert type(one) is type(other)
    assert repr(one) == repr(other)
    assert [*ours] == [*theirs]
    assert all(map(np.array_equal, ours.values(), theirs.values()))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_lstm(tmp_path, options):
    lstm = LSTM(3, 4, seed=0, **options)
    lstm.save(tmp_path / "a.safetensors")
    again = lf.load(tmp_path / "a.safetensors")
    same(again, lstm)
    assert again.dtype == lstm.dtype


def test_sizes_of_each_layer(tmp_path):
    lstm = LSTM(3, (4, 6), num_layers=2, seed=0)
    lf.save(tmp_path / "a.safetensors", lstm)
    same(lf.load(tmp_path / "a.safetensors"), lstm)


def test_model(tmp_path):
    one = model()
    one.save(str(tmp_path / "m.safetensors"))
    other = lf.load(str(tmp_path / "m.safetensors"))
    same(other, one)
    x = np.arange(12).reshape(4, 3) % 9
    assert np.array_equal(one(x)[0], other(x)[0])


@pytest.mark.no_isa
def test_load_is_the_first_that_a_program_uses(tmp_path):
    names = [str(tmp_path / f"{n}.safetensors") for n in range(3)]
    for name, one in zip(names, (model(), LSTM(3, 4), LSTM(3, 4).stream()), strict=True):
        one.save(name)
        code = f"import lstm_fast as lf; print(type(lf.load({name!r})).__name__)"
        assert run_python(code).strip() == type(one).__name__


BLOCKS = [
    nn.Last(2, dtype=np.float64),
    nn.Pool("max", batch_first=True),
    nn.Flatten(batch_first=True),
    nn.Softmax(),
    nn.Linear(2, 3, bias=False),
    nn.LayerNorm(3, 1e-3, bias=False),
    nn.Embedding(4, 2, padding_index=1),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_block(tmp_path, block):
    block.save(tmp_path / "b.safetensors")
    same(lf.load(tmp_path / "b.safetensors"), block)


@pytest.mark.parametrize("block", [LSTM(3, 4, 2, seed=0), LSTM(3, (4, 5), 2, seed=0)], ids=repr)
def test_stream(tmp_path, block):
    stream = block.stream(2)
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    stream.step(x[0])
    stream.save(tmp_path / "s.safetensors")
    again = lf.load(tmp_path / "s.safetensors")
    same(again.lstm, block)
    assert np.array_equal(again.step(x[1]), stream.step(x[1]))


def test_stream_of_a_model(tmp_path):
    stream = model().stream(2)
    stream.step([1, 2])
    lf.save(tmp_path / "s.safetensors", stream)
    again = lf.load(tmp_path / "s.safetensors")
    assert np.array_equal(again.step([3, 4]), stream.step([3, 4]))


def rewritten(path, change):
    """Change the description in a file."""
    with safetensors.safe_open(path, framework="numpy") as file:
        about = file.metadata()
    arrays = safetensors.numpy.load_file(path)
    what = json.loads(about["lstm_fast"])
    change(what)
    path.write_bytes(safetensors.numpy.save(arrays, {"lstm_fast": json.dumps(what)}))


class TestRefused:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "a.safetensors"
        LSTM(3, 4, seed=0).save(path)
        return path

    def test_a_newer_version(self, path):
        rewritten(path, lambda what: what.update(version=2))
        with pytest.raises(ValueError, match=r"newer lstm_fast .*: update"):
            lf.load(path)

    def test_no_description(self, path):
        path.write_bytes(safetensors.numpy.save(LSTM(3, 4).state_dict()))
        with pytest.raises(ValueError, match="load_state_dict"):
            lf.load(path)

    def test_another_file(self, path):
        path.write_bytes(b"no safetensors")
        with pytest.raises(ValueError, match="no safetensors file"):
            lf.load(path)
        with pytest.raises(FileNotFoundError, match="path: there is no file"):
            lf.load(path.with_name("absent"))

    def test_a_short_file(self, path):
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(ValueError, match="no safetensors file"):
            lf.load(path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda what: what["block"].update(kind="Popen"),
            lambda what: what["block"].update(kind="Block"),
            lambda what: what["block"]["options"].update(hidden_size=5),
            lambda what: what["block"]["options"].update(hidden_size="4"),
            lambda what: what["block"]["options"].update(unknown=1),
            lambda what: what["block"]["options"].pop("hidden_size"),
            lambda what: what["block"].pop("options"),
            lambda what: what.pop("block"),
            lambda what: what.update(block=3),
            lambda what: what.update(stream={"batch_size": 0}),
            lambda what: what.update(stream=3),
        ],
    )
    def test_a_lie(self, path, change):
        rewritten(path, change)
        with pytest.raises(ValueError, match=r"a\.safetensors: "):
            lf.load(path)

    def test_a_block_that_nobody_knows(self, tmp_path):
        class Other(LSTM):
            pass

        with pytest.raises(TypeError, match="Other is no block of lstm_fast"):
            Other(3, 4).save(tmp_path / "a.safetensors")
        assert not [*tmp_path.iterdir()]
        with pytest.raises(TypeError, match="block: expected a block"):
            lf.save(tmp_path / "a.safetensors", 3)

    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            LSTM(3, 4).save(tmp_path / "absent" / "a.safetensors")


def test_nothing_stays_of_a_failed_save(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    LSTM(3, 4, seed=0).save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        LSTM(3, 4, seed=1).save(path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_permissions_are_those_of_new_files_and_stay(tmp_path):
    path, plain = tmp_path / "a.safetensors", tmp_path / "plain"
    plain.touch()
    LSTM(3, 4).save(path)
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    LSTM(3, 4).save(path)
    assert path.stat().st_mode & 0o777 == 0o640


SAVES = """
import sys, lstm_fast
lstms = [lstm_fast.LSTM(64, 64, seed=seed) for seed in range(2)]
print("ready", flush=True)
while True:
    for lstm in lstms:
        lstm.save(sys.argv[1])
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.safetensors"
    values = [LSTM(64, 64, seed=seed).state_dict()["bias_hh_l0"] for seed in range(2)]
    for n in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVES, path], stdout=subprocess.PIPE, text=True
        )
        child.stdout.readline()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(0.003 * n)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = lf.load(path).state_dict()["bias_hh_l0"]
        assert any(np.array_equal(found, value) for value in values)
