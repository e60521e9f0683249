"""The engine in autograd, and as operators that `torch.compile` and `torch.export` keep."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..engine.tape import Cache
from .calls import any_batched, any_given, cache_of, token_of, want_gradient
from .engine import Engine, Form, Steps, engine_of, steps_of

__all__ = ["Three", "apply_to_plain", "lstm", "pytorchs_kernel", "run"]

Three = tuple[Tensor, Tensor, Tensor]


class _Call:
    """A call in training, from forward to backward."""

    __slots__ = ("cache", "count", "engine", "form", "results", "steps")
    results: Any  # until autograd has them
    cache: Any  # likewise

    def __init__(
        self, engine: Engine, form: Form | None, steps: Any, count: int, results: Any, cache: Cache
    ) -> None:
        self.engine, self.form, self.steps, self.count = engine, form, steps, count
        self.results, self.cache = results, cache


class _LSTM(torch.autograd.Function):
    """What the engine has computed, and the engine again for the gradients.

    The cache belongs to what autograd saves, so that it goes when that does. Where hooks on saved
    tensors, as those of checkpointing, bring something else back, it is computed anew.
    """

    @staticmethod
    def forward(
        ctx: Any, call: _Call, x: Tensor, *states_and_weights: Tensor
    ) -> tuple[Tensor, ...]:
        results, cache, engine = call.results, call.cache, call.engine
        ctx.save_for_backward(token_of(cache), x, *states_and_weights)
        # In materialised gradients lists are whole: of states of layers that differ.
        ctx.set_materialize_grads(engine.settings.differ)
        ctx.call, call.results, call.cache = call, None, None
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        call, (token, x, *rest) = ctx.call, ctx.saved_tensors
        engine, count = call.engine, call.count
        states, weights = rest[:count], rest[count:]
        if not any_given(grads):
            return (None,) * (2 + len(rest))
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or any_batched(grads):
            found = _differentiable(call.form, call.steps, needed, grads, x, states, weights)
            return None, *found
        cache = cache_of(token)
        if cache is None:
            _, cache = engine.train(x, states, weights, call.steps, needed[0])
        dx, *more = engine.differentiate(cache, grads, needed[0])
        if not states:  # zeros, which nobody passed
            more = more[len(more) - len(weights) :]
        return None, dx, *more


# What `_LSTM.apply` calls when it has looked for what `torch.func` may have left in arguments.
apply_to_plain = super(torch.autograd.Function, _LSTM).apply


def _differentiable(
    form: Form | None,
    steps: Steps | None,
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor | None]:
    """Gradients that can be differentiated, or are many at once: by PyTorch's own operators."""
    if form is None:
        raise RuntimeError(
            "lstm_fast: gradients of gradients are PyTorch's own, which has neither options nor "
            "lengths: do without them, or without create_graph=True"
        )
    wanted = [one for one, need in zip((x, *states, *weights), needed, strict=True) if need]
    again = torch.is_grad_enabled()
    with torch.enable_grad(), _without_mkldnn():
        results = _pytorchs_own(form, None if steps is None else steps.sizes, x, states, weights)
        pairs = [(y, dy) for y, dy in zip(results, grads, strict=True) if dy is not None]
        of_results, given = zip(*pairs, strict=True)
        found = iter(
            torch.autograd.grad(of_results, wanted, given, create_graph=again, allow_unused=True)
        )
    return [next(found) if need else None for need in needed]


_mkldnn = threading.RLock()  # the setting is the process's: of two threads, the later would keep it


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """Its LSTM cannot be differentiated twice. PyTorch's own context sets more, and warns of it."""
    with _mkldnn:
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)


def _pytorchs_own(
    form: Form, sizes: Tensor | None, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> Three:
    """Compute the same with PyTorch's operators."""
    B = x.shape[1] if sizes is None else int(sizes[0])
    jobs = form.num_layers * form.directions
    if not states:
        states = x.new_zeros(jobs, B, form.columns), x.new_zeros(jobs, B, form.hidden_size)
    same = form.bias, form.num_layers, 0.0, False, form.bidirectional
    if sizes is None:
        return pytorchs_kernel(torch.ops.aten.lstm.input, x, states, weights, *same, False)
    return pytorchs_kernel(torch.ops.aten.lstm.data, x, sizes, states, weights, *same)


def pytorchs_kernel(operator: Any, *arguments: Any) -> Any:
    """Compute an operator by PyTorch's own kernel, whatever is registered for it.

    Not by `decompose`, which takes what compilers know of it: that differs, as where B = 0.
    """
    return operator._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *arguments)


def run(
    engine: Engine,
    form: Form | None,
    steps: Any,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    apply: Any = _LSTM.apply,
) -> tuple[Tensor, ...]:
    """Return y, hn, cn of an engine, in autograd if a gradient is wanted."""
    if torch.is_grad_enabled() and want_gradient(x, states, weights):
        trained = engine.train(x, states, weights, steps, x.requires_grad)
        call = _Call(engine, form, steps, len(states), *trained)
        return apply(call, x, *states, *weights)
    return engine.infer(x, states, weights, steps)


