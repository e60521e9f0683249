"""Lower precision, speed and error: ``python -m bench.precision [THREADS]`` prints a table.

Inference of one layer, all packages in one process and in turns; medians, and the root of the mean
square of the error of y beside the largest y, against the reference in float64. Beside our times,
the share of the roofline: of the peak or the bandwidth of this CPU in that precision, whichever
limits. A package that is not installed, or has no such precision on this CPU, is missing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import lstm_fast

from . import findings
from .contenders import Bound, onnx_runtime, pytorch
from .machine import peaks_line
from .measure import sample
from .onnx_model import onnx_model
from .problems import Arguments, Problem
from .roofline import least_time, probe

__all__ = ["CONTENDERS", "error"]

SHAPES = [
    (1, 1, 512, 512),
    (1, 1, 1024, 1024),
    (100, 1, 128, 128),
    (100, 8, 128, 128),
    (50, 16, 512, 512),
    (25, 64, 1024, 1024),
]
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


def bound(a: Arguments, threads: int) -> dict[str, Bound]:
    """Return the calls of what is installed and has such a precision."""
    calls: dict[str, Bound] = {}
    for name, contender in CONTENDERS.items():
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
        calls = bound(given, threads)
        errors = {name: error(given, call) for name, call in calls.items()}
        times = medians(calls)
        whole = times["lstm_fast, float32"]
        for name, seconds in times.items():
            least = name in PRODUCTS and least_time(given.problem, limits, threads, PRODUCTS[name])
            cell = {"shape": shape, "name": name, "seconds": seconds, "error": errors[name]}
            cell |= {"speed": whole / seconds, "roofline": least / seconds if least else None}
            found["cells"].append(cell)
            print(row(cell), flush=True)
    findings.write(found, options.output)


def row(cell: dict[str, Any]) -> str:
    """Return a row of the table."""
    sizes = ", ".join(map(str, cell["shape"]))
    share = "" if cell["roofline"] is None else f"{100 * cell['roofline']:.0f} %"
    numbers = f"{cell['seconds'] * 1e6:,.0f} | {cell['speed']:.2f} | {share} | {cell['error']:.1e}"
    return f"| {sizes} | {cell['name']} | {numbers} |"


if __name__ == "__main__":
    main()
