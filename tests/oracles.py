"""Other accounts of the LSTM: nodes of ONNX, and PyTorch's autograd with every option."""

import numpy as np
import pytest

import lstm_fast
from lstm_fast import reference

IMPLEMENTATIONS = [reference, lstm_fast]

every_implementation = pytest.mark.parametrize(
    "implementation", IMPLEMENTATIONS, ids=lambda module: module.__name__
)


def assert_close(actual, expected, tolerance, where=""):
    """Compare arrays by name, relative to the largest element of the expected one, if above 1."""
    assert actual.keys() == expected.keys(), where
    for name, array in expected.items():
        assert actual[name].shape == array.shape, f"{name} {where}"
        error = np.abs(actual[name] - array).max(initial=0)
        limit = tolerance * np.abs(array).max(initial=1)
        assert error <= limit, f"{name}: {error:.3g} > {limit:.3g}, {where}"


# ONNX

INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
OUTPUTS = ["Y", "Y_h", "Y_c"]
# alpha and beta of the functions that have some, where the node does not give them.
CONSTANTS = {
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "ScaledTanh": (1.0, 1.0),
    "Affine": (1.0, 0.0),
}
# As functions of the gates, they let the state grow faster than exponentially.
UNBOUNDED = {"Relu", "Softplus", "Elu", "LeakyRelu", "ThresholdedRelu", "Affine"}


def onnx_activations(attributes, D):
    """Return the activations of each direction.

    The node lists alphas, and betas, for all functions together. As in ONNX Runtime, a function
    takes the next ones if it has such constants at all, and the defaults when a list is used up.
    """
    names = [n.decode() for n in attributes.get("activations", [b"Sigmoid", b"Tanh", b"Tanh"] * D)]
    lists = [iter(attributes.get(f"activation_{kind}", [])) for kind in ("alpha", "beta")]
    functions = []
    for name in names:
        pairs = zip(lists, CONSTANTS.get(name, ()), strict=False)
        given = [(next(values, None), default) for values, default in pairs]
        if all(value is None for value, _ in given):
            functions.append(name)
        else:
            functions.append((name, *(d if value is None else value for value, d in given)))
    assert len(functions) == 3 * D
    return [functions[3 * d : 3 * d + 3] for d in range(D)]


def gates(array, order="iofg"):
    """Return blocks i, f, g, o of the blocks in another order, along the first axis."""
    blocks = np.split(array, 4)
    return np.concatenate([blocks[order.index(gate)] for gate in "ifgo"])


def run_onnx_node(implementation, node, arrays, dtype):
    """Return Y, Y_h, Y_c of a node LSTM, computed by `lstm_forward`; arrays by name of `INPUTS`."""
    from onnx.helper import get_attribute_value

    attributes = {a.name: get_attribute_value(a) for a in node.attribute}
    lengths = arrays.get("sequence_lens")
    a = {k: v.astype(dtype) for k, v in arrays.items() if k != "sequence_lens"}
    batch_first = attributes.get("layout", 0) == 1
    if batch_first:
        a |= {k: a[k].swapaxes(0, 1) for k in a.keys() & {"X", "initial_h", "initial_c"}}
    D, _, H = a["R"].shape
    assert attributes["hidden_size"] == H
    direction = attributes.get("direction", b"forward").decode()
    reversed_ones = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[direction]
    activations = onnx_activations(attributes, D)
    results = []
    for d, reverse in enumerate(reversed_ones):
        given = {"w_ih": gates(a["W"][d]), "w_hh": gates(a["R"][d])}
        if "B" in a:
            given |= {"b_ih": gates(a["B"][d, : 4 * H]), "b_hh": gates(a["B"][d, 4 * H :])}
        given |= {k: a[f"initial_{k[0]}"][d] for k in ("h0", "c0") if f"initial_{k[0]}" in a}
        if "P" in a:
            p_i, p_o, p_f = np.split(a["P"][d], 3)
            given["w_ch"] = np.concatenate([p_i, p_f, p_o])
        y, (hn, cn), _ = implementation.lstm_forward(
            a["X"],
            **given,
            reverse=bool(reverse),
            lengths=lengths,
            coupled=bool(attributes.get("input_forget", 0)),
            clip=attributes.get("clip"),
            activations=activations[d],
        )
        results.append((y, hn, cn))
    y, hn, cn = (np.stack(arrays) for arrays in zip(*results, strict=True))  # D first
    if batch_first:
        found = y.transpose(2, 1, 0, 3), hn.swapaxes(0, 1), cn.swapaxes(0, 1)
    else:
        found = y.swapaxes(0, 1), hn, cn
    return dict(zip(OUTPUTS, found, strict=True))


