"""The cell with every option in PyTorch, whose autograd gives the gradients."""

import numpy as np

from support.onnx_nodes import CONSTANTS

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
    h, c, norm = w["h0"], w["c0"], torch.nn.functional.layer_norm
    T, B, H = len(w["x"]), *c.shape

    def apply(which, v):
        given = activations[which]
        name, *constants = (given,) if isinstance(given, str) else given
        return FUNCTIONS[name](torch, v, *constants, *CONSTANTS.get(name, ())[len(constants) :])

    def bounded(v, limit):
        return v if limit is None else v.clamp(-limit, limit)

    def norm_of_gate(n, v):
        return norm(v, (H,), w_ln[n], biases[n], 1e-8) if "w_ln" in w else v

    def norm_of_row(v, gain, bias=None):
        shape = v.shape[1:]
        return norm(v, shape, w[gain], w.get(bias)) if gain in w else v

    runs = torch.tensor(np.ones((B, T), bool) if mask is None else mask).T[:, :, None]
    if lengths is not None:
        runs = runs & (torch.arange(T)[:, None, None] < torch.tensor(lengths)[:, None])
    p_i, p_f, p_o = w["w_ch"].chunk(3) if "w_ch" in w else (0, 0, 0)
    z_h, z_c = (torch.tensor(np.broadcast_to(z, (T, B, H)).copy()) for z in zoneout)
    bias = w.get("b_ih", 0) + w.get("b_hh", torch.zeros_like(w["w_ih"][:, 0]))
    if "w_ln" in w:
        w_ln, biases, bias = w["w_ln"].chunk(4), bias.chunk(4), 0
    kept, zero, y = torch.tensor(recurrent_mask), h.new_zeros(()), {}
    for t in reversed(range(T)) if reverse else range(T):
        a = norm_of_row(w["x"][t] @ w["w_ih"].T, "w_ln_ih") + bias
        a = a + norm_of_row((h * kept) @ w["w_hh"].T, "w_ln_hh")
        a_i, a_f, a_g, a_o = a.chunk(4, dim=1)
        i = apply(0, bounded(norm_of_gate(0, a_i + p_i * c), clip))
        f = 1 - i if coupled else apply(0, bounded(norm_of_gate(1, a_f + p_f * c), clip))
        g = apply(1, bounded(norm_of_gate(2, a_g), clip))
        new = bounded(f * c + i * g, cell_clip)
        o = apply(0, bounded(norm_of_gate(3, a_o + p_o * new), clip))
        m = o * apply(2, norm_of_row(new, "w_ln_c", "b_ln_c"))
        m = m @ w["w_hr"].T if "w_hr" in w else z_h[t] * h + (1 - z_h[t]) * m
        h = torch.where(runs[t], m, h)
        c = torch.where(runs[t], z_c[t] * c + (1 - z_c[t]) * new, c)
        y[t] = torch.where(runs[t], h, zero)
    for t in range(1, T) if padding == "hold" else ():
        y[t] = torch.where(runs[t], y[t], y[t - 1])
    return torch.stack([y[t] for t in range(T)]), h, c
