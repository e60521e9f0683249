"""Nodes LSTM of ONNX, computed by `lstm_forward`."""

import numpy as np

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
