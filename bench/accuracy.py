"""What lower precision costs in accuracy: ``python -m bench.accuracy`` prints tables.

Beside float32 with the same weights: the error of y over 10,000 steps; bits a character of
``examples/language_model.py``, and of the same trained in bfloat16; right decisions of
``examples/speech_recognition.py``. ``LSTM_FAST_DATA`` or ``--data`` names the folder of their data.
"""

import argparse
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import lstm_fast
from lstm_fast import nn, optim, training

from . import findings

__all__ = ["PRECISIONS", "error_by_time", "main"]

PRECISIONS: dict[str, tuple[Any, ...]] = {  # arguments of `quantize`
    "bfloat16": ("bfloat16",),
    "int8": ("int8",),
    "int8, inputs int8": ("int8", "int8"),
    "int8, inputs float32": ("int8", "float32"),
}
STEPS, WINDOW = 10_000, 1000
Floats = npt.NDArray[np.float32]
Found = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, nargs=2, default=(4, 8), help="of characters, digits")
    parser.add_argument("--output", type=Path, help="a JSON file of the findings")
    options = parser.parse_args(arguments)
    found, trained, x = characters(Path(options.data), options.epochs[0])
    noise = np.random.default_rng(0).standard_normal((STEPS, 1, 64)).astype(np.float32)
    found["drift"] = {
        "random, forget bias 1": drift(random_lstm(1.0), noise),
        "random, forget bias 3": drift(random_lstm(3.0), noise),
        "trained on characters": drift(trained, x),
    }
    found["digits"] = digits(Path(options.data), options.epochs[1])
    print(report(found))
    findings.write(found, options.output)


# ---- over time


def random_lstm(forget_bias: float) -> lstm_fast.LSTM:
    return lstm_fast.LSTM(64, 64, num_layers=2, forget_bias=forget_bias, seed=0)


def error_by_time(y: Floats, exact: Floats) -> tuple[list[float], list[float]]:
    """Return the root of the mean square and the largest error in each `WINDOW` of steps."""
    errors = np.abs(y.astype(np.float64) - exact)
    windows = [errors[begin : begin + WINDOW] for begin in range(0, len(errors), WINDOW)]
    return [rms(one) for one in windows], [float(one.max()) for one in windows]


def rms(errors: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def drift(lstm: lstm_fast.LSTM, x: Floats) -> Found:
    """Return errors of y by time in each precision."""
    exact = lstm(x)[0]
    found = {}
    for name, precision in PRECISIONS.items():
        mean, most = error_by_time(lstm.quantize(*precision)(x)[0], exact)
        found[name] = {"rms": mean, "largest": most}
    return found


# ---- models


def characters(folder: Path, epochs: int) -> tuple[Found, lstm_fast.LSTM, Floats]:
    """Train the character model in float32 and in bfloat16, with the same batches.

    Returns
    -------
    found : dict
        ``bits``: of a held-out character in each precision, for the model trained in float32.
        ``training``: for both trainings the loss after each epoch, the mean of its last 50 updates,
        and bits of a held-out character in float32.
    lstm : LSTM
        That of the model trained in float32.
    x : ndarray, shape (STEPS, 1, 64)
        Its inputs for the first held-out characters.
    """
    example: Any = import_module("examples.language_model")
    text, known = example.read(folder)
    split = len(text) * 9 // 10
    pieces, held_out = (
        training.truncated(part, example.STEPS, example.BATCH)
        for part in (text[:split], text[split:])
    )

    def bits(model: nn.Sequential) -> float:
        trainer = training.Trainer(model, nn.CrossEntropy(), optim.SGD(0.1))
        return float(trainer.evaluate(held_out) / np.log(2))

    models: dict[str, nn.Sequential] = {}
    of_training = {}
    for name, precision in (("float32", "highest"), ("bfloat16", "bfloat16")):
        model = example.new_model(len(known))
        model["lstm"].matmul_precision = precision
        trainer = training.Trainer(
            model, nn.CrossEntropy(), optim.Adam(example.RATE), clip_norm=example.CLIP
        )
        history = trainer.fit(pieces, epochs=epochs)
        model["lstm"].matmul_precision = "highest"
        losses = [float(history.loss[max(0, end - 50) : end].mean()) for end in history.steps]
        of_training[name] = {"loss": losses, "bits": bits(model)}
        models[name] = model
    model = models["float32"]
    of_inference = {"float32": of_training["float32"]["bits"]}
    for name, arguments in PRECISIONS.items():
        of_inference[name] = bits(model.quantize(*arguments))
    lstm: Any = model["lstm"]
    x = model["embed"](text[split : split + STEPS, None])[0]
    return {"bits": of_inference, "training": of_training}, lstm, x


def digits(folder: Path, epochs: int) -> Found:
    """Return how many held-out digits are recognised, and how many decisions differ from float32.

    The classifier is trained in float32.
    """
    example: Any = import_module("examples.speech_recognition")
    x, spoken, held_out = example.read(folder)
    learnt, test = (
        training.batches([x[n] for n in side], spoken[side], seed=0)
        for side in (np.flatnonzero(~held_out), np.flatnonzero(held_out))
    )
    model = example.new_model()
    example.train(model, learnt, epochs)

    def decisions(used: nn.Sequential) -> npt.NDArray[np.intp]:
        found = [used(batch.x, lengths=batch.lengths)[0].argmax(1) for batch in test.epoch(0)]
        return np.concatenate(found)

    targets = np.concatenate([batch.target for batch in test.epoch(0)])
    exact = decisions(model)
    found = {"float32": {"right": int((exact == targets).sum()), "others": 0}}
    for name, precision in PRECISIONS.items():
        decided = decisions(model.quantize(*precision))
        right, others = int((decided == targets).sum()), int((decided != exact).sum())
        found[name] = {"right": right, "others": others}
    return {"recordings": len(targets), "found": found}


# ---- tables


def report(found: Found) -> str:
    """Return the findings as tables."""
    lines = ["| | bits a character | digits right | decided otherwise |", "|---|--:|--:|--:|"]
    count = found["digits"]["recordings"]
    for name, bits in found["bits"].items():
        one = found["digits"]["found"][name]
        lines.append(f"| {name} | {bits:.4f} | {one['right']} of {count} | {one['others']} |")
    lines += ["", "| trained in | loss at the end | bits a character |", "|---|--:|--:|"]
    for name, one in found["training"].items():
        lines.append(f"| {name} | {one['loss'][-1]:.4f} | {one['bits']:.4f} |")
    windows = f"rms, first {WINDOW} steps | last {WINDOW} | largest of all"
    lines += ["", f"| | | {windows} |", "|---|---|--:|--:|--:|"]
    for model, ways in found["drift"].items():
        for name, one in ways.items():
            errors = (one["rms"][0], one["rms"][-1], max(one["largest"]))
            lines.append(f"| {model} | {name} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
