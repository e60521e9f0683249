"""One layer and direction in lower precision: a `QuantizedLSTM`, and its twin in NumPy."""

from functools import partial

import numpy as np

from lstm_fast import LSTM
from lstm_fast.reference.quantised import bfdot, lstm_quantized, tdpbf16ps, vdpbf16ps
from support.internals import elementwise, isas

# weights, inputs
PRECISIONS = [
    ("int8", "bfloat16"),
    ("int8", "int8"),
    ("int8", "float32"),
    ("bfloat16", "bfloat16"),
]
STATE = ("h0", "c0")


def lstm_of(args, *, reverse=False):
    """Return an `LSTM` with the weights that `draw_layer` drew."""
    w_ih = args["w_ih"]
    P = len(args["w_hr"]) if "w_hr" in args else 0
    bias = "b_ih" in args
    lstm = LSTM(w_ih.shape[1], len(w_ih) // 4, bias=bias, proj_size=P, reverse=reverse, seed=0)
    names = {
        f"{name.replace('w_', 'weight_').replace('b_', 'bias_')}_l0": value
        for name, value in args.items()
        if name[:2] in ("w_", "b_")
    }
    lstm.load_state_dict({**lstm.state_dict(), **names})
    return lstm


def run_quantized(args, weights, inputs, *, reverse=False):
    """Return y, hn and cn of the quantized layer."""
    h0, c0 = (args[name][None] for name in STATE)
    y, (hn, cn) = lstm_of(args, reverse=reverse).quantize(weights, inputs)(args["x"], (h0, c0))
    return y, hn[0], cn[0]


def run_twin(isa, args, weights, inputs, *, reverse=False):
    """Return the same of the twin, whose rounding is that of an instruction set."""
    sigmoid, tanh = (partial(elementwise, name, isa=isa) for name in ("sigmoid", "tanh"))
    fused = isa != "baseline"
    instructions = {function.__name__: function for function in (vdpbf16ps, bfdot, tdpbf16ps)}
    instruction = instructions.get(isas()["precisions"]["bfloat16"])
    options = {"sigmoid": sigmoid, "tanh": tanh, "fused": fused, "reverse": reverse}
    options["instruction"] = instruction
    with np.errstate(over="ignore", invalid="ignore"):
        y, state = lstm_quantized(**args, weights=weights, inputs=inputs, **options)
    return y, *state
