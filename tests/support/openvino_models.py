"""Models of OpenVINO made by hand: an XML file, and one with the constants."""

import os
import warnings
from unittest import mock
from xml.sax.saxutils import quoteattr

import numpy as np

TYPES = {"float32": "f32", "float16": "f16", "float64": "f64", "int32": "i32", "int64": "i64"}
TYPES |= {"int8": "i8", "uint8": "u8", "bool": "boolean"}
VERSIONS = {  # of operators that are not in the first set
    "Gather": "opset8",
    "Slice": "opset8",
    "SoftMax": "opset8",
    "SoftPlus": "opset4",
    "SoftSign": "opset9",
    "LSTMSequence": "opset5",
    "LSTMCell": "opset4",
    "Loop": "opset5",
    "ReadValue": "opset6",
    "Assign": "opset6",
}


PLAIN = {"activations": "sigmoid, tanh, tanh", "activations_alpha": "", "activations_beta": ""}
PLAIN |= {"clip": "0"}


class Model:
    """A model that grows layer by layer; a layer is (number, place of its output)."""

    def __init__(self, constants=None):
        self.layers, self.edges = [], []
        self.constants = bytearray() if constants is None else constants

    def layer(self, kind, inputs=(), outputs=1, version=None, inside="", **data):
        """Add a layer, and return its first output."""
        version = version or VERSIONS.get(kind, "opset1")
        number = len(self.layers)
        ports = "".join(f'<port id="{n}" precision="FP32"/>' for n in range(len(inputs)))
        out = "".join(f'<port id="{len(inputs) + n}" precision="FP32"/>' for n in range(outputs))
        text = " ".join(f"{name}={quoteattr(str(value))}" for name, value in data.items())
        self.layers.append(
            f'<layer id="{number}" name="{kind}_{number}" type="{kind}" version="{version}">'
            f"<data {text}/><input>{ports}</input><output>{out}</output>{inside}</layer>"
        )
        for n, (source, port) in enumerate(inputs):
            self.edges.append(
                f'<edge from-layer="{source}" from-port="{port}" '
                f'to-layer="{number}" to-port="{n}"/>'
            )
        return number, len(inputs)

    def input(self, *shape, element_type="f32"):
        """Add the input of the model, None where any extent goes."""
        text = ",".join("?" if n is None else str(n) for n in shape)
        return self.layer("Parameter", shape=text, element_type=element_type)

    def constant(self, array, element_type=None):
        """Add numbers."""
        array = np.asarray(array)
        offset = len(self.constants)
        self.constants += array.tobytes()
        return self.layer(
            "Const",
            element_type=element_type or TYPES[array.dtype.name],
            shape=",".join(map(str, array.shape)),
            offset=offset,
            size=array.nbytes,
        )

    def lstm(self, x, weights, T, *, direction="forward", batch=2, state=0.0, **data):
        """Add an LSTMSequence with zero states, and return Y; `weights` are w_ih, w_hh, bias."""
        directions, rows, _ = weights[0].shape
        units = rows // 4
        states = self.constant(np.full((batch, directions, units), state, weights[0].dtype))
        lengths = self.constant(np.full(batch, T, np.int64))
        inputs = [x, states, states, lengths, *(self.constant(w) for w in weights)]
        settings = {"direction": direction, "hidden_size": units, **PLAIN} | data
        return self.layer("LSTMSequence", inputs, 3, **settings)

    def loop(self, kind, inputs, body, ports, back, outputs, **data):
        """Add a loop.

        `body` is a Model with the same constants, `ports` are ("input" or "output", place, layer
        of the body, attributes), `back` are pairs of layers of the body, from and to.
        """
        text = ""
        for side, place, inner, attributes in ports:
            external = place + (len(inputs) if side == "output" and place >= 0 else 0)
            given = {"external_port_id": external, "internal_layer_id": inner} | attributes
            text += f"<{side} {' '.join(f'{k}={quoteattr(str(v))}' for k, v in given.items())}/>"
        edges = "".join(f'<edge from-layer="{a}" to-layer="{b}"/>' for a, b in back)
        text = f"<port_map>{text}</port_map><back_edges>{edges}</back_edges>"
        text += f"<body>{body.text()}</body>"
        return self.layer(kind, inputs, outputs, inside=text, **data)

    def text(self):
        """Return layers and edges as XML."""
        return f"<layers>{''.join(self.layers)}</layers><edges>{''.join(self.edges)}</edges>"

    def write(self, folder, *results):
        """Write both files, and return the path of the XML file."""
        for result in results:
            self.layer("Result", [result], 0)
        path = folder / "model.xml"
        path.write_text(f'<?xml version="1.0"?><net name="m" version="11">{self.text()}</net>')
        path.with_suffix(".bin").write_bytes(self.constants)
        return path


def converted(module, **options):
    """Return what OpenVINO makes of a module of PyTorch; options are those of `convert_model`.

    It tells its makers of each step, unless it is told that it runs in CI, from processes that it
    forks: these would take most of the time.
    """
    import openvino

    with mock.patch.dict(os.environ, CI="true"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer
        return openvino.convert_model(module, **options)
