"""Lower precision, speed and error: ``python -m bench.precision [THREADS]`` prints tables.

Inference of one layer at the shapes of the grid, all packages in one process and in turns; medians,
and the root of the mean square of the error of y beside the largest y, against the reference in
float64. Beside our times, the share of the roofline: of the peak or the bandwidth of this CPU in
that precision, whichever limits. Then how many times as fast we are as the best of the others, with
weights of 8 bits in that of our two ways which is the faster of those that err no more than it; and
a training step. A package that is not installed, or has no such precision on this CPU, is missing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

import lstm_fast

from . import findings
from .contenders import Bound, onnx_runtime, pytorch
from .machine import peaks_line
from .measure import sample
from .onnx_model import onnx_model
from .problems import GRID, Arguments, Problem
from .roofline import least_time, probe

__all__ = ["CONTENDERS", "error"]

SHAPES = [*GRID, (100, 8, 128, 128), (1, 1, 1024, 1024)]
TURNS = 7
Contender = Callable[[Arguments, int], Bound | None]


def ours(*precision: Any) -> Contender:
    """Return the contender that is this package, in float32 or with such weights and inputs."""

    def contender(a: Arguments, threads: int) -> Bound:
        lstm = lstm_fast.LSTM(a.problem.I, a.problem.H)
        lstm.load_state_dict(a.state_dict)
        used = lstm.quantize(*precision) if precision else lstm
        lstm_fast.set_num_threads(threads)
        return lambda: used(a.x, (a.h0, a.c0))[0]

    return contender


def of_pytorch(a: Arguments, threads: int) -> Bound:
    call = pytorch(a, threads)
    return lambda: call()[0]


def pytorch_bfloat16(a: Arguments, threads: int) -> Bound:
    """Return `torch.nn.LSTM` with weights, inputs and states of bfloat16."""
    torch = import_module("torch")
    torch.set_num_threads(threads)
    lstm = _lstm_of_pytorch(a).to(torch.bfloat16)
    x, h0, c0 = (torch.tensor(value).to(torch.bfloat16) for value in (a.x, a.h0, a.c0))
    return torch.inference_mode()(lambda: lstm(x, (h0, c0))[0].float())  # type: ignore[no-any-return]


def pytorch_int8(a: Arguments, threads: int) -> Bound:
    """Return PyTorch's dynamically quantised LSTM: one scale for a matrix of weights."""
    torch = import_module("torch")
    torch.set_num_threads(threads)
    whole = torch.nn.Sequential(_lstm_of_pytorch(a))
    (lstm,) = torch.ao.quantization.quantize_dynamic(whole, {torch.nn.LSTM}, dtype=torch.qint8)
    x, h0, c0 = (torch.tensor(value) for value in (a.x, a.h0, a.c0))
    return torch.inference_mode()(lambda: lstm(x, (h0, c0))[0])  # type: ignore[no-any-return]


def training_step(bfloat16: bool) -> Contender:
    """Return the contender that is forward and backward of this package."""

    def contender(a: Arguments, threads: int) -> Bound:
        lstm = lstm_fast.LSTM(a.problem.I, a.problem.H)
        lstm.matmul_precision = "bfloat16" if bfloat16 else "highest"
        lstm.load_state_dict(a.state_dict)
        lstm_fast.set_num_threads(threads)

        def step() -> Any:
            with lstm.writable():  # as an optimiser does: weights are packed in every step
                pass
            cache = lstm.forward(a.x)[2]
            return lstm.backward(a.dy, None, cache)[0]

        return step

    return contender


def pytorch_training(bfloat16: bool) -> Contender:
    """Return the same of `torch.nn.LSTM`, whose parameters and states are bfloat16, too."""

    def contender(a: Arguments, threads: int) -> Bound:
        torch = import_module("torch")
        torch.set_num_threads(threads)
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        lstm = _lstm_of_pytorch(a).to(dtype)
        dy, x = torch.tensor(a.dy).to(dtype), torch.tensor(a.x).to(dtype).requires_grad_()

        def step() -> Any:
            x.grad = None
            lstm.zero_grad()
            lstm(x)[0].backward(dy)
            return x.grad

        return step

    return contender


