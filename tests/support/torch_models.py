"""Models of blocks in PyTorch, under the same names: time before the batch, ragged or not."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from support.autograd import FUNCTIONS
from support.onnx_nodes import CONSTANTS
from support.random_models import nested, paths


class Theirs:
    """The model of a problem, in float64, with the parameters and arguments of ours."""

    def __init__(self, problem, ours):
        self.loss, self.clip_norm = problem.loss, problem.clip_norm
        self.lengths = None if problem.lengths is None else torch.tensor(problem.lengths)
        self.model = Chain(problem.blocks).double()
        self.model.load_state_dict({k: tensor(v) for k, v in ours.model.state_dict().items()})
        kind, options, _ = problem.optimizer
        self.optimizer = getattr(torch.optim, kind)(self.model.parameters(), **options)
        self.x = torch.tensor(problem.x)
        if self.lengths is not None:
            self.x[torch.arange(len(self.x))[:, None] >= self.lengths] = 0
        self.x.requires_grad_(self.x.is_floating_point())
        self.state, self.dstate = (
            {path: tuple(map(tensor, pair)) for path, pair in states.items()}
            for states in (ours.arguments.state, ours.arguments.dstate)
        )
        for h, c in self.state.values():
            h.requires_grad_()
            c.requires_grad_()
        self.target, weight = tensor(ours.arguments.target), ours.arguments.weight
        self.weight = None if weight is None else tensor(weight)

    def infer(self):
        """Return y and the states by name."""
        self.model.eval()
        with torch.no_grad():
            return named(*self.model(self.x, nested(self.state), self.lengths))

    def train(self):
        """Make an update without dropout; return results and gradients by name."""
        y, after = self.model(self.x, nested(self.state), self.lengths)
        loss = loss_of(self.loss, y, self.target, self.weight, self.lengths)
        total = loss
        for path, pair in paths(after):
            total = total + sum(
                (part * slope).sum() for part, slope in zip(pair, self.dstate[path], strict=True)
            )
        leaves = {f"d {name}": p for name, p in self.model.named_parameters()}
        for path, (h, c) in self.state.items():
            leaves |= {f"dh0 {path}": h, f"dc0 {path}": c}
        if self.x.requires_grad:
            leaves["dx"] = self.x
        grads = torch.autograd.grad(total, [*leaves.values()], materialize_grads=True)
        found = {name: grad.numpy().copy() for name, grad in zip(leaves, grads, strict=True)}
        for parameter, grad in zip(self.model.parameters(), grads, strict=False):
            parameter.grad = grad
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return {"loss": loss.detach().numpy()} | named(y, after) | found

    def parameters(self):
        """Return the parameters by name."""
        return {name: p.detach().numpy() for name, p in self.model.named_parameters()}


def tensor(array):
    """Return numbers in float64, integers as they are."""
    return torch.tensor(array if array.dtype.kind == "i" else array.astype(np.float64))


def named(y, state):
    """Return y and states by name."""
    found = {"y": y}
    for path, (h, c) in paths(state):
        found |= {f"hn {path}": h, f"cn {path}": c}
    return {name: value.detach().numpy() for name, value in found.items()}


class Chain(nn.Module):
    """Blocks one after the other, as `lstm_fast.nn.Sequential`."""

    def __init__(self, specs):
        super().__init__()
        for n, spec in enumerate(specs):
            inner = Chain(spec.inside) if spec.kind == "Sequential" else twin(spec)
            self.add_module(str(n), inner)

    def forward(self, x, state, lengths):
        """Return y and the states after, by the names of blocks."""
        after = {}
        for name, block in self.named_children():
            if isinstance(block, Chain):
                x, after[name] = block(x, state.get(name, {}), lengths)
            elif isinstance(block, nn.LSTM):
                x, after[name] = ragged_lstm(block, x, state[name], lengths)
            else:
                x = block(x, lengths) if isinstance(block, (Last, Pool)) else block(x)
            x = without_padding(x, lengths)
        return x, after


def twin(spec):
    """Return PyTorch's block."""
    settings = dict(spec.settings)
    if spec.kind == "Linear":
        return nn.Linear(settings["input_size"], settings["output_size"], settings["bias"])
    if spec.kind == "Embedding":
        return nn.Embedding(
            settings["vocabulary"], settings["columns"], padding_idx=settings["padding_index"]
        )
    if spec.kind == "LayerNorm":
        return nn.LayerNorm(settings.pop("columns"), **settings)
    if spec.kind == "Dropout":
        return nn.Dropout(settings["rate"])
    if spec.kind == "Softmax":
        return nn.Softmax(-1)
    own = {"LSTM": nn.LSTM, "Activation": Activation, "Last": Last, "Pool": Pool}
    return own[spec.kind](**settings)


