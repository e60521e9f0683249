"""One layer with random options of the cell, and arguments that go with them."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support.comparing import assert_close
from support.layers import STATES, draw_layer

# Functions of ONNX, with bounds of alpha and beta; the unbounded ones grow over time, so that they
# come in cells whose state is clipped.
FUNCTIONS = {
    "Sigmoid": [],
    "Tanh": [],
    "Relu": [],
    "HardSigmoid": [(0.1, 0.5), (0.3, 0.7)],
    "Softsign": [],
    "Softplus": [],
    "Elu": [(0.2, 1.5)],
    "LeakyRelu": [(0.01, 0.5)],
    "ThresholdedRelu": [(0.1, 1.0)],
    "ScaledTanh": [(0.5, 1.5), (0.5, 1.5)],
    "Affine": [(0.2, 1.0), (-0.5, 0.5)],
}
OPTIONS = ["peephole", "coupled", "clip", "cell_clip", "activations", "layer_norm", "zoneout"]
OPTIONS += ["recurrent_mask", "lengths", "mask", "hold", "reverse", "projection", "norm_of_gates"]
# Errors of results and of gradients, relative to the largest element of an array, or to 1: three
# times the largest of thousands of random combinations, of seeds other than those of the tests.
# Most functions let an error pass on undiminished from step to step; layer norm of a row of nearly
# equal elements enlarges it. An element beside a kink may fall to its other side, which no bound
# allows for; none does.
TOLERANCE = {
    "float32": {
        (): (2e-6, 8e-6),
        ("activations",): (4e-5, 9e-5),
        ("layer_norm",): (5e-6, 2e-4),
        ("activations", "layer_norm"): (5e-5, 2e-4),
    },
    "float64": {
        (): (4e-15, 1.2e-14),
        ("activations",): (3e-14, 5e-14),
        ("layer_norm",): (2e-14, 1e-12),
        ("activations", "layer_norm"): (4e-14, 2e-12),
    },
}
# Layer norm of a few elements that are nearly equal, with an epsilon of 1e-8, enlarges it most, and
# a gradient through that of two is all cancellation.
FEW_UNITS = 7
OF_FEW_UNITS = {"float32": (1e-4, 1e-2), "float64": (3e-13, 3e-11)}
GAINS = {"w_ln_ih": 4, "w_ln_hh": 4, "w_ln_c": 1, "b_ln_c": 1}

EXCLUDED = [{"zoneout", "projection"}, {"layer_norm", "norm_of_gates"}]

chosen = st.sets(st.sampled_from(OPTIONS)).filter(lambda on: not any(e <= on for e in EXCLUDED))

# A call of the engine is the same for each example, and so is the ISA.
MANY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def draw_with_options(rng, on, T, B, I, H, dtype):
    """Return arguments of `lstm_forward` with these options, and the gradients of its results."""
    P = max(1, H // 2) if "projection" in on else 0
    args, d_results = draw_layer(rng, T, B, I, H, P, dtype=dtype)
    given = {}
    if "peephole" in on:
        given["w_ch"] = rng.standard_normal(3 * H)
    if "layer_norm" in on:
        given |= {name: rng.uniform(0.5, 1.5, n * H) for name, n in GAINS.items()}
    if "norm_of_gates" in on:
        given["w_ln"] = rng.uniform(0.5, 1.5, 4 * H)
    if "recurrent_mask" in on:
        given["recurrent_mask"] = rng.choice([0.0, 1.25], (B, P or H))
    args |= {name: value.astype(dtype) for name, value in given.items()}
    if "zoneout" in on:
        masks = (rng.random((2, T, B, H)) < 0.3).astype(dtype)
        args["zoneout"] = [(masks[0], masks[1]), (0.2, 0.1), (masks[0], 0.3)][rng.integers(3)]
    if "coupled" in on:
        args["coupled"] = True
    if "clip" in on:
        args["clip"] = float(rng.uniform(0.5, 1.5))
    if "cell_clip" in on or "activations" in on:
        args["cell_clip"] = float(rng.uniform(0.5, 1.5))
    if "activations" in on:
        args["activations"] = [draw_function(rng) for _ in range(3)]
    if "lengths" in on:
        args["lengths"] = rng.integers(0, T + 1, B)
    if "mask" in on:
        args["mask"] = rng.random((B, T)) < 0.6
    if "hold" in on:
        args["padding"] = "hold"
    if "reverse" in on:
        args["reverse"] = True
    return args, d_results


def assert_options_close(actual, exact, on, dtype):
    """Compare results and gradients, in the dtype, with those in float64."""
    key = tuple(sorted({"activations", "layer_norm"} & {*on}))
    of_results, of_gradients = TOLERANCE[dtype.name][key]
    if "norm_of_gates" in on and exact["cn"].shape[1] < FEW_UNITS:
        of_results, of_gradients = OF_FEW_UNITS[dtype.name]
    for tolerance, chosen in [
        (of_results, lambda name: name in STATES),
        (of_gradients, lambda name: name not in STATES),
    ]:
        a, e = ({k: v for k, v in part.items() if chosen(k)} for part in (actual, exact))
        assert_close(a, e, tolerance, floor=1, dtype=dtype, where=f"{on=}")


def draw_function(rng, name=None):
    """Return (name, alpha, beta), as far as the function has them; any, if no name is given."""
    name = name or str(rng.choice([*FUNCTIONS]))
    return (name, *(float(rng.uniform(*bounds)) for bounds in FUNCTIONS[name]))
