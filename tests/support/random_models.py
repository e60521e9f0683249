"""Random models of blocks, and what they are trained with, as strategies of hypothesis."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from lstm_fast import LSTM, nn, optim
from support.blocks import ACTIVATIONS
from support.comparing import in_dtype
from support.ragged import LENGTHS, padding_of

BY_ROW = ["Linear", "LayerNorm", "Activation", "Softmax", "Dropout", "Sequential"]
OVER_TIME = ["LSTM", "LSTM", "LSTM", "Last", "Pool"]
LOSSES = ["CrossEntropy", "MeanSquared", "BinaryCrossEntropy", "Absolute", "Huber", "Quantile"]
# Those without kinks, at which differences would err.
SMOOTH = ["Sigmoid", "Tanh", "Softsign", "Softplus", ("ScaledTanh", 1.3, 0.7), ("Affine", 0.6, 0.3)]
SMOOTH_LOSSES = LOSSES[:3]


class Spec(NamedTuple):
    """The name of a block's class, its settings, and the blocks in it."""

    kind: str
    settings: dict[str, Any]
    inside: tuple["Spec", ...] = ()


class Problem(NamedTuple):
    """A model and its training. Arrays are (T, B, ...)."""

    blocks: tuple[Spec, ...]
    batch_first: bool
    x: np.ndarray  # exact in float32; numbers where the first block is an Embedding
    lengths: np.ndarray | None
    loss: Spec
    optimizer: Spec
    clip_norm: float | None
    seed: int  # of parameters, states and targets


# ---- strategies


@st.composite
def problems(draw, smooth=False):
    """Return problems; smooth ones have derivatives everywhere, which gradients are."""
    T, B, V, columns = (draw(st.integers(1, most)) for most in (6, 5, 9, 17))
    rng = np.random.default_rng(seed := draw(st.integers(0, 2**32 - 1)))
    first: tuple[Spec, ...] = ()
    x = normal(rng, (T, B, columns), np.float64)
    if draw(st.booleans()):
        padding = None if smooth else draw(st.none() | st.integers(0, V - 1))
        settings = {"vocabulary": V, "columns": columns, "padding_index": padding}
        first, x = (Spec("Embedding", settings),), rng.integers(0, V, (T, B))
    later, columns, _ = draw(chains(columns, True, smooth))
    assume(has_parameters(first + later))
    lengths = draw(st.none() | st.sampled_from([*LENGTHS]))
    return Problem(
        blocks=first + later,
        batch_first=draw(st.booleans()),
        x=x,
        lengths=None if lengths is None else LENGTHS[lengths](rng, T, B).copy(),
        loss=draw(losses(columns, smooth)),
        optimizer=draw(optimizers()),
        clip_norm=draw(st.none() | st.floats(0.01, 1.0)),
        seed=seed,
    )


@st.composite
def chains(draw, columns, timed, smooth, nested=False):
    """Return blocks that follow one another, their columns, and whether these have time steps."""
    specs: list[Spec] = []
    for _ in range(draw(st.integers(1, 3 if nested else 5))):
        kind = draw(st.sampled_from((OVER_TIME if timed else []) + BY_ROW[: 5 if nested else 6]))
        if kind == "Sequential":
            inside, columns, timed = draw(chains(columns, timed, smooth, nested=True))
            specs.append(Spec(kind, {}, inside))
            continue
        settings = draw(settings_of(kind, columns, smooth))
        specs.append(Spec(kind, settings))
        columns = columns_after(kind, settings, columns)
        timed = timed and kind not in ("Last", "Pool")
    return tuple(specs), columns, timed


@st.composite
def settings_of(draw, kind, columns, smooth):
    """Return settings of a block that takes so many columns."""
    bias = draw(st.booleans())
    if kind == "Linear":
        return {"input_size": columns, "output_size": draw(st.integers(1, 17)), "bias": bias}
    if kind == "LayerNorm":  # of few columns it amplifies roundings, the less the larger eps is
        return {"columns": columns, "eps": draw(st.sampled_from([0.01, 0.1])), "bias": bias}
    if kind == "Activation":
        return {"function": draw(st.sampled_from(SMOOTH if smooth else ACTIVATIONS))}
    if kind == "Dropout":
        return {"rate": draw(st.sampled_from([0.0, 0.5]))}
    if kind == "Last":
        directions = draw(st.sampled_from([1, 2, 2])) if columns % 2 == 0 else 1
        return {"directions": directions, "reverse": directions == 1 and draw(st.booleans())}
    if kind == "Pool":
        return {"kind": "mean" if smooth else draw(st.sampled_from(["mean", "max"]))}
    if kind == "LSTM":
        H = draw(st.integers(1, 17))
        return {
            "input_size": columns,
            "hidden_size": H,
            "num_layers": draw(st.integers(1, 2)),
            "bias": bias,
            "bidirectional": draw(st.booleans()),
            "proj_size": draw(st.integers(0, H - 1)),
        }
    return {}


