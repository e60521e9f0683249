"""`lstm_fast.cli`: commands that convert, inspect and compare models."""

import subprocess
import sys

import numpy as np
import pytest

import lstm_fast
from lstm_fast import LSTM, nn
from lstm_fast.cli.main import main

pytestmark = pytest.mark.no_isa
pytest.importorskip("safetensors", reason="files need safetensors")


@pytest.fixture
def model(tmp_path):
    """A file of a tagger, and the tagger."""
    made = nn.Sequential(
        embed=nn.Embedding(50, 8, seed=0),
        lstm=LSTM(8, 16, 2, bidirectional=True, seed=0),
        head=nn.Linear(32, 4, seed=0),
    )
    path = tmp_path / "model.safetensors"
    made.save(path)
    return path, made


def run(*arguments):
    """Return the exit code of a command in this process."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def test_inspect_prints_a_table(model, capsys):
    path, made = model
    assert run("inspect", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "kind", "sizes", "options", "dtype", "parameters"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["embed", "Embedding"],
        ["lstm", "LSTM"],
        ["head", "Linear"],
    ]
    assert "8 -> 16" in lines[2] and "num_layers=2" in lines[2] and "bidirectional=True" in lines[2]
    parameters = [int(line.split()[-1].replace(",", "")) for line in lines[1:]]
    assert sum(parameters) == sum(value.size for value in made.state_dict().values())
    assert len({len(line) for line in lines}) == 1


def test_convert_writes_the_same_model(model, tmp_path, capsys):
    path, made = model
    assert run("convert", path, tmp_path / "copy.safetensors") == 0
    copied = lstm_fast.load(tmp_path / "copy.safetensors")
    x = np.random.default_rng(0).integers(0, 50, (7, 3))
    np.testing.assert_array_equal(copied(x)[0], made(x)[0])
    assert "Embedding" in capsys.readouterr().out


def test_convert_from_arrays_of_a_state_dict(tmp_path, capsys):
    lstm = LSTM(3, 5, 2, seed=0)
    np.savez(tmp_path / "lstm.npz", **lstm.state_dict())
    assert run("convert", tmp_path / "lstm.npz", tmp_path / "lstm.safetensors") == 0
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(lstm_fast.load(tmp_path / "lstm.safetensors")(x)[0], lstm(x)[0])


def test_convert_to_arrays_and_back(model, tmp_path):
    path, made = model
    assert run("convert", path, tmp_path / "model.npz") == 0
    with np.load(tmp_path / "model.npz") as arrays:
        for name, value in made.state_dict().items():
            np.testing.assert_array_equal(arrays[name], value)


def test_verify_tells_same_models_from_others(model, tmp_path, capsys):
    path, made = model
    assert run("verify", path, "--against", path) == 0
    assert capsys.readouterr().out == "same: the largest difference is 0\n"
    with made.writable() as values:
        values["lstm.bias_hh_l1_reverse"][3] += 0.1
    made.save(tmp_path / "other.safetensors")
    assert run("verify", path, "--against", tmp_path / "other.safetensors") == 1
    assert capsys.readouterr().out.startswith("differ: the largest difference is 0.")


def test_verify_against_recorded_results(model, tmp_path, capsys):
    path, made = model
    x = np.random.default_rng(0).integers(0, 50, (7, 3))
    y = made(x)[0]
    np.savez(tmp_path / "recorded.npz", x=x, y=y)
    assert run("verify", path, "--against", tmp_path / "recorded.npz") == 0
    np.savez(tmp_path / "recorded.npz", x=x, y=y + 0.01)
    assert run("verify", path, "--against", tmp_path / "recorded.npz") == 1
    np.savez(tmp_path / "recorded.npz", x=x, y=y[1:])
    assert run("verify", path, "--against", tmp_path / "recorded.npz") == 1
    np.savez(tmp_path / "recorded.npz", x=x, y=np.full_like(y, np.nan))
    assert run("verify", path, "--against", tmp_path / "recorded.npz") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nothing.onnx"], "there is no file nothing.onnx"),
        (["inspect", "FOLDER/a.txt"], "expected one of .pt"),
        (["convert", "MODEL", "FOLDER/out.txt"], "expected one of .safetensors"),
        (["convert", "MODEL", "FOLDER/no/out.safetensors"], "there is no folder"),
        (["convert", "FOLDER/broken.safetensors", "FOLDER/out.npz"], "broken.safetensors"),
        (
            ["convert", "FOLDER/broken.npz", "FOLDER/out.npz"],
            "broken.npz: file: is no file of arrays",
        ),
        (["convert", "FOLDER/a.onnx", "FOLDER/out.npz", "--prefix", "a"], "no such option"),
        (["verify", "MODEL", "--against", "nothing.npz"], "nothing.npz"),
    ],
)
def test_mistakes_are_told_without_a_traceback(arguments, message, model, tmp_path, capsys):
    for name in ("a.txt", "a.onnx", "broken.safetensors", "broken.npz"):
        (tmp_path / name).write_bytes(b"no model")
    named = [
        argument.replace("FOLDER", str(tmp_path)).replace("MODEL", str(model[0]))
        for argument in arguments
    ]
    assert run(*named) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lstm-fast {arguments[0]}: ") and message in error
    assert not [*tmp_path.glob("out*")]


def test_the_version_loads_nothing():
    code = """
