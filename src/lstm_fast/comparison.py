"""Fair timing of LSTMs: same arguments, results checked first, same threads, turn by turn."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

import lstm_fast
from lstm_fast import reference
from lstm_fast.peers import WEIGHTS, Array, Bound, Peer

__all__ = ["Case", "limit_threads", "median_times"]

TOLERANCE = 1e-5  # of the largest element: float32 sums of a few thousand terms err by about 1e-6

# Seconds. OpenBLAS has its idle threads spin for 2**26 clock cycles, about 20 ms; OpenMP and
# ONNX Runtime, less. Until then they take the CPUs from the LSTM that is timed next.
PAUSE = 0.03
BURST = 0.01  # seconds; with 2 ms, two threads on two CPUs were measured up to 4 times slower


class Case:
    """Random weights and arguments of one shape, and the results that every peer must have.

    The methods bind a peer to the arguments, compare its results with those of
    `lstm_fast.reference` in float64, raise RuntimeError if they differ by more than ``TOLERANCE``
    of the largest element, and return the function that was checked, ready to be timed.

    Parameters
    ----------
    T, B, I, H : int
        Steps, batch rows, inputs, units.
    seed : int, default 0
        Of the generator. Weights are uniform in +-1/sqrt(H), the arguments standard normal.

    Attributes
    ----------
    state_dict : dict of str to ndarray
        PyTorch's names and shapes: weight_ih_l0 (4H, I), weight_hh_l0 (4H, H), two biases (4H,).
    x, dy : ndarray, shapes (T, B, I) and (T, B, H)
        Input, and the gradient of the loss with respect to the output.
    h0, c0 : ndarray, shape (1, B, H)
        Initial state.
    """

    def __init__(self, T: int, B: int, I: int, H: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shapes = ((4 * H, I), (4 * H, H), (4 * H,), (4 * H,))
        bound = 1 / np.sqrt(H)
        self.state_dict: dict[str, Array] = {
            name: rng.uniform(-bound, bound, shape).astype(np.float32)
            for name, shape in zip(WEIGHTS, shapes, strict=True)
        }
        self.x, self.h0, self.c0, self.dy = (
            rng.standard_normal(shape, np.float32)
            for shape in ((T, B, I), (1, B, H), (1, B, H), (T, B, H))
        )

    def forward(self, peer: Peer) -> Bound:
        """Return the peer's forward pass, checked."""
        call = peer.forward(self.x, self.h0, self.c0)
        _check(peer, ("y", "hn", "cn"), call(), self._expected[0])
        return call

    def training(self, peer: Peer) -> Bound:
        """Return the peer's training step, forward and backward, with its gradients checked."""
        call = peer.training(self.x, self.h0, self.c0, self.dy)
        _check(peer, ("dx", "dh0", "dc0", *WEIGHTS), call(), self._expected[1])
        return call

    def streaming(self, peer: Peer) -> Bound:
        """Return the peer's streaming step, checked over the T steps of x; it stays at the last."""
        x_t = np.empty_like(self.x[0])
        call = peer.streaming(x_t, self.h0, self.c0)
        for x, expected in zip(self.x, self._expected[0][0], strict=True):
            x_t[...] = x
            _check(peer, ("y_t",), (call(),), (expected,))
        return call

    @cached_property
    def _expected(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Results of the reference in float64: of the forward pass and of the training step."""
        w_ih, w_hh, b_ih, b_hh = (self.state_dict[name].astype(np.float64) for name in WEIGHTS)
        x, h0, c0, dy = (a.astype(np.float64) for a in (self.x, self.h0[0], self.c0[0], self.dy))
        y, (hn, cn), cache = reference.lstm_forward(x, w_ih, w_hh, b_ih, b_hh, h0, c0)
        dx, (dh0, dc0), grads = reference.lstm_backward(dy, None, None, cache)
        gradients = (dx, dh0, dc0, *(grads[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")))
        return (y, hn, cn), gradients


def _check(
    peer: Peer, names: Sequence[str], actual: Sequence[Any], expected: Sequence[Array]
) -> None:
    """Compare results by value; axes of length one, which frameworks add, do not matter."""
    for name, a, e in zip(names, actual, expected, strict=True):
        error = np.abs(np.asarray(a).reshape(e.shape) - e).max(initial=0)
        if not error <= TOLERANCE * np.abs(e).max(initial=0):
            raise RuntimeError(f"{peer.name}: {name} differs from the reference by {error:.1e}")


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Hold lstm_fast and NumPy's BLAS to a number of threads; other peers take it when built."""
    threadpool_limits = import_module("threadpoolctl").threadpool_limits
    before = lstm_fast.get_num_threads()
    lstm_fast.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads, user_api="blas"):
            yield
    finally:
        lstm_fast.set_num_threads(before)


def median_times(calls: Sequence[Bound], seconds: float) -> list[float]:
    """Return the median time of each function, in seconds.

    The functions take turns, so that a slow spell of the machine meets all of them alike. A turn
    is a pause, in which threads of the one before stop spinning, a burst of calls that are not
    timed, in which the system spreads woken threads over the CPUs, and a burst that is.

    Parameters
    ----------
    calls : sequence of callables
        Without arguments.
    seconds : float
        Time to spend on all of them; at least five turns are taken.
    """
    samples: list[list[float]] = []
    start = time.perf_counter()
    while len(samples) < 5 or time.perf_counter() - start < seconds:
        samples.append([_sample(call) for call in calls])
    return [float(median) for median in np.median(samples, axis=0)]


def _sample(call: Bound) -> float:
    """Return the mean time of a function after a pause and a burst of calls."""
    time.sleep(PAUSE)
    _burst(call)
    return _burst(call)


def _burst(call: Bound) -> float:
    """Return the mean time of the calls that fit into ``BURST``, at least one."""
    calls = 0
    start = now = time.perf_counter()
    while now - start < BURST or calls == 0:
        call()
        calls += 1
        now = time.perf_counter()
    return (now - start) / calls
