"""`LSTM` and `LSTMCell`: PyTorch's modules, computed by the engine."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import CompileContext
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from ..network import unsaid
from .autograd import Three, apply_to_plain, run
from .direct import Direct
from .engine import Form, engine_of, sizes_fit
from .options import OPTIONS, differing, first_values, run_with_options, settings_of
from .served import lstm_if_served

__all__ = ["LSTM", "LSTMCell", "Twin"]

Pair = tuple[Tensor, Tensor]


class _Module(nn.Module):
    """What both modules have: the short way of calls, which `direct` describes."""

    def _short_way(self) -> Direct | None:
        return None if torch.compiler.is_compiling() else self.__dict__.get("_direct")

    def _find_short_way(self, form: Form, names: Sequence[str], weights: Sequence[Tensor]) -> None:
        """After a call, let the next ones go the short way."""
        if not torch.compiler.is_compiling():
            engine = engine_of(form, weights)
            known = self.__dict__.get("_direct")
            if engine.network.one_call is not None and (
                known is None or known.engine is not engine
            ):
                in_autograd = partial(run, apply=apply_to_plain)
                self.__dict__["_direct"] = Direct(engine, form, names, in_autograd)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_direct"}

    def _pytorchs(self, kind: Any, input: Any, hx: Any) -> Any:
        """Let PyTorch's own compute, or say what is wrong."""
        if isinstance(input, Proxy):  # a symbolic trace keeps PyTorch's modules whole; so this one
            path = input.tracer.path_of_module(self)
            return input.tracer.create_proxy("call_module", path, (input, hx), {})
        return kind.forward(self, input, hx)

    def _as(self, kind: Any) -> Any:
        """Return a module of PyTorch's own class with the same parameters."""
        module = kind.__new__(kind)
        module.__dict__.update(self.__getstate__())
        return module


