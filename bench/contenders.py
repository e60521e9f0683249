"""LSTMs of several packages, each with its best settings, for `python -m bench`.

A contender is a function of `Arguments` and a number of threads that returns a function without
arguments, which computes what `Arguments.expected` lists; None where the package has no such LSTM.
Weights and arguments are converted to the package's own arrays before.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

import lstm_fast
from lstm_fast.peers import fastest, onnx_model

from .problems import Arguments

__all__ = ["CONTENDERS", "Bound"]

Bound = Callable[[], Any]


def ours(a: Arguments, threads: int) -> Bound:
    p = a.problem
    settings = (p.I, p.H, p.layers, True, False, 0.0, p.bidirectional)
    lstm = lstm_fast.LSTM(*settings, dtype=p.dtype)
    lstm.load_state_dict(a.state_dict)
    lstm_fast.set_num_threads(threads)
    state = a.h0, a.c0

    def inference() -> Any:
        y, (hn, cn) = lstm(a.x, state, lengths=a.lengths)
        return y, hn, cn

    def training() -> Any:
        _, _, cache = lstm.forward(a.x, state, lengths=a.lengths)
        dx, (dh0, dc0), grads = lstm.backward(a.dy, None, cache)
        return dx, dh0, dc0, *grads.values()

    if p.action != "streaming":
        return {"inference": inference, "training": training}[p.action]
    stream = lstm.stream(p.B)
    stream.state = state
    x_t, out = a.x[0], np.empty((p.B, p.H), p.dtype)
    return lambda: stream.step(x_t, out)


def pytorch(a: Arguments, threads: int) -> Bound:
    """Return the faster of PyTorch's ways: on oneDNN, or on its own operators."""
    torch, p = import_module("torch"), a.problem
    torch.set_num_threads(threads)
    settings = (p.I, p.H, p.layers, True, False, 0.0, p.bidirectional)
    lstm = torch.nn.LSTM(*settings, dtype=getattr(torch, p.dtype))
    lstm.load_state_dict({name: torch.tensor(value) for name, value in a.state_dict.items()})
    x, h0, c0 = (torch.tensor(v, requires_grad=p.action == "training") for v in (a.x, a.h0, a.c0))
    dy, lengths = torch.tensor(a.dy), None if a.lengths is None else torch.tensor(a.lengths)
    rnn = torch.nn.utils.rnn

    def run() -> Any:
        if lengths is None:
            y, states = lstm(x, (h0, c0))
        else:
            packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, states = lstm(packed, (h0, c0))
            y, _ = rnn.pad_packed_sequence(y, total_length=p.T)
        return y, *states

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def inference() -> Any:
        return run()

    def training() -> Any:
        return torch.autograd.grad(run()[0], [x, h0, c0, *lstm.parameters()], dy)

    cell = torch.nn.LSTMCell(p.I, p.H)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, torch.nn.Parameter(torch.tensor(a.state_dict[f"{name}_l0"])))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def streaming() -> Any:
        return cell(x[0], (h0[0], c0[0]))[0]

    way = {"inference": inference, "training": training, "streaming": streaming}[p.action]

    def without_onednn() -> Any:
        torch.backends.mkldnn.enabled = False
        try:
            return way()
        finally:
            torch.backends.mkldnn.enabled = True

    return fastest([way, without_onednn])


def onnx_runtime(a: Arguments, threads: int) -> Bound | None:
    p = a.problem
    if p.action == "training" or p.dtype != "float32":
        return None
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    model = onnx_model(a.state_dict, ragged=p.ragged)
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": a.x, "h0": a.h0, "c0": a.c0}
    if a.lengths is not None:
        feeds["lengths"] = a.lengths.astype(np.int32)

    def inference() -> Any:
        y, hn, cn = session.run(["y", "hn", "cn"], feeds)
        return (y if p.action == "inference" else hn[-1]), hn, cn

    return inference if p.action == "inference" else lambda: inference()[0]


def openvino(a: Arguments, threads: int) -> Bound | None:
    p = a.problem
    if p.action == "training" or p.dtype != "float32" or p.ragged:
        return None
    core = import_module("openvino").Core()
    model = core.read_model(onnx_model(a.state_dict))
    model.reshape({"x": list(a.x.shape), "h0": list(a.h0.shape), "c0": list(a.c0.shape)})
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings | {"INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    feeds = {"x": a.x, "h0": a.h0, "c0": a.c0}

    def inference() -> Any:
        found = request.infer(feeds, share_inputs=True, share_outputs=True)
        return tuple(found[n] for n in range(3))

    return inference if p.action == "inference" else lambda: inference()[0]


def jax(a: Arguments, threads: int) -> Bound | None:
    """Return a jitted scan over steps, the input product before it; threads are the process's."""
    p = a.problem
    if p.layers > 1 or p.bidirectional or p.ragged:
        return None
    jax_, jnp = import_module("jax"), import_module("jax.numpy")
    jax_.config.update("jax_enable_x64", p.dtype == "float64")
    weights = [jnp.asarray(value) for value in a.state_dict.values()]
    arrays = [jnp.asarray(value) for value in (a.x, a.h0, a.c0)]
    dy, nn = jnp.asarray(a.dy), jax_.nn

    def forward(x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        projected, transposed = x @ w_ih.T + (b_ih + b_hh), w_hh.T

        def step(state: Any, at: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(at + h @ transposed, 4, -1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
            h = nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        (hn, cn), y = jax_.lax.scan(step, (h0[0], c0[0]), projected)
        return y, hn, cn

    def gradients(*arguments: Any) -> Any:
        _, pull_back = jax_.vjp(lambda *v: forward(*v)[0], *arguments)
        return pull_back(dy)

    compiled = jax_.jit(gradients if p.action == "training" else forward)
    ready = jax_.block_until_ready
    if p.action == "streaming":
        return lambda: ready(compiled(*arrays, *weights))[0]
    return lambda: ready(compiled(*arrays, *weights))


def keras(a: Arguments, threads: int) -> Bound | None:
    """Return a compiled layer of Keras on TensorFlow."""
    p = a.problem
    if (
        p.action != "inference"
        or p.dtype != "float32"
        or p.layers > 1
        or p.bidirectional
        or p.ragged
    ):
        return None
    tensorflow = import_module("tensorflow")
    threading = tensorflow.config.threading
    if threading.get_intra_op_parallelism_threads() != threads:
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(1)
    layer = tensorflow.keras.layers.LSTM(p.H, return_sequences=True, return_state=True)
    layer.build((p.B, p.T, p.I))
    w_ih, w_hh, b_ih, b_hh = a.state_dict.values()
    layer.set_weights([w_ih.T, w_hh.T, b_ih + b_hh])
    x = tensorflow.constant(a.x.swapaxes(0, 1))
    state = [tensorflow.constant(a.h0[0]), tensorflow.constant(a.c0[0])]
    compiled = tensorflow.function(lambda: layer(x, initial_state=state))

    def inference() -> Any:
        y, hn, cn = compiled()
        return tensorflow.transpose(y, (1, 0, 2)), hn, cn

    return inference


# By the name of the distribution whose version is reported.
CONTENDERS: dict[str, Callable[[Arguments, int], Bound | None]] = {
    "lstm_fast": ours,
    "torch": pytorch,
    "onnxruntime": onnx_runtime,
    "openvino": openvino,
    "jax": jax,
    "tensorflow": keras,
}
