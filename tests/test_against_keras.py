"""Every implementation against Keras 3 on its NumPy back-end: masks, directions, activations.

Keras runs in a process of its own: it reads KERAS_BACKEND on import, and imports JAX. It has gates
i, f, c, o in columns, one bias, the batch first, and an output in processing order. Whatever the
dtype, its products are in float32 on this back-end.
"""

import numpy as np
import pytest
from support import comparisons
from support.comparing import assert_close
from support.comparisons import every_implementation
from support.processes import run_python

from lstm_fast import LSTM

comparisons.require("Keras", "keras", "jax")

CONFIGURATIONS = 200
TOLERANCE = 3e-6  # relative to the largest element of an array: four times the largest difference
MERGES = ["concat", "sum", "mul", "ave"]
# Names of Keras, and the same function here.
FUNCTIONS = {
    "sigmoid": "Sigmoid",
    "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "tanh": "Tanh",
    "relu": "Relu",
    "elu": "Elu",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "leaky_relu": ("LeakyRelu", 0.2),
    "linear": ("Affine", 1.0, 0.0),
}


def random_layer(n):
    """Return settings of Keras's layers, those of both directions, arrays by name, a mask."""
    rng = np.random.default_rng(n)
    T, B, I, H = (int(rng.integers(1, most)) for most in (8, 6, 6, 12))
    if rng.random() < 0.5:
        gate, other = "sigmoid", "tanh"
    else:
        gate = str(rng.choice(["sigmoid", "hard_sigmoid", "softsign", "tanh"]))
        other = str(rng.choice([*FUNCTIONS]))
    settings = {
        "units": H,
        "recurrent_activation": gate,
        "activation": other,
        "use_bias": bool(rng.random() < 0.8),
        "unit_forget_bias": bool(rng.random() < 0.5),  # of weights that are replaced
        "zero_output_for_mask": bool(rng.random() < 0.5),
        "return_sequences": bool(rng.random() < 0.8),
    }
    merge = MERGES[n // 2 % 4] if n % 2 else None  # None is a layer of one direction
    if merge:
        settings["zero_output_for_mask"] = settings["return_sequences"]  # as Bidirectional decides
    else:
        settings["go_backwards"] = bool(rng.random() < 0.5)
    arrays = {"x": rng.standard_normal((B, T, I))}
    for d in range(2 if merge else 1):
        arrays |= {f"kernel_{d}": rng.standard_normal((I, 4 * H)) / np.sqrt(I)}
        arrays |= {f"recurrent_{d}": rng.standard_normal((H, 4 * H)) / np.sqrt(H)}
        arrays |= {f"bias_{d}": rng.standard_normal(4 * H)} if settings["use_bias"] else {}
        arrays |= {f"{state}_{d}": rng.standard_normal((B, H)) for state in ("h0", "c0")}
    mask = rng.random((B, T)) < rng.random() if rng.random() < 0.8 else None
    return settings, merge, arrays, mask


def run_keras(file):
    """Write y, and hn and cn of each direction, of every configuration."""
    import keras

    found = {}
    for n in range(CONFIGURATIONS):
        settings, merge, arrays, mask = random_layer(n)
        layer = keras.layers.LSTM(**settings, return_state=True, dtype="float64")
        if merge:
            layer = keras.layers.Bidirectional(layer, merge_mode=merge, dtype="float64")
        layer.build(arrays["x"].shape)
        kinds, directions = ("kernel", "recurrent", "bias"), (0, 1)
        weights = [arrays.get(f"{kind}_{d}") for d in directions for kind in kinds]
        layer.set_weights([w for w in weights if w is not None])
        states = [arrays.get(f"{state}_{d}") for d in directions for state in ("h0", "c0")]
        initial = [s for s in states if s is not None]
        y, *last = layer(arrays["x"], mask=mask, initial_state=initial)
        found[f"y {n}"] = y
        for d in range(len(last) // 2):
            found |= {f"hn_{d} {n}": last[2 * d], f"cn_{d} {n}": last[2 * d + 1]}
    np.savez(file, **found)


@pytest.fixture(scope="module")
def keras_results(tmp_path_factory):
    """Return what Keras computed, by name and configuration."""
    file = tmp_path_factory.mktemp("keras") / "results.npz"
    # Bidirectional would import TensorFlow where there is one, in seconds and without need.
    code = "import sys; sys.modules['tensorflow'] = None\n"
    code += f"import test_against_keras; test_against_keras.run_keras({str(file)!r})"
    run_python(code, KERAS_BACKEND="numpy")
    with np.load(file) as results:
        return dict(results)


def run_direction(implementation, d, backwards, settings, arrays, mask):
    """Return y in Keras's order, hn, cn of one direction."""
    weights = {"w_ih": arrays[f"kernel_{d}"].T, "w_hh": arrays[f"recurrent_{d}"].T}
    if settings["use_bias"]:
        weights["b_ih"] = arrays[f"bias_{d}"]
    x, h0, c0 = arrays["x"].swapaxes(0, 1), arrays[f"h0_{d}"], arrays[f"c0_{d}"]
    outer = FUNCTIONS[settings["activation"]]
    options = {"activations": (FUNCTIONS[settings["recurrent_activation"]], outer, outer)}
    hold = not settings["zero_output_for_mask"]
    if hold and backwards:
        # Keras holds the output that it computed last; padding="hold" the one before in the input.
        x = x[::-1]
        mask = None if mask is None else mask[:, ::-1]
    else:
        options["reverse"] = backwards
    options["padding"] = "hold" if hold else "zero"
    y, (hn, cn), _ = implementation.lstm_forward(x, **weights, h0=h0, c0=c0, mask=mask, **options)
    y = (y[::-1] if options.get("reverse") else y).swapaxes(0, 1)
    if hold and mask is not None:
        # Before a row's first step, Keras's NumPy back-end has h0, others 0.
        started = np.logical_or.accumulate(mask, axis=1)
        assert not y[~started].any()
        y = np.where(started[:, :, None], y, h0[:, None])
    return y, hn, cn


def merged(merge, outputs):
    """Return the output of one direction, or of both, merged."""
    if merge is None:
        return outputs[0]
    if merge == "concat":
        return np.concatenate(outputs, axis=-1)
    return outputs[0] * outputs[1] if merge == "mul" else sum(outputs) / (1 + (merge == "ave"))


@every_implementation
def test_results_are_those_of_keras(implementation, keras_results):
    for n in range(CONFIGURATIONS):
        settings, merge, arrays, mask = random_layer(n)
        actual, outputs = {}, []
        for d in range(2 if merge else 1):
            backwards = d == 1 or settings.get("go_backwards", False)
            y, hn, cn = run_direction(implementation, d, backwards, settings, arrays, mask)
            actual |= {f"hn_{d}": hn, f"cn_{d}": cn}
            if not settings["return_sequences"]:
                y = y[:, -1]
            elif d == 1:
                y = y[:, ::-1]
            outputs.append(y)
        actual["y"] = merged(merge, outputs)
        expected = {name: keras_results[f"{name} {n}"] for name in actual}
        assert_close(actual, expected, TOLERANCE, floor=1, where=f"{n=} {merge} {settings}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bidirectional_layers_are_keras_s(dtype, keras_results):
    """`LSTM` itself, with its own merging; padding="zero", since Keras holds other outputs."""
    for n in range(1, CONFIGURATIONS, 2):
        settings, merge, arrays, mask = random_layer(n)
        if not settings["return_sequences"]:
            continue
        outer = FUNCTIONS[settings["activation"]]
        lstm = LSTM(
            *(arrays["x"].shape[2], settings["units"]),
            bias=settings["use_bias"],
            batch_first=True,
            bidirectional=True,
            merge=merge,
            activations=(FUNCTIONS[settings["recurrent_activation"]], outer, outer),
            dtype=dtype,
        )
        parameters = lstm.state_dict()
        parameters |= {name: np.zeros_like(parameters[name]) for name in lstm.parameters}
        for d, end in enumerate(["l0", "l0_reverse"]):
            parameters[f"weight_ih_{end}"] = arrays[f"kernel_{d}"].T
            parameters[f"weight_hh_{end}"] = arrays[f"recurrent_{d}"].T
            if settings["use_bias"]:
                parameters[f"bias_ih_{end}"] = arrays[f"bias_{d}"]
        lstm.load_state_dict(parameters)
        x, h0, c0 = (
            a.astype(dtype)
            for a in (
                arrays["x"],
                *(np.stack([arrays[f"{s}_{d}"] for d in (0, 1)]) for s in ("h0", "c0")),
            )
        )
        y, (hn, cn) = lstm(x, (h0, c0), mask=mask)
        actual = {"y": y, "hn_0": hn[0], "hn_1": hn[1], "cn_0": cn[0], "cn_1": cn[1]}
        expected = {name: keras_results[f"{name} {n}"] for name in actual}
        assert_close(actual, expected, TOLERANCE, floor=1, where=f"{n=} {merge} {settings}")


RUN_KERAS = """
import sys
sys.modules["tensorflow"] = None
import keras
from lstm_fast import from_keras
model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
model.save("{path}")
from_keras("{path}", verify=True)
"""


@pytest.mark.parametrize("back_end", ["numpy", "jax", "torch"])
def test_verify_runs_keras_with_any_back_end(tmp_path, back_end):
    pytest.importorskip(back_end)
    pytest.importorskip("h5py")
    run_python(RUN_KERAS.format(path=tmp_path / "model.keras"), KERAS_BACKEND=back_end)
