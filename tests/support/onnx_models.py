"""Small models of ONNX, made by hand, and what ONNX Runtime computes of them."""

import numpy as np

ORDER = "iofg"  # of gates in ONNX


def kind_of(dtype):
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def make_node(kind, inputs, outputs, **attributes):
    """Return a node; names of inputs and outputs are words of a string, "-" is an absent one."""
    from onnx import helper

    named = [["" if word == "-" else word for word in words.split()] for words in (inputs, outputs)]
    name = attributes.pop("name", outputs.split()[0])
    domain = attributes.pop("domain", None)
    return helper.make_node(kind, *named, name=name, domain=domain, **attributes)


def value(name, shape, dtype=np.float32):
    from onnx import helper

    return helper.make_tensor_value_info(name, kind_of(dtype), shape)


def make_model(nodes, inputs, outputs, constants, opset=17):
    """Return a model; inputs are `value`s, outputs names, constants arrays or tensors by name."""
    from onnx import TensorProto, helper, numpy_helper

    tensors = [
        numpy_helper.from_array(array, name) if isinstance(array, np.ndarray) else array
        for name, array in constants.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "graph", inputs, results, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def run(model, feeds, outputs=None):
    """Return what ONNX Runtime computes of a model or file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    given = model.SerializeToString() if hasattr(model, "SerializeToString") else str(model)
    session = onnxruntime.InferenceSession(given, options, ["CPUExecutionProvider"])
    return session.run(outputs, feeds)


def lstm_arrays(rng, I, H, D=1, dtype=np.float32, peephole=False):
    """Return W, R, B, and P if asked for, with both biases."""
    shapes = {"W": (D, 4 * H, I), "R": (D, 4 * H, H), "B": (D, 8 * H)}
    if peephole:
        shapes["P"] = (D, 3 * H)
    return {
        name: (rng.standard_normal(shape) * 0.8 / np.sqrt(H)).astype(dtype)
        for name, shape in shapes.items()
    }


def reordered(array, order, H):
    """Return blocks of H rows, which are i, o, f, g, in another order; those of B, twice four."""
    axis = 1
    blocks = np.split(array, array.shape[axis] // H, axis)
    halves = [blocks[n : n + 4] for n in range(0, len(blocks), 4)]
    return np.concatenate([half[ORDER.index(gate)] for half in halves for gate in order], axis)