def lstm(
    form: Form,
    x: Tensor,
    sizes: Tensor | None,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    dropout: float = 0.0,
) -> Three:
    """Run a plain LSTM whose arguments the engine serves: see `served`.

    Parameters
    ----------
    form : Form
        Of the weights.
    x : Tensor, shape (T, B, I), or (N, I) with `sizes`
        The input.
    sizes : Tensor, optional
        `batch_sizes` of a `PackedSequence`.
    states : sequence of Tensor
        h0 and c0, (L D, B, columns), or none of them for zeros.
    weights : sequence of Tensor
        In the order of PyTorch's.
    dropout : float
        Between layers, with PyTorch's random numbers; 0 in inference.

    Returns
    -------
    y, hn, cn : Tensor
    """
    if dropout and form.num_layers > 1:
        return _layer_by_layer(form, x, sizes, states, weights, dropout)
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return torch.ops.lstm_fast.lstm(x, sizes, states, weights, *form[2:6])
    return run(engine_of(form, weights), form, steps_of(sizes), x, states, weights)


def _layer_by_layer(
    form: Form,
    x: Tensor,
    sizes: Tensor | None,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    dropout: float,
) -> Three:
    D, each = form.directions, form.weights_of_layer
    found = []
    for layer in range(form.num_layers):
        if layer > 0:
            x = torch.dropout(x, dropout, True)
        one = form._replace(num_layers=1, input_size=x.shape[-1])
        of_layer = [state[layer * D : (layer + 1) * D] for state in states]
        x, *end = lstm(one, x, sizes, of_layer, weights[layer * each : (layer + 1) * each])
        found.append(end)
    h, c = zip(*found, strict=True)
    return x, torch.cat(h), torch.cat(c)


# ---- operators, which `torch.compile` and `torch.export` keep


ARGUMENTS = (
    "Tensor x, Tensor? sizes, Tensor[] states, Tensor[] weights, "
    "int num_layers, bool bias, bool bidirectional, int proj_size"
)
torch.library.define("lstm_fast::lstm", f"({ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
# Without `of_input` the first gradient, that of x, is an empty tensor. Compilers may have kept
# calls that do not say it.
torch.library.define(
    "lstm_fast::lstm_backward", f"(Tensor?[] grads, {ARGUMENTS}, bool of_input=True) -> Tensor[]"
)


def _form_of(
    x: Tensor, weights: Sequence[Tensor], layers: int, bias: bool, both: bool, P: int
) -> Form:
    return Form(x.shape[-1], weights[0].shape[0] // 4, layers, bias, both, P, x.dtype)


@torch.library.impl("lstm_fast::lstm", "CPU")
def _lstm(x, sizes, states, weights, *given):  # type: ignore[no-untyped-def]
    engine = engine_of(_form_of(x, weights, *given), weights)
    return engine.infer(x, states, weights, steps_of(sizes))


@torch.library.impl("lstm_fast::lstm_backward", "CPU")
def _lstm_backward(  # type: ignore[no-untyped-def]
    grads, x, sizes, states, weights, layers, bias, both, P, of_input=True
):
    engine = engine_of(_form_of(x, weights, layers, bias, both, P), weights)
    _, cache = engine.train(x, states, weights, steps_of(sizes), of_input)
    dx, *more = engine.differentiate(cache, grads, of_input)
    return [x.new_empty(0) if dx is None else dx, *more]


@torch.library.register_fake("lstm_fast::lstm")
def _lstm_shapes(x, sizes, states, weights, *given):  # type: ignore[no-untyped-def]
    form = _form_of(x, weights, *given)
    if states:
        B = states[0].shape[1]
    else:
        B = x.shape[1] if sizes is None else torch.library.get_ctx().new_dynamic_size()
    jobs = form.num_layers * form.directions
    return (
        x.new_empty((*x.shape[:-1], form.directions * form.columns)),
        x.new_empty((jobs, B, form.columns)),
        x.new_empty((jobs, B, form.hidden_size)),
    )


@torch.library.register_fake("lstm_fast::lstm_backward")
def _lstm_backward_shapes(  # type: ignore[no-untyped-def]
    grads, x, sizes, states, weights, layers, bias, both, P, of_input=True
):
    _, hn, cn = _lstm_shapes(x, sizes, states, weights, layers, bias, both, P)
    dx = x.new_empty(x.shape if of_input else 0)
    return [dx, hn, cn, *(w.new_empty(w.shape) for w in weights)]


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    x, sizes, states, weights, *given = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, sizes, *states, *weights)
    ctx.count, ctx.given = len(states), given


def _operator_backward(ctx, *grads):  # type: ignore[no-untyped-def]
    x, sizes, *rest = ctx.saved_tensors
    states, weights = rest[: ctx.count], rest[ctx.count :]
    nothing = [None] * len(ctx.given)
    if all(grad is None for grad in grads):  # compilers read this
        return None, None, [None] * ctx.count, [None] * len(weights), *nothing
    of_input = ctx.needs_input_grad[0]
    dx, dh, dc, *dweights = torch.ops.lstm_fast.lstm_backward(
        list(grads), x, sizes, states, weights, *ctx.given, of_input
    )
    return dx if of_input else None, None, [dh, dc][: ctx.count], dweights, *nothing


torch.library.register_autograd("lstm_fast::lstm", _operator_backward, setup_context=_setup_context)
