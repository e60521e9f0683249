"""LSTMs of several packages behind one small interface, to compare their speed.

A `Peer` is one layer, one direction, float32, built from PyTorch-named weights. Its ``forward``,
``training`` and ``streaming`` bind arguments and return a function without arguments, so that what
is timed is the computation and not the conversion of arrays. A framework is imported when its peer
is built; `available_peers` says which are missing and why. `lstm_fast.comparison` checks and times.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module, metadata
from typing import Any

import numpy as np
import numpy.typing as npt

import lstm_fast
from lstm_fast import reference

__all__ = [
    *("PEERS", "WEIGHTS", "Array", "Bound", "Peer"),
    *("available_peers", "fastest", "onnx_model"),
]

Array = npt.NDArray[np.floating[Any]]
Bound = Callable[[], Any]

# Of the one layer, in the order in which gradients are returned.
WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class Peer(ABC):
    """One LSTM layer, with fixed weights, in one implementation.

    Parameters
    ----------
    state_dict : mapping of str to ndarray of float32
        The arrays ``WEIGHTS`` with PyTorch's shapes: (4H, I), (4H, H), (4H,), (4H,).
    threads : int
        How many threads may work. lstm_fast and NumPy have a setting of the process instead:
        `lstm_fast.comparison.limit_threads`.
    """

    name: str
    package: str  # distribution whose version is shown
    trains = True  # whether there is a backward pass

    @abstractmethod
    def __init__(self, state_dict: Mapping[str, Array], threads: int) -> None: ...

    @property
    def version(self) -> str:
        """Version of the package."""
        return metadata.version(self.package)

    @abstractmethod
    def forward(self, x: Array, h0: Array, c0: Array) -> Bound:
        """Return a function that computes (y, hn, cn) for inference.

        The arguments have the shapes (T, B, I), (1, B, H) and (1, B, H).
        """

    def training(self, x: Array, h0: Array, c0: Array, dy: Array) -> Bound:
        """Return a function that runs forward and backward, given the gradient dy of y.

        It returns the gradients of x, h0, c0 and ``WEIGHTS``.
        """
        raise NotImplementedError(f"{self.name} has no backward pass")

    @abstractmethod
    def streaming(self, x_t: Array, h0: Array, c0: Array) -> Bound:
        """Return a function that advances by one step and returns y_t, (B, H).

        It reads ``x_t``, shape (B, I), at each call and carries the state from call to call.
        """


class LstmFast(Peer):
    """`lstm_fast.LSTM` and `lstm_fast.Stream`."""

    name = "lstm_fast"
    package = "lstm_fast"

    def __init__(self, state_dict: Mapping[str, Array], threads: int) -> None:
        rows, I = state_dict["weight_ih_l0"].shape
        self._lstm = lstm_fast.LSTM(I, rows // 4)
        self._lstm.load_state_dict(dict(state_dict))

    def forward(self, x: Array, h0: Array, c0: Array) -> Bound:
        def run() -> tuple[Array, ...]:
            y, (hn, cn) = self._lstm(x, (h0, c0))
            return y, hn, cn

        return run

    def training(self, x: Array, h0: Array, c0: Array, dy: Array) -> Bound:
        def run() -> tuple[Array, ...]:
            _, _, cache = self._lstm.forward(x, (h0, c0))
            dx, (dh0, dc0), grads = self._lstm.backward(dy, None, cache)
            return dx, dh0, dc0, *(grads[name] for name in WEIGHTS)

        return run

    def streaming(self, x_t: Array, h0: Array, c0: Array) -> Bound:
        stream = self._lstm.stream(batch_size=len(x_t))
        stream.state = h0, c0
        out = np.empty(h0.shape[1:], np.float32)
        return lambda: stream.step(x_t, out)


class Reference(Peer):
    """`lstm_fast.reference`: plain NumPy, with the BLAS that NumPy was built with."""

    name = "NumPy reference"
    package = "numpy"

    def __init__(self, state_dict: Mapping[str, Array], threads: int) -> None:
        w_ih, w_hh, b_ih, b_hh = (state_dict[name] for name in WEIGHTS)
        self._layer = partial(reference.lstm_forward, w_ih=w_ih, w_hh=w_hh, b_ih=b_ih, b_hh=b_hh)

    def forward(self, x: Array, h0: Array, c0: Array) -> Bound:
        def run() -> tuple[Array, ...]:
            y, (hn, cn), _ = self._layer(x, h0=h0[0], c0=c0[0])
            return y, hn, cn

        return run

    def training(self, x: Array, h0: Array, c0: Array, dy: Array) -> Bound:
        def run() -> tuple[Array, ...]:
            _, _, cache = self._layer(x, h0=h0[0], c0=c0[0])
            dx, (dh0, dc0), grads = reference.lstm_backward(dy, None, None, cache)
            return dx, dh0, dc0, grads["w_ih"], grads["w_hh"], grads["b_ih"], grads["b_hh"]

        return run

    def streaming(self, x_t: Array, h0: Array, c0: Array) -> Bound:
        h, c = h0[0], c0[0]

        def run() -> Any:
            nonlocal h, c
            y, (h, c), _ = self._layer(x_t[None], h0=h, c0=c)
            return y[0]

        return run


class PyTorch(Peer):
    """The fastest of PyTorch's ways to run a layer, found by timing them when binding.

    `torch.nn.LSTM` runs on oneDNN, which packs the weights again at every call (slow for short
    sequences and large layers), or without it on PyTorch's own operators; a single step may also
    go through `torch.nn.LSTMCell`. Tensors are made before, and inference runs in inference mode.
    """

    name = "PyTorch"
    package = "torch"

    def __init__(self, state_dict: Mapping[str, Array], threads: int) -> None:
        self._torch = torch = import_module("torch")
        torch.set_num_threads(threads)
        rows, I = state_dict["weight_ih_l0"].shape
        self._lstm = torch.nn.LSTM(I, rows // 4)
        self._cell = torch.nn.LSTMCell(I, rows // 4)
        for name in WEIGHTS:  # one parameter, shared by both modules
            parameter = torch.nn.Parameter(torch.tensor(state_dict[name]))
            setattr(self._lstm, name, parameter)
            setattr(self._cell, name.removesuffix("_l0"), parameter)

    def _routes(self, T: int) -> list[Callable[..., Any]]:
        """Return functions of (x, h0, c0) that compute (y, hn, cn)."""
        backend = self._torch.backends.mkldnn

        def on_onednn(x: Any, h0: Any, c0: Any) -> Any:
            y, (hn, cn) = self._lstm(x, (h0, c0))
            return y, hn, cn

        def on_own_operators(x: Any, h0: Any, c0: Any) -> Any:
            backend.enabled = False
            try:
                y, (hn, cn) = self._lstm(x, (h0, c0))
            finally:
                backend.enabled = True
            return y, hn, cn

        def as_cell(x: Any, h0: Any, c0: Any) -> Any:
            h, c = self._cell(x[0], (h0[0], c0[0]))
            return h[None], h, c

        return [on_onednn, on_own_operators, as_cell][: 3 if T == 1 else 2]

    def forward(self, x: Array, h0: Array, c0: Array) -> Bound:
        torch = self._torch
        tensors = [torch.tensor(a) for a in (x, h0, c0)]

        def bind(route: Callable[..., Any]) -> Bound:
            @torch.inference_mode()  # type: ignore[untyped-decorator]
            def run() -> Any:
                return route(*tensors)

            return run  # type: ignore[no-any-return]

        return fastest([bind(route) for route in self._routes(len(x))])

    def training(self, x: Array, h0: Array, c0: Array, dy: Array) -> Bound:
        torch = self._torch
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, h0, c0)]
        d_output = torch.tensor(dy)
        inputs = [*tensors, *(getattr(self._lstm, name) for name in WEIGHTS)]

        def bind(route: Callable[..., Any]) -> Bound:
            return lambda: torch.autograd.grad(route(*tensors)[0], inputs, d_output)

        return fastest([bind(route) for route in self._routes(len(x))])

    def streaming(self, x_t: Array, h0: Array, c0: Array) -> Bound:
        torch = self._torch
        x = torch.from_numpy(x_t)  # shares memory
        state = torch.tensor(h0[0]), torch.tensor(c0[0])

        @torch.inference_mode()  # type: ignore[untyped-decorator]
        def run() -> Any:
            nonlocal state
            state = self._cell(x, state)
            return state[0]

        return run  # type: ignore[no-any-return]


class OnnxRuntime(Peer):
    """One ONNX ``LSTM`` node in ONNX Runtime, called with NumPy arrays; inference only."""

    name = "ONNX Runtime"
    package = "onnxruntime"
    trains = False

    def __init__(self, state_dict: Mapping[str, Array], threads: int) -> None:
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        self._run = runtime.InferenceSession(
            onnx_model(state_dict), options, providers=["CPUExecutionProvider"]
        ).run

    def forward(self, x: Array, h0: Array, c0: Array) -> Bound:
        feeds = {"x": x, "h0": h0, "c0": c0}
        return lambda: self._run(["y", "hn", "cn"], feeds)

    def streaming(self, x_t: Array, h0: Array, c0: Array) -> Bound:
        feeds = {"x": x_t[None], "h0": h0, "c0": c0}

        def run() -> Any:
            feeds["h0"], feeds["c0"] = self._run(["hn", "cn"], feeds)
            return feeds["h0"][0]

        return run


def onnx_model(state_dict: Mapping[str, Array], ragged: bool = False) -> bytes:
    """Return a model of ONNX ``LSTM`` nodes, one for each layer: x, h0, c0 to y, hn, cn.

    T and B are free; y has ONNX's shape (T, D, B, H); `ragged` adds an input ``lengths``. ONNX
    orders the gates i, o, f, g, has a leading axis of directions in the weights, and keeps both
    biases in one row of 8H.
    """
    onnx, helper = import_module("onnx"), import_module("onnx.helper")
    rows, I = state_dict["weight_ih_l0"].shape
    H = rows // 4
    ends = ["", "_reverse"] if "weight_ih_l0_reverse" in state_dict else [""]
    layers = sum(name.startswith("weight_ih") for name in state_dict) // len(ends)
    tensors: dict[str, Any] = {}
    if layers > 1:
        tensors = {"shape": np.array([0, 0, len(ends) * H]), "axis": np.array([0])}

    def stacked(layer: int, *names: str) -> Array:
        """Return an array of ONNX: by direction, gates reordered, the arrays of `names` joined."""
        directions = []
        for end in ends:
            blocks = []
            for name in names:
                i, f, g, o = np.split(state_dict[f"{name}_l{layer}{end}"], 4)
                blocks += [i, o, f, g]
            directions.append(np.concatenate(blocks))
        return np.stack(directions)

    nodes = []
    for n in range(layers):
        tensors[f"w{n}"], tensors[f"r{n}"] = stacked(n, "weight_ih"), stacked(n, "weight_hh")
        tensors[f"b{n}"] = stacked(n, "bias_ih", "bias_hh")
        last = n == layers - 1
        states = [f"h0_{n}", f"c0_{n}"] if layers > 1 else ["h0", "c0"]
        if layers > 1:
            tensors[f"low{n}"] = np.array([n * len(ends)])
            tensors[f"high{n}"] = np.array([(n + 1) * len(ends)])
            nodes += [
                helper.make_node("Slice", [whole, f"low{n}", f"high{n}", "axis"], [part])
                for whole, part in zip(("h0", "c0"), states, strict=True)
            ]
        inputs = [f"y{n - 1}" if n else "x", f"w{n}", f"r{n}", f"b{n}"]
        results = [
            "y" if last else f"raw{n}",
            *(f"{s}{n}" * (layers > 1) or s for s in ("hn", "cn")),
        ]
        nodes.append(
            helper.make_node(
                "LSTM",
                [*inputs, "lengths" if ragged else "", *states],
                results,
                hidden_size=H,
                direction="bidirectional" if len(ends) == 2 else "forward",
            )
        )
        if not last:
            nodes.append(helper.make_node("Transpose", [f"raw{n}"], [f"t{n}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"t{n}", "shape"], [f"y{n}"]))
    if layers > 1:
        nodes += [
            helper.make_node("Concat", [f"{s}{n}" for n in range(layers)], [s], axis=0)
            for s in ("hn", "cn")
        ]

    def values(**shapes: list[int | str]) -> list[Any]:
        make = helper.make_tensor_value_info
        return [make(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    state: list[int | str] = [layers * len(ends), "B", H]
    inputs = values(x=["T", "B", I], h0=state, c0=state)
    if ragged:
        lengths = helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, ["B"])
        inputs.append(lengths)
    graph = helper.make_graph(
        nodes,
        "lstm",
        inputs,
        values(y=["T", len(ends), "B", H], hn=state, cn=state),
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    # Opset 14 and IR 8, of 2021, are read by every ONNX Runtime since 1.10.
    opsets = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


PEERS: tuple[type[Peer], ...] = (LstmFast, Reference, PyTorch, OnnxRuntime)


def available_peers(
    state_dict: Mapping[str, Array], threads: int
) -> tuple[list[Peer], dict[str, str]]:
    """Build the peers that are installed.

    Returns
    -------
    peers : list of Peer
        In the order of ``PEERS``.
    missing : dict of str to str
        The reason, by name, why a peer cannot be imported.
    """
    peers, missing = [], {}
    for peer in PEERS:
        try:
            peers.append(peer(state_dict, threads))
        except ImportError as error:
            missing[peer.name] = str(error)
    return peers, missing


def fastest(calls: Sequence[Bound]) -> Bound:
    """Return the function that is fastest at its best, within 20 ms or one call for each."""
    return min(calls, key=_least_time)


def _least_time(call: Bound) -> float:
    call()  # the first call may allocate and compile
    times: list[float] = []
    while not times or sum(times) < 0.02:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
