"""The examples run, on a part of their data; what they reach, their users see."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_isa

EXAMPLES = Path(__file__).parents[1] / "examples"
DATA = Path(os.environ.get("LSTM_FAST_DATA", EXAMPLES.parents[1] / "shared/data"))
WITH_DATA = [path.stem for path in sorted(EXAMPLES.glob("*.py")) if '"--data"' in path.read_text()]


def run(name, *arguments):
    """Run an example where its picture may lie, and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"MPLBACKEND": "Agg"},
    )
    return done.returncode, done.stdout, done.stderr


def part_of(folder, name, lines=None, files=None, each=1):
    """Copy a part of the data: the first lines of a file, or each second one; or some files."""
    if not (DATA / name).exists():
        pytest.skip(f"no {name}: LSTM_FAST_DATA names the folder that it is in")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if files:
        for path in (DATA / name).glob(files):
            part_of(folder, f"{name}/{path.name}", lines)
    elif name.endswith(".gz"):
        with gzip.open(DATA / name, "rb") as source, gzip.open(target, "wb") as written:
            written.writelines(line for line, _ in zip(source, range(lines), strict=False))
    elif lines is None and each == 1:
        shutil.copy(DATA / name, target)
    else:
        target.write_text("".join((DATA / name).read_text().splitlines(True)[:lines:each]))


PARTS = {
    "language_model": [("tinyshakespeare/input.txt", 600)],
    "translation": [
        ("multi30k/train.en.gz", 300),
        ("multi30k/train.de.gz", 300),
        ("multi30k/test_2016_flickr.en.gz", 20),
        ("multi30k/test_2016_flickr.de.gz", 20),
    ],
    "forecasting": [("ett/ETTh1.csv", 12_200)],  # a year, four months and 680 hours
    "recommender": [("amazon_video_games/interactions.txt", 3000)],
}


def test_all_have_a_part_here():
    assert {*WITH_DATA} == {*PARTS, "speech_recognition", "anomaly_detection", "video_analysis"}


@pytest.mark.parametrize("name", WITH_DATA)
def test_missing_data_is_told(name, tmp_path):
    code, _, error = run(name, "--data", tmp_path)
    assert code == 1 and "is missing: --data or LSTM_FAST_DATA names the folder" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("name", WITH_DATA)
def test_an_example_runs(name, tmp_path):
    for file, lines in PARTS.get(name, ()):
        part_of(tmp_path, file, lines)
    if name == "speech_recognition":
        part_of(tmp_path, "fsdd/recordings", files="*_[1-6].wav")
    elif name == "anomaly_detection":
        part_of(tmp_path, "nab/data/realKnownCause", 2500, files="*.csv")
        part_of(tmp_path, "nab/labels/combined_windows.json")
    elif name == "video_analysis":
        part_of(tmp_path, "hand_gestures/point_history.csv", each=2)  # some of every gesture
    picture = tmp_path / "picture.png"
    code, out, error = run(name, "--data", tmp_path, "--epochs", 1, "--picture", picture)
    assert code == 0, error
    assert "LSTM" in out or "lstm_fast" in out
    drawn = "No picture" not in out + error and "matplotlib" not in out + error
    assert picture.is_file() == drawn


def test_the_copy_task_runs(tmp_path):
    code, out, error = run("copy_task", "--updates", 3, "--picture", tmp_path / "picture.png")
    assert code == 0, error
    assert out.count("forget bias") == 3