def columns_after(kind, settings, columns):
    """Return the columns of what a block returns."""
    if kind == "LSTM":
        directions = 2 if settings["bidirectional"] else 1
        return directions * (settings["proj_size"] or settings["hidden_size"])
    return settings.get("output_size", columns)


def has_parameters(specs):
    """Return whether there is anything to train."""
    kinds = ("Embedding", "Linear", "LayerNorm", "LSTM")
    return any(spec.kind in kinds or has_parameters(spec.inside) for spec in specs)


@st.composite
def losses(draw, columns, smooth):
    """Return losses of so many columns."""
    kind = draw(st.sampled_from(SMOOTH_LOSSES if smooth else LOSSES))
    if kind == "CrossEntropy":
        ignored = draw(st.sampled_from([-100, 0]))
        smoothing = draw(st.sampled_from([0.0, 0.2]))
        return Spec(kind, {"ignore_index": ignored, "label_smoothing": smoothing})
    if kind == "Huber":
        return Spec(kind, {"delta": draw(st.sampled_from([0.3, 1.0]))})
    if kind == "Quantile":
        several = [(n + 1) / (columns + 1) for n in range(columns)]
        return Spec(kind, {"quantiles": draw(st.sampled_from([0.8, several]))})
    return Spec(kind, {})


@st.composite
def optimizers(draw):
    """Return optimisers.

    A large eps keeps those that divide by a gradient's size from enlarging what is rounded to 0.
    """
    kind = draw(st.sampled_from(["SGD", "Adam", "AdamW", "RMSprop"]))
    settings = {"lr": 0.05, "weight_decay": draw(st.sampled_from([0.0, 0.1]))}
    if kind in ("SGD", "RMSprop"):
        settings["momentum"] = draw(st.sampled_from([0.0, 0.9]))
    if kind == "SGD":
        settings["nesterov"] = settings["momentum"] > 0 and draw(st.booleans())
    else:
        settings["eps"] = 0.1
    return Spec(kind, settings)


# ---- a problem in the package


class Arguments(NamedTuple):
    """What training takes besides x. States are (h, c) by the names on the way to their block."""

    state: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]
    dstate: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]  # gradients of those after
    target: np.ndarray
    weight: np.ndarray | None  # of targets