class LSTM(_Module, nn.RNNBase):
    """`torch.nn.LSTM` on the engine of `lstm_fast`, with more options.

    Arguments, attributes, parameters, initial values and results are those of `torch.nn.LSTM`. What
    the engine does not have (other dtypes and devices, autocast, `torch.func`, and more) PyTorch
    computes itself.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        As of `torch.nn.LSTM`. `hidden_size` may be a list with the units of each layer; then states
        are pairs of tuples, with a tensor (D, B, H) of each layer.
    device, dtype
        Of the parameters. With options only the CPU, float32 and float64 compute.
    **options
        Of `lstm_fast.LSTM`, with the parameters that it has for them: `reverse`, `merge`,
        `peephole`, `coupled`, `clip`, `cell_clip`, `activations`, `layer_norm`, `residual`,
        `variational_dropout`, `recurrent_dropout`, `zoneout`, `init`, `forget_bias`. With any of
        them the random numbers are NumPy's, seeded by PyTorch's generator.

    Raises
    ------
    TypeError
        If an option is unknown, or has a wrong type.
    ValueError
        If it has a wrong value, or two do not go together.
    """

    _options: tuple[str, ...] = ()  # names of those by which it computes something else

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        unknown = [name for name in options if name not in OPTIONS]
        if unknown:
            raise TypeError(f"{unknown[0]}: no option of LSTM; these are {', '.join(OPTIONS)}")
        if not options and not isinstance(hidden_size, Sequence):
            super().__init__(
                *("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout),
                *(bidirectional, proj_size, device, dtype),
            )
            return
        nn.Module.__init__(self)
        self.mode, self.input_size, self.hidden_size = "LSTM", input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional, self.proj_size = dropout, bidirectional, proj_size
        for name, value in options.items():
            setattr(self, name, value)
        settings = settings_of(self, torch.float32)
        self.hidden_size, self.num_layers = settings.hidden_size, settings.num_layers
        self._options = differing(options, settings.differ)
        values = first_values(settings)
        names = [*values]
        each = len(names) // (settings.num_layers * settings.directions)
        self._flat_weights_names = names
        self._all_weights = [names[n : n + each] for n in range(0, len(names), each)]
        dtype = torch.get_default_dtype() if dtype is None else dtype
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value.to(device=device, dtype=dtype)))
        self._init_flat_weights()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        if not self._options:
            super().reset_parameters()
            return
        with torch.no_grad():
            for name, value in first_values(settings_of(self, torch.float32)).items():
                getattr(self, name).copy_(value)

    def extra_repr(self) -> str:
        """Return the arguments."""
        words = [super().extra_repr()]
        names = [name for name in self._options if name != "hidden_size"]
        words += [f"{name}={getattr(self, name)!r}" for name in names]
        return ", ".join(words)

    # Programs ask isinstance(module, nn.LSTM), and Dynamo refuses to trace whatever is one. So
    # these are none, but say that they are, as mocks do; not to Dynamo.
    @property
    def __class__(self) -> type:
        kind = type(self)
        return Twin if kind is LSTM and CompileContext.try_get() is None else kind

    @__class__.setter
    def __class__(self, kind: type) -> None:
        kind = LSTM if kind is Twin else kind  # where `parametrize` takes its own class back
        object.__dict__["__class__"].__set__(self, kind)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_flat_weight_refs", None)  # as PyTorch's own does
        return state

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _new, (type(self),), self.__getstate__()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """With the options that parameters do not tell, as those of `lf.LSTM`."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for key, value in unsaid.said(self).items():
            destination[prefix + key] = torch.from_numpy(value)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Without the weak references of `nn.RNNBase`: PyTorch swaps no tensor that has some."""
        key, own = prefix + unsaid.KEY, unsaid.said(self)
        if key in state_dict:
            try:
                unsaid.check({unsaid.KEY: state_dict[key]}, own)
            except ValueError as error:
                error_msgs.append(str(error))
        elif own:
            missing_keys.append(key)
        self._flat_weight_refs: list[Any] = []
        super()._load_from_state_dict(
            *(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys),
            error_msgs,
        )
        if key in unexpected_keys:
            unexpected_keys.remove(key)
        self._flat_weight_refs = [w if w is None else weakref.ref(w) for w in self._flat_weights]

    def __prepare_scriptable__(self) -> nn.LSTM:
        """Return what `torch.jit.script` compiles: PyTorch's own module, the same parameters."""
        if self._options:
            raise RuntimeError(f"lstm_fast: torch.jit.script knows no {', '.join(self._options)}")
        return self._as(nn.LSTM)

    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args
    permute_hidden = nn.LSTM.permute_hidden

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None, mask: Any = None) -> Any:
        """Compute as `torch.nn.LSTM`.

        Parameters
        ----------
        input : Tensor or PackedSequence
            As of `torch.nn.LSTM`.
        hx : (h0, c0), optional
            The initial state; zeros where absent.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence; what comes after is not read, and the output is 0 there.
        mask : array_like of bool, shape (B, T), optional
            Where it is False, a sequence has no step.

        Returns
        -------
        output : Tensor or PackedSequence
        (hn, cn) : tuple of Tensor
        """
        if lengths is not None or mask is not None or self._options:
            return run_with_options(self, self._weights(), input, hx, lengths, mask)
        if not (self.training and self.dropout):
            direct = self._short_way()
            found = None if direct is None else direct.run(input, hx, self._parameters)
            if found is not None:
                return found
        packed = isinstance(input, PackedSequence)
        found = self._packed(input, hx) if packed else self._dense(input, hx)
        return self._pytorchs(nn.LSTM, input, hx) if found is None else found

    def _dense(self, input: Any, hx: Any) -> Any:
        """Return the result, or None where PyTorch has to compute it, or to say what is wrong."""
        if isinstance(hx, Tensor):
            return None
        states = () if hx is None else hx
        single = isinstance(input, Tensor) and input.dim() == 2
        axes = 2 if single else 3
        if any(not isinstance(t, Tensor) or t.dim() != axes for t in (input, *states)):
            return None
        if single:
            y, *end = self._plain(input.unsqueeze(1), None, [s.unsqueeze(1) for s in states])
            return None if y is None else (y.squeeze(1), tuple(state.squeeze(1) for state in end))
        y, *end = self._plain(input.transpose(0, 1) if self.batch_first else input, None, states)
        if y is None:
            return None
        return y.transpose(0, 1) if self.batch_first else y, tuple(end)

    def _packed(self, input: PackedSequence, hx: Any) -> Any:
        x, sizes, order, back = input
        if isinstance(hx, Tensor) or x.dim() != 2 or not sizes_fit(sizes, x.shape[0]):
            return None
        hx = () if hx is None else self.permute_hidden(hx, order)
        y, *end = self._plain(x, sizes, hx)
        if y is None:
            return None
        return PackedSequence(y, sizes, order, back), self.permute_hidden(tuple(end), back)

    def _plain(
        self, x: Tensor, sizes: Tensor | None, states: Sequence[Tensor]
    ) -> Three | tuple[None]:
        H: Any = self.hidden_size  # one, without options
        form = Form(
            *(self.input_size, H, self.num_layers, self.bias, self.bidirectional),
            *(self.proj_size, x.dtype),
        )
        weights, dropout = self._weights(), self.dropout if self.training else 0.0
        found = lstm_if_served(form, x, sizes, states, weights, dropout)
        if found is not None and sizes is None and not self.batch_first:
            self._find_short_way(form, self._flat_weights_names, weights)
        return (None,) if found is None else found

    def _weights(self) -> list[Tensor]:
        stored = self._parameters
        names = self._flat_weights_names
        return [stored[name] if name in stored else getattr(self, name) for name in names]


