"""A loss, an optimizer, data and a model of blocks, all in plain NumPy; processes as threads."""

import threading
from types import SimpleNamespace

import numpy as np

from lstm_fast import LSTM
from lstm_fast.training import Batch

from .internals import Layout

I, H = 3, 5


# ---- the parts of a training


class MeanSquared:
    """The mean over valid steps, and their weights, of the squares of the differences."""

    def __call__(self, y, target, weight=None, lengths=None):
        weights = self._weights(target, weight, lengths)
        scaled = weights / weights.sum()
        error = np.where(scaled > 0, y - target, 0)
        dy = (2 / y.shape[-1] * scaled * error).astype(y.dtype)
        return float(np.sum(scaled * np.square(error, dtype=np.float64)) / y.shape[-1]), dy

    def _weights(self, target, weight, lengths):
        weights = np.ones((*target.shape[:-1], 1))
        if weight is not None:
            weights *= weight
        if lengths is not None:
            weights[np.arange(len(target))[:, None] >= lengths] = 0
        return weights


class Counted(MeanSquared):
    """Says how much it counts."""

    def count(self, target, weight, lengths):
        return self._weights(target, weight, lengths).sum()


class Momentum:
    """Gradient descent with momentum."""

    def __init__(self, lr=0.1, momentum=0.9):
        self.lr, self.momentum, self.moments = lr, momentum, {}

    def step(self, model, grads):
        with model.writable() as parameters:
            for name, value in parameters.items():
                moment = self.moments.setdefault(name, np.zeros_like(value))
                moment *= self.momentum
                moment += grads[name]
                value -= self.lr * moment

    def state_dict(self):
        return {name: moment.copy() for name, moment in self.moments.items()}

    def load_state_dict(self, state_dict):
        self.moments = {name: moment.copy() for name, moment in state_dict.items()}


class Plateau:
    """Halves the learning rate when the validation loss is no less than before."""

    def __init__(self, lr):
        self.lr, self.last, self.told = lr, np.inf, []

    def __call__(self, step):
        return self.lr

    def tell(self, validation):
        self.lr *= 1.0 if validation < self.last else 0.5
        self.last = validation
        self.told.append(validation)

    def state_dict(self):
        return {"lr": self.lr, "last": self.last, "told": self.told}

    def load_state_dict(self, state_dict):
        self.lr, self.last = state_dict["lr"], state_dict["last"]
        self.told = [*state_dict["told"]]


class Chain:
    """LSTMs, one after the other, by name."""

    def __init__(self, **blocks):
        self.blocks = blocks
        self._parameters = SimpleNamespace(layout=self._layout())

    def state_dict(self):
        return {
            f"{name}.{key}": value
            for name, block in self.blocks.items()
            for key, value in block.state_dict().items()
        }

    def _layout(self):
        return Layout({key: value.shape for key, value in self.state_dict().items()}, np.float32)

    def forward(self, x, state=None, *, lengths=None):
        states, caches = {}, []
        for name, block in self.blocks.items():
            x, states[name], cache = block.forward(x, state and state[name], lengths=lengths)
            caches.append(cache)
        return x, states, caches

    def backward(self, dy, dstate, cache):
        grads = {}
        for (name, block), one in reversed([*zip(self.blocks.items(), cache, strict=True)]):
            dy, _, own = block.backward(dy, None, one)
            grads |= {f"{name}.{key}": value for key, value in own.items()}
        return dy, None, grads


def new_lstm(seed=0, **options):
    return LSTM(I, H, seed=seed, **options)


def data(n=4, T=6, B=4, seed=1, dtype=np.float32, **options):
    """Return batches, which an LSTM can learn: the targets are what another LSTM makes of x."""
    rng = np.random.default_rng(seed)
    teacher = LSTM(I, H, seed=99, dtype=dtype)
    xs = [rng.standard_normal((T, B, I)).astype(dtype) for _ in range(n)]
    return [Batch(x, teacher(x)[0], **options) for x in xs]


def bits(model):
    """Return all bits of the parameters."""
    return b"".join(value.tobytes() for value in model.state_dict().values())


# ---- processes as threads


def part_of(batch, size, rank):
    """Return the part of a batch that one of several processes has."""
    B = batch.x.shape[1]
    part = slice(rank * B // size, (rank + 1) * B // size)
    lengths = None if batch.lengths is None else batch.lengths[part]
    return batch._replace(x=batch.x[:, part], target=batch.target[:, part], lengths=lengths)


class Threads:
    """Communicators of so many threads, with the methods that are used of mpi4py's."""

    def __init__(self, size):
        self.size = size
        self._barrier = threading.Barrier(size, timeout=60)
        self._buffers = [None] * size
        self.messages = 0  # sums, of all threads together

    def run(self, function):
        """Call ``function(comm)`` in each thread, and return or raise what they do."""
        results = [None] * self.size

        def call(rank):
            try:
                results[rank] = function(Communicator(self, rank))
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=call, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def exchange(self, rank, buffer):
        self._buffers[rank] = buffer
        self._barrier.wait()
        found = [*self._buffers]
        return found

    def done(self):
        self._barrier.wait()


class Communicator:
    def __init__(self, threads, rank):
        self._threads, self._rank = threads, rank

    def Get_rank(self):
        return self._rank

    def Get_size(self):
        return self._threads.size

    def Allreduce(self, sendbuf, recvbuf):
        assert sendbuf.flags.c_contiguous and recvbuf.flags.c_contiguous
        self._threads.messages += 1
        recvbuf[...] = sum(self._threads.exchange(self._rank, sendbuf))
        self._threads.done()

    def Bcast(self, buf, root=0):
        assert buf.flags.c_contiguous
        found = self._threads.exchange(self._rank, buf)[root]
        assert found.shape == buf.shape and found.dtype == buf.dtype
        if self._rank != root:
            buf[...] = found
        self._threads.done()