import sys
from lstm_fast.cli.main import main
try:
    main(["--version"])
except SystemExit as stop:
    assert stop.code == 0
loaded = {name for name in sys.modules if name.startswith("lstm_fast") or name == "numpy"}
assert loaded == {"lstm_fast", "lstm_fast.version", "lstm_fast.cli", "lstm_fast.cli.main"}, loaded
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, f"lstm_fast {lstm_fast.__version__}\n"), ran.stderr


def test_what_arrays_do_not_hold_is_not_lost_without_a_word(tmp_path, capsys):
    model = nn.Sequential(lstm=LSTM(3, 4, seed=0), last=nn.Last(), act=nn.Activation("Tanh"))
    model.save(tmp_path / "m.safetensors")
    for suffix in ("npz", "pt"):
        assert run("convert", tmp_path / "m.safetensors", tmp_path / f"out.{suffix}") == 2
        assert "last (Last), act (Activation) would be lost" in capsys.readouterr().err
    assert run("convert", tmp_path / "m.safetensors", tmp_path / "out.onnx", "--verify") == 2
    assert "m.safetensors is lstm_fast's own file" in capsys.readouterr().err
    LSTM(3, 4, coupled=True).save(tmp_path / "m.safetensors")
    assert run("convert", tmp_path / "m.safetensors", tmp_path / "m.npz") == 0
    assert run("inspect", tmp_path / "m.npz") == 2
    assert "m.npz: file: is a state_dict of an LSTM with options" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    assert run("convert", tmp_path / "a.npz", tmp_path / "out.npz") == 2
    assert f"{tmp_path / 'a.npz'}: LSTM: there is none" in capsys.readouterr().err


def test_layers_of_a_keras_file(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"other", b"lstm"]
        shapes = {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
        for layer, arrays in {"other": {"kernel": (3, 3, 3)}, "lstm": shapes}.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in arrays]
            for name, shape in arrays.items():
                group[f"{layer}/{name}:0"] = rng.standard_normal(shape).astype(np.float32)
    assert run("convert", tmp_path / "a.h5", tmp_path / "out.safetensors") == 2
    arguments = [tmp_path / "a.h5", tmp_path / "out.safetensors", "--layers"]
    assert run("convert", *arguments, "lstm") == 2
    assert "recurrent_activation was hard_sigmoid or sigmoid" in capsys.readouterr().err
    assert run("convert", *arguments, '{"lstm": {"recurrent_activation": "sigmoid"}}') == 0
    assert lstm_fast.load(tmp_path / "out.safetensors").hidden_size == 5


def test_each_command_has_help(capsys):
    for command in ("convert", "inspect", "verify", "config", "demo"):
        assert run(command, "--help") == 0
        assert len(capsys.readouterr().out.splitlines()) > 3
    assert run() == 0
    assert "verify" in capsys.readouterr().out