for _name, _value in OPTIONS.items():  # of a module that PyTorch has made
    setattr(LSTM, _name, _value)


class Twin(LSTM, nn.LSTM):
    """What an `LSTM` says it is; what is made of that, as `parametrize` does, is one, too."""


Twin.__name__ = "LSTM"  # as it is printed


def _new(kind: Any) -> Any:
    return kind.__new__(kind)


class LSTMCell(_Module, nn.LSTMCell):
    """`torch.nn.LSTMCell` on the engine of `lstm_fast`."""

    def __prepare_scriptable__(self) -> nn.LSTMCell:
        """Return what `torch.jit.script` compiles: PyTorch's own module, the same parameters."""
        return self._as(nn.LSTMCell)

    def forward(self, input: Tensor, hx: Pair | None = None) -> Pair:
        """Compute as `torch.nn.LSTMCell`."""
        direct = self._short_way()
        found = None if direct is None else direct.step(input, hx, self._parameters)
        if found is None:
            found = self._step(input, hx)
        return self._pytorchs(nn.LSTMCell, input, hx) if found is None else found

    def _step(self, x: Any, hx: Any) -> Pair | None:
        """Return the result, or None where PyTorch has to compute it, or to say what is wrong."""
        H, states = self.hidden_size, () if hx is None else hx
        if isinstance(hx, Tensor) or not isinstance(x, Tensor) or x.dim() not in (1, 2):
            return None
        if x.shape[-1] != self.input_size:
            return None
        shape = (*x.shape[:-1], H)
        if any(state.shape != shape for state in states):
            return None
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"][: 4 if self.bias else 2]
        weights = [getattr(self, name) for name in names]
        form = Form(self.input_size, H, 1, self.bias, False, 0, x.dtype)
        states = [state.reshape(1, -1, H) for state in states]
        x = x.reshape(1, -1, self.input_size)
        found = lstm_if_served(form, x, None, states, weights, 0.0)
        if found is None:
            return None
        self._find_short_way(form, names, weights)
        _, h, c = found
        return h.view(shape), c.view(shape)