def _lstm_of_pytorch(a: Arguments) -> Any:
    torch = import_module("torch")
    lstm = torch.nn.LSTM(a.problem.I, a.problem.H)
    lstm.load_state_dict({name: torch.tensor(value) for name, value in a.state_dict.items()})
    return lstm


def of_onnx_runtime(a: Arguments, threads: int) -> Bound | None:
    call = onnx_runtime(a, threads)
    return None if call is None else lambda: call()[0][:, 0]


def onnx_runtime_int8(a: Arguments, threads: int, reduce_range: bool = False) -> Bound:
    """Return ONNX Runtime's DynamicQuantizeLSTM, with a scale for each row of the weights."""
    runtime, quantization = import_module("onnxruntime"), import_module("onnxruntime.quantization")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "small.onnx")
        whole.write_bytes(onnx_model(a.state_dict))
        quantization.quantize_dynamic(
            whole,
            small,
            op_types_to_quantize=["LSTM"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=reduce_range,
        )
        model = small.read_bytes()
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": a.x, "h0": a.h0, "c0": a.c0}
    return lambda: session.run(["y"], feeds)[0][:, 0]


def onnx_runtime_7_bits(a: Arguments, threads: int) -> Bound:
    """Return the same with weights of 7 bits, whose sums do not saturate on CPUs without VNNI."""
    return onnx_runtime_int8(a, threads, reduce_range=True)


def openvino_bfloat16(a: Arguments, threads: int) -> Bound | None:
    core = import_module("openvino").Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    model = core.read_model(onnx_model(a.state_dict))
    model.reshape({"x": list(a.x.shape), "h0": list(a.h0.shape), "c0": list(a.c0.shape)})
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
    compiled = core.compile_model(model, "CPU", settings | {"INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    feeds = {"x": a.x, "h0": a.h0, "c0": a.c0}
    return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)[0][:, 0]


CONTENDERS: dict[str, Contender] = {
    "lstm_fast, float32": ours(),
    "lstm_fast, bfloat16": ours("bfloat16"),
    "lstm_fast, int8": ours("int8"),
    "lstm_fast, int8 with x too": ours("int8", "int8"),
    "PyTorch, float32": of_pytorch,
    "PyTorch, bfloat16": pytorch_bfloat16,
    "PyTorch, int8": pytorch_int8,
    "ONNX Runtime, float32": of_onnx_runtime,
    "ONNX Runtime, int8": onnx_runtime_int8,
    "ONNX Runtime, 7 bits": onnx_runtime_7_bits,
    "OpenVINO, bfloat16": openvino_bfloat16,
}
TRAINED = {
    "lstm_fast, float32": training_step(False),
    "lstm_fast, bfloat16": training_step(True),
    "PyTorch, float32": pytorch_training(False),
    "PyTorch, bfloat16": pytorch_training(True),
}
# Ours, the more exact one first, and the others that are beside them.
COMPARED = {
    "bfloat16": (["lstm_fast, bfloat16"], ["PyTorch, bfloat16", "OpenVINO, bfloat16"]),
    "8 bits": (
        ["lstm_fast, int8", "lstm_fast, int8 with x too"],
        ["PyTorch, int8", "ONNX Runtime, int8", "ONNX Runtime, 7 bits"],
    ),
}
WIDENED = "widened" in lstm_fast.show_config()["isas"]["precisions"]["bfloat16"]
# Kinds of our products with x and with h, of `roofline.KINDS`.
PRODUCTS = {
    "lstm_fast, float32": ("float32", "float32"),
    "lstm_fast, bfloat16": ("bfloat16", "bfloat16"),
    "lstm_fast, int8": ("widened" if WIDENED else "mixed", "int8"),
    "lstm_fast, int8 with x too": ("int8", "int8"),
}


def error(a: Arguments, call: Bound) -> float:
    """Return the root of the mean square of the error of y, beside the largest y."""
    y = a.expected[0]
    return float(np.sqrt(np.mean((np.asarray(call()) - y) ** 2)) / np.abs(y).max())


def medians(calls: dict[str, Bound]) -> dict[str, float]:
    """Return the seconds of each call."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, call in calls.items():
            samples[name].append(sample(call, samples[name]))
    return {name: float(np.median(found)) for name, found in samples.items()}


def bound(contenders: dict[str, Contender], a: Arguments, threads: int) -> dict[str, Bound]:
    """Return the calls of what is installed and has such a precision."""
    calls: dict[str, Bound] = {}
    for name, contender in contenders.items():
        try:
            call = contender(a, threads)
        except ImportError:
            continue
        if call is not None:
            calls[name] = call
    return calls


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("threads", type=int, nargs="?", default=1)
    parser.add_argument("--output", type=Path, help="a JSON file of the findings")
    options = parser.parse_args(arguments)
    found, threads = findings.begin(), options.threads
    limits = probe(threads)
    found |= {"threads": threads, "limits": limits, "cells": []}
    print(peaks_line(limits, threads, ("float32", "bfloat16", "int8")))
    print("| T, B, I, H | | us | speed | roofline | error |\n|---|---|--:|--:|--:|--:|")
    for shape in SHAPES:
        given = Arguments(Problem("precision", *shape))
        calls = bound(CONTENDERS, given, threads)
        errors = {name: error(given, call) for name, call in calls.items()}
        times = medians(calls)
        whole = times["lstm_fast, float32"]
        for name, seconds in times.items():
            least = name in PRODUCTS and least_time(given.problem, limits, threads, PRODUCTS[name])
            cell = {"shape": shape, "name": name, "seconds": seconds, "error": errors[name]}
            cell |= {"speed": whole / seconds, "roofline": least / seconds if least else None}
            found["cells"].append(cell)
            print(row(cell), flush=True)
    found["compared"] = compared(found["cells"])
    found["training"] = trained(threads)
    findings.write(found, options.output)


def compared(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Print and return how many times as fast we are as the best of the others, by precision."""
    ratios: dict[str, dict[str, float]] = {name: {} for name in COMPARED}
    for shape in dict.fromkeys(tuple(cell["shape"]) for cell in cells):
        by_name = {cell["name"]: cell for cell in cells if tuple(cell["shape"]) == shape}
        for precision, (ours, others) in COMPARED.items():
            best = min(
                (by_name[n] for n in others if n in by_name),
                key=itemgetter("seconds"),
                default=None,
            )
            if best is not None:
                exact = [by_name[n] for n in ours if by_name[n]["error"] <= best["error"]]
                fastest = min(exact or [by_name[ours[0]]], key=itemgetter("seconds"))
                ratios[precision][str(shape)] = best["seconds"] / fastest["seconds"]
    found = {}
    for precision, of_shapes in ratios.items():
        if of_shapes:
            mean = float(np.exp(np.mean(np.log([*of_shapes.values()]))))
            found[precision] = {"shapes": of_shapes, "mean": mean}
            print(f"\n{precision}, beside the best of the others; geometric mean {mean:.2f}")
            print(", ".join(f"{shape}: {ratio:.2f}" for shape, ratio in of_shapes.items()))
    return found


def trained(threads: int) -> list[dict[str, Any]]:
    """Print and return seconds of training steps, of at least 16 rows and 256 units."""
    cells = []
    print("\n| training step of T, B, I, H | | us | speed |\n|---|---|--:|--:|")
    for shape in (shape for shape in SHAPES if shape[1] >= 16 and shape[3] >= 256):
        given = Arguments(Problem("precision", *shape), exact=False)
        times = medians(bound(TRAINED, given, threads))
        for name, found in times.items():
            cell = {"shape": shape, "name": name, "seconds": found}
            cell["speed"] = times["lstm_fast, float32"] / found
            cells.append(cell)
            sizes = ", ".join(map(str, shape))
            print(f"| {sizes} | {name} | {found * 1e6:,.0f} | {cell['speed']:.2f} |", flush=True)
    return cells


def row(cell: dict[str, Any]) -> str:
    """Return a row of the table."""
    sizes = ", ".join(map(str, cell["shape"]))
    share = "" if cell["roofline"] is None else f"{100 * cell['roofline']:.0f} %"
    numbers = f"{cell['seconds'] * 1e6:,.0f} | {cell['speed']:.2f} | {share} | {cell['error']:.1e}"
    return f"| {sizes} | {cell['name']} | {numbers} |"


if __name__ == "__main__":
    main()
