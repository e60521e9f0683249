"""Files as Keras 1, 2 and 3 write them, and what their LSTMs compute, without Keras."""

import json
import zipfile
from io import BytesIO

import h5py
import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def keras_lstm(x, kernel, recurrent, bias=0, *, gate=sigmoid, other=np.tanh, backwards=False):
    """Return the outputs (B, T, H) of one layer in the order of x (B, T, I): gates i, f, c, o."""
    B, T, _ = x.shape
    h, c = np.zeros((B, len(recurrent))), np.zeros((B, len(recurrent)))
    y = np.zeros((B, T, len(recurrent)))
    for t in reversed(range(T)) if backwards else range(T):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = gate(f) * c + gate(i) * other(g)
        y[:, t] = h = gate(o) * other(c)
    return y


def lstm_arrays(rng, I, H, dtype=np.float32):
    """Return kernel, recurrent kernel and bias, of a size with which nothing saturates."""
    shapes = ((I, 4 * H), (H, 4 * H), (4 * H,))
    return [(rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype) for shape in shapes]


def entry(kind, name, **settings):
    """Return a layer of a configuration."""
    return {"class_name": kind, "config": {"name": name, **settings}}


def lstm_entry(name, H, **settings):
    usual = {"units": H, "return_sequences": True, "use_bias": True}
    usual |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
    return entry("LSTM", name, **(usual | settings))


def sequential(*entries):
    return {"class_name": "Sequential", "config": {"name": "model", "layers": [*entries]}}


def write_numbered(file, layers):
    """Write .weights.h5: arrays by the path of their group."""
    with h5py.File(file, "w") as h5:
        for group, arrays in layers.items():
            for n, array in enumerate(arrays):
                h5[f"{group}/vars/{n}"] = array


def write_keras(path, config, layers, version="3.9.0"):
    """Write .keras."""
    weights = BytesIO()
    write_numbered(weights, layers)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())


def write_named(path, config, layers, version="2.9.0"):
    """Write .h5: for each layer arrays by name; without a configuration only these."""
    with h5py.File(path, "w") as h5:
        group = h5 if config is None else h5.create_group("model_weights")
        if config is not None:
            h5.attrs["model_config"] = json.dumps(config).encode()
        if version is not None:
            group.attrs["keras_version"] = version.encode()
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = [one.encode() for one in arrays]
            for one, array in arrays.items():
                own[one] = array


def named(layer, arrays, names=("kernel", "recurrent_kernel", "bias")):
    """Return arrays by the names of Keras 2."""
    return {f"{layer}/{name}:0": array for name, array in zip(names, arrays, strict=False)}


def cudnn(kernel, recurrent, bias_ih, bias_hh):
    """Return the arrays as CuDNNLSTM stores them: each gate's rows, in arrays of Keras's shape."""

    def rows(array):
        return np.hstack([gate.T.reshape(gate.shape) for gate in np.hsplit(array, 4)])

    turned = np.hstack([gate.T for gate in np.hsplit(recurrent, 4)])
    return [rows(kernel), turned, np.concatenate([bias_ih, bias_hh])]