class Activation(nn.Module):
    """A function by ONNX's name."""

    def __init__(self, function):
        super().__init__()
        self.name, *given = (function,) if isinstance(function, str) else function
        self.constants = (*given, *CONSTANTS.get(self.name, ())[len(given) :])

    def forward(self, x):
        return FUNCTIONS[self.name](torch, x, *self.constants)


class Last(nn.Module):
    """The last output of each direction."""

    def __init__(self, directions, reverse):
        super().__init__()
        self.directions, self.reverse = directions, reverse

    def forward(self, x, lengths):
        parts = x.chunk(self.directions, -1)
        at_start = [self.reverse] if self.directions == 1 else [False, True]
        return torch.cat(
            [
                of_rows(part, lengths, (lambda row: row[0]) if first else (lambda row: row[-1]))
                for part, first in zip(parts, at_start, strict=True)
            ],
            -1,
        )


class Pool(nn.Module):
    """The mean or the largest value over time."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x, lengths):
        mean = self.kind == "mean"
        return of_rows(x, lengths, lambda row: row.mean(0) if mean else row.max(0).values)


def of_rows(x, lengths, function):
    """Return what a function makes of each row's steps; zeros of none: (B, columns)."""
    steps = [len(x)] * x.shape[1] if lengths is None else lengths.tolist()
    return torch.stack([function(x[:n, b]) if n else 0 * x[0, b] for b, n in enumerate(steps)])


def ragged_lstm(lstm, x, state, lengths):
    """Return y and (h, c), row by row where there are lengths, of which PyTorch takes no 0."""
    if lengths is None:
        return lstm(x, state)
    rows = []
    for b, n in enumerate(lengths.tolist()):
        h, c = (part[:, b : b + 1].contiguous() for part in state)
        y = x.new_zeros(0, 1, lstm_columns(lstm))
        if n:
            y, (h, c) = lstm(x[:n, b : b + 1], (h, c))
        rows.append((functional.pad(y, (0, 0, 0, 0, 0, len(x) - n)), h, c))
    y, h, c = (torch.cat(parts, 1) for parts in zip(*rows, strict=True))
    return y, (h, c)


def lstm_columns(lstm):
    """Return the columns of what an LSTM returns."""
    return (2 if lstm.bidirectional else 1) * (lstm.proj_size or lstm.hidden_size)


def without_padding(x, lengths):
    """Return x with zeros beyond lengths, where it still has time."""
    if lengths is None or x.dim() < 3:
        return x
    return torch.where((torch.arange(len(x))[:, None] < lengths)[..., None], x, 0)


def loss_of(spec, y, target, weight, lengths):
    """Return the mean of what a loss says of every target."""
    settings = spec.settings
    count = torch.ones(target.shape, dtype=y.dtype) if weight is None else weight
    if lengths is not None and y.dim() > 2:
        valid = torch.arange(len(y))[:, None] < lengths
        count = count * valid.view(valid.shape + (1,) * (target.dim() - 2))
    if spec.kind == "CrossEntropy":
        losses = functional.cross_entropy(
            y.flatten(0, -2), target.flatten(), reduction="none", **settings
        ).view(target.shape)
        count = count * (target != settings["ignore_index"])
    elif spec.kind == "MeanSquared":
        losses = functional.mse_loss(y, target, reduction="none")
    elif spec.kind == "Absolute":
        losses = functional.l1_loss(y, target, reduction="none")
    elif spec.kind == "Huber":
        losses = functional.huber_loss(y, target, reduction="none", **settings)
    elif spec.kind == "BinaryCrossEntropy":
        losses = functional.binary_cross_entropy_with_logits(y, target, reduction="none")
    else:
        q = torch.as_tensor(settings["quantiles"], dtype=y.dtype)
        error = (target[..., None] if q.dim() else target) - y
        losses = torch.maximum(q * error, (q - 1) * error)
        losses = losses.mean(-1) if q.dim() else losses
    return (losses * count).sum() / count.sum() if count.sum() else 0 * y.sum()