# PyTorch

FUNCTIONS = {
    "Sigmoid": lambda torch, x: torch.sigmoid(x),
    "Tanh": lambda torch, x: torch.tanh(x),
    "Relu": lambda torch, x: torch.relu(x),
    "Softsign": lambda torch, x: torch.nn.functional.softsign(x),
    "Softplus": lambda torch, x: torch.logaddexp(x, torch.zeros_like(x)),
    "HardSigmoid": lambda torch, x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "Elu": lambda torch, x, alpha: torch.nn.functional.elu(x, alpha),
    "LeakyRelu": lambda torch, x, alpha: torch.nn.functional.leaky_relu(x, alpha),
    "ThresholdedRelu": lambda torch, x, alpha: torch.nn.functional.threshold(x, alpha, 0.0),
    "ScaledTanh": lambda torch, x, alpha, beta: alpha * torch.tanh(beta * x),
    "Affine": lambda torch, x, alpha, beta: alpha * x + beta,
}


def run_autograd(torch, args, d_results, options):
    """Return results and gradients by name, of arrays and options of `lstm_forward`."""
    tensors = {k: torch.tensor(array, requires_grad=True) for k, array in args.items()}
    results = autograd_lstm(torch, tensors, **options)
    d_tensors = [torch.tensor(d) for d in d_results]
    found = torch.autograd.grad(results, [*tensors.values()], d_tensors, materialize_grads=True)
    named = zip((*("y", "hn", "cn"), *(f"d{k}" for k in tensors)), (*results, *found), strict=True)
    return {name: tensor.detach().numpy() for name, tensor in named}


def autograd_lstm(
    torch,
    w,
    reverse=False,
    lengths=None,
    mask=None,
    padding="zero",
    coupled=False,
    clip=None,
    cell_clip=None,
    activations=("Sigmoid", "Tanh", "Tanh"),
    zoneout=(0.0, 0.0),
    recurrent_mask=1.0,
):
    """Return y, hn, cn; `w` has tensors by name of argument: x, h0, c0, weights, biases."""
    h, c = w["h0"], w["c0"]
    T, B, H = len(w["x"]), *c.shape

    def apply(which, v):
        given = activations[which]
        name, *constants = (given,) if isinstance(given, str) else given
        return FUNCTIONS[name](torch, v, *constants, *CONSTANTS.get(name, ())[len(constants) :])

    def bounded(v, limit):
        return v if limit is None else v.clamp(-limit, limit)

    def norm(v, gain, bias=None):
        shape = v.shape[1:]
        return torch.nn.functional.layer_norm(v, shape, w[gain], w.get(bias)) if gain in w else v

    runs = torch.tensor(np.ones((B, T), bool) if mask is None else mask).T[:, :, None]
    if lengths is not None:
        runs = runs & (torch.arange(T)[:, None, None] < torch.tensor(lengths)[:, None])
    p_i, p_f, p_o = w["w_ch"].chunk(3) if "w_ch" in w else (0, 0, 0)
    z_h, z_c = (torch.tensor(np.broadcast_to(z, (T, B, H)).copy()) for z in zoneout)
    kept, zero, y = torch.tensor(recurrent_mask), h.new_zeros(()), {}
    for t in reversed(range(T)) if reverse else range(T):
        a = norm(w["x"][t] @ w["w_ih"].T, "w_ln_ih") + norm((h * kept) @ w["w_hh"].T, "w_ln_hh")
        a_i, a_f, a_g, a_o = (a + w.get("b_ih", 0) + w.get("b_hh", 0)).chunk(4, dim=1)
        i = apply(0, bounded(a_i + p_i * c, clip))
        f = 1 - i if coupled else apply(0, bounded(a_f + p_f * c, clip))
        new = bounded(f * c + i * apply(1, bounded(a_g, clip)), cell_clip)
        o = apply(0, bounded(a_o + p_o * new, clip))
        m = o * apply(2, norm(new, "w_ln_c", "b_ln_c"))
        m = m @ w["w_hr"].T if "w_hr" in w else z_h[t] * h + (1 - z_h[t]) * m
        h = torch.where(runs[t], m, h)
        c = torch.where(runs[t], z_c[t] * c + (1 - z_c[t]) * new, c)
        y[t] = torch.where(runs[t], h, zero)
    for t in range(1, T) if padding == "hold" else ():
        y[t] = torch.where(runs[t], y[t], y[t - 1])
    return torch.stack([y[t] for t in range(T)]), h, c
