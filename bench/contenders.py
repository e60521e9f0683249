"""LSTMs of several packages, each with its best settings, for `python -m bench`.

A contender is a function of `Arguments` and a number of threads that returns a function without
arguments, which computes what `Arguments.expected` lists; None where the package has no such LSTM.
Weights and arguments are converted to the package's own arrays before, so that what is timed is the
computation. Of streaming it computes one step and carries the state from call to call.
"""

import time
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from typing import Any

import numpy as np

import lstm_fast

from .onnx_model import onnx_model
from .problems import Arguments

__all__ = ["CONTENDERS", "THREADS_OF_THE_CALL", "Bound", "version"]

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
    """Return the fastest of PyTorch's ways at this problem.

    `torch.nn.LSTM` runs on oneDNN, which packs the weights again at every call (slow for short
    sequences and large layers), or without it on PyTorch's own operators; one step may also go
    through `torch.nn.LSTMCell`, and streaming does.
    """
    torch, p = import_module("torch"), a.problem
    torch.set_num_threads(threads)
    settings = (p.I, p.H, p.layers, True, False, 0.0, p.bidirectional)
    lstm = torch.nn.LSTM(*settings, dtype=getattr(torch, p.dtype))
    lstm.load_state_dict({name: torch.tensor(value) for name, value in a.state_dict.items()})
    cell = torch.nn.LSTMCell(p.I, p.H)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):  # shared by both modules
        setattr(cell, name, getattr(lstm, f"{name}_l0"))
    x, h0, c0 = (torch.tensor(v, requires_grad=p.action == "training") for v in (a.x, a.h0, a.c0))
    dy, lengths = torch.tensor(a.dy), None if a.lengths is None else torch.tensor(a.lengths)
    rnn, onednn = torch.nn.utils.rnn, torch.backends.mkldnn

    def on_onednn() -> Any:
        if lengths is None:
            y, states = lstm(x, (h0, c0))
        else:
            packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, states = lstm(packed, (h0, c0))
            y, _ = rnn.pad_packed_sequence(y, total_length=p.T)
        return y, *states

    def on_own_operators() -> Any:
        onednn.enabled = False
        try:
            return on_onednn()
        finally:
            onednn.enabled = True

    def as_cell() -> Any:
        h, c = cell(x[0], (h0[0], c0[0]))
        return h[None], h, c

    state = h0[0], c0[0]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def streaming() -> Any:
        nonlocal state
        state = cell(x[0], state)
        return state[0]

    def bind(way: Callable[[], Any]) -> Bound:
        if p.action == "training":
            inputs = [x, h0, c0, *lstm.parameters()]
            return lambda: torch.autograd.grad(way()[0], inputs, dy)
        return torch.inference_mode()(way)  # type: ignore[no-any-return]

    if p.action == "streaming":
        return streaming  # type: ignore[no-any-return]
    one_step = p.T == 1 and p.layers == 1 and not (p.bidirectional or p.ragged)
    ways = [on_onednn, on_own_operators, *([as_cell] if one_step else [])]
    return fastest([bind(way) for way in ways])


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

    def streaming() -> Any:
        feeds["h0"], feeds["c0"] = session.run(["hn", "cn"], feeds)
        return feeds["h0"][-1]

    return streaming if p.action == "streaming" else lambda: session.run(["y", "hn", "cn"], feeds)


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
    feeds = {"x": a.x, "h0": a.h0.copy(), "c0": a.c0.copy()}

    def inference() -> Any:
        found = request.infer(feeds, share_inputs=True, share_outputs=True)
        return tuple(found[n] for n in range(3))

    def streaming() -> Any:
        y, feeds["h0"][...], feeds["c0"][...] = inference()
        return y

    return streaming if p.action == "streaming" else inference


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
        return y, hn[None], cn[None]

    def gradients(*arguments: Any) -> Any:
        _, pull_back = jax_.vjp(lambda *v: forward(*v)[0], *arguments)
        return pull_back(dy)

    compiled = jax_.jit(gradients if p.action == "training" else forward)
    ready = jax_.block_until_ready

    def streaming() -> Any:
        y, *arrays[1:] = ready(compiled(*arrays, *weights))
        return y

    return streaming if p.action == "streaming" else lambda: ready(compiled(*arrays, *weights))


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
# Those that take the number of threads whenever they are bound; to the others it is a setting of
# the process, from its start.
THREADS_OF_THE_CALL = ("lstm_fast", "torch", "onnxruntime", "openvino")


def version(name: str) -> str:
    """Return the version of a contender."""
    return lstm_fast.__version__ if name == "lstm_fast" else metadata.version(name)


def fastest(calls: Sequence[Bound]) -> Bound:
    """Return the function that is fastest at its best, within 20 ms or one call for each."""
    return min(calls, key=least_time)


def least_time(call: Bound) -> float:
    call()  # the first call may allocate and compile
    least, start = float("inf"), time.perf_counter()
    end = start
    while end - start < 0.02:
        before = time.perf_counter()
        call()
        end = time.perf_counter()
        least = min(least, end - before)
    return least