class Ours:
    """The model of a problem, with random parameters and arguments, the same in every dtype."""

    def __init__(self, problem, dtype):
        self.batch_first, self.lengths = problem.batch_first, problem.lengths
        self.clip_norm = problem.clip_norm
        self.model = sequential(problem.blocks, batch_first=self.batch_first, dtype=dtype)
        rng = np.random.default_rng(problem.seed)
        self.model.load_state_dict(
            {name: scaled(rng, a.shape, dtype) for name, a in self.model.state_dict().items()}
        )
        kind, options, _ = problem.loss
        self.loss = getattr(nn, kind)(**options, batch_first=self.batch_first)
        kind, options, _ = problem.optimizer
        self.optimizer = getattr(optim, kind)(**options)
        x = in_dtype(problem.x, dtype).copy()
        if self.lengths is not None:  # what is beyond them is not read
            x[padding_of(self.lengths, len(x))] = 10**6 if x.dtype.kind == "i" else np.nan
        self.x = self.turned(x)
        y, state = self.model(self.x, lengths=self.lengths)
        self.arguments = draw_arguments(problem.loss, rng, self.outside(y), state, dtype)

    def turned(self, array):
        """Return an array with time first as the model has it, or the other way round."""
        return array.swapaxes(0, 1) if self.batch_first else array

    def outside(self, y):
        """Return what the model returns, or is like that, with time first, or back again."""
        return self.turned(y) if self.model.keeps_time else y

    def infer(self):
        """Return y and the states by name."""
        state = nested(self.arguments.state)
        return self._named(*self.model(self.x, state, lengths=self.lengths))

    def train(self):
        """Make an update without dropout; return results and gradients by name."""
        without_dropout(self.model)
        state, dstate = nested(self.arguments.state), nested(self.arguments.dstate)
        y, after, cache = self.model.forward(self.x, state, lengths=self.lengths)
        loss, dy = self._loss(y)
        dx, before, grads = self.model.backward(dy, dstate, cache)
        found = {"loss": np.array(loss)} | self._named(y, after)
        if dx is not None:
            found["dx"] = self.turned(dx)
        for path, (dh, dc) in paths(before):
            found |= {f"dh0 {path}": dh, f"dc0 {path}": dc}
        found |= {f"d {name}": grad.copy() for name, grad in grads.items()}
        if self.clip_norm is not None:
            optim.clip_by_global_norm(grads, self.clip_norm)
        self.optimizer.step(self.model, grads)
        return found

    def value(self):
        """Return what `train` differentiates: the loss, and the states times their gradients."""
        y, after = self.model(self.x, nested(self.arguments.state), lengths=self.lengths)
        of_states = (
            (part * slope).sum()
            for path, pair in paths(after)
            for part, slope in zip(pair, self.arguments.dstate[path], strict=True)
        )
        return self._loss(y)[0] + sum(of_states)

    def _loss(self, y):
        target, weight = self.arguments.target, self.arguments.weight
        weight = None if weight is None else self.outside(weight)
        lengths = self.lengths if self.model.keeps_time else None
        return self.loss(y, self.outside(target), weight, lengths)

    def _named(self, y, state):
        found = {"y": self.outside(y)}
        for path, (h, c) in paths(state):
            found |= {f"hn {path}": h, f"cn {path}": c}
        return found


def sequential(specs, **common):
    """Return a model of blocks, with these settings of all of them."""
    blocks = []
    for spec in specs:
        if spec.kind == "Sequential":
            blocks.append(sequential(spec.inside, **common))
        else:
            kind = LSTM if spec.kind == "LSTM" else getattr(nn, spec.kind)
            blocks.append(kind(**spec.settings, **common))
    return nn.Sequential(*blocks)


def without_dropout(model):
    """Set all rates of dropout to 0."""
    for block in model:
        if isinstance(block, nn.Sequential):
            without_dropout(block)
        elif isinstance(block, nn.Dropout):
            block.rate = 0.0


def draw_arguments(loss, rng, y, state, dtype):
    """Return random arguments for y, (T, B, columns) or (B, columns), and the model's states.

    There are weights or none; some are 0.
    """
    before, dafter = (
        {
            path: (normal(rng, h.shape, dtype), normal(rng, c.shape, dtype))
            for path, (h, c) in paths(state)
        }
        for _ in range(2)
    )
    by_row = loss.kind == "CrossEntropy" or isinstance(loss.settings.get("quantiles"), list)
    shape = y.shape[:-1] if by_row else y.shape
    target, weight = normal(rng, shape, dtype), abs(normal(rng, shape, dtype))
    if loss.kind == "CrossEntropy":
        target = rng.integers(0, y.shape[-1], shape)
    elif loss.kind == "BinaryCrossEntropy":
        target = abs(target) % 1
    weight[rng.random(shape) < 0.2] = 0
    return Arguments(before, dafter, target, weight if rng.random() < 0.5 else None)


def normal(rng, shape, dtype):
    """Return random numbers, the same in every dtype."""
    return np.asarray(rng.standard_normal(shape)).astype(np.float32).astype(dtype)


def scaled(rng, shape, dtype):
    """Return random parameters: sums of their products with numbers of size 1 have this size."""
    return normal(rng, shape, dtype) / dtype.type(2) ** np.ceil(np.log2(shape[-1]) / 2)


def paths(state, path=()):
    """Return each (h, c) of the states of a model, with the names on the way to it."""
    if not isinstance(state, dict):
        return [(path, state)]
    return [found for name, inner in state.items() for found in paths(inner, (*path, name))]


def nested(by_path):
    """Return the states of a model from (h, c) by the names on the way to them."""
    state: dict[str, Any] = {}
    for path, pair in by_path.items():
        inner = state
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = pair
    return state
