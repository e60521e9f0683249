"""Initial states that are inputs of a model of ONNX: read in their order, or refused."""

import numpy as np
import pytest
from support import comparisons
from support.onnx_models import lstm_arrays, make_model, make_node, run, value

from lstm_fast import LSTM
from lstm_fast.formats import from_onnx, to_onnx
from lstm_fast.nn import Linear, Sequential

comparisons.require("ONNX Runtime", "onnx", "onnxruntime")

pytestmark = pytest.mark.no_isa

T, B, I, H = 5, 3, 4, 6
INTS = {
    name: np.array(numbers)
    for name, numbers in {
        **{"zero": [0], "one": [1], "two": [2], "three": [3], "minus": [-1], "far": [-(2**40)]},
        **{"four": [4], "pairs": [2, 2], "ones": [1, 1], "scalar0": 0, "scalar1": 1},
        **{
            "first": [0, 1],
            "second": [2, 3],
            "crossed": [1, 0],
            "axes": [0, 3],
            "end": [2**31 - 1],
        },
        **{"as_layers": [2, 2, -1, H], "shape": [1, B, H], "most": [2], "minus2": [-2]},
    }.items()
}


def two_layers(rng, before, states, inputs, D=1, after=()):
    """Return a model of two layers; `states` are the names of h and c of each, "-" for none."""
    constants = {**INTS, "merge": np.array([0, 0, -1])}
    nodes = [*before]
    x = "x"
    for n, (h, c) in enumerate(states):
        arrays = lstm_arrays(rng, I if n == 0 else D * H, H, D)
        constants |= {f"{key}{n}": array for key, array in arrays.items()}
        direction = "bidirectional" if D == 2 else "forward"
        weights = f"{x} W{n} R{n} B{n} - {h} {c}"
        nodes += [
            make_node("LSTM", weights, f"Y{n}", hidden_size=H, name=f"l{n}", direction=direction),
            make_node("Transpose", f"Y{n}", f"t{n}", perm=[0, 2, 1, 3]),
            make_node("Reshape", f"t{n} merge", f"y{n}"),
        ]
        x = f"y{n}"
    given = [value("x", ["T", "B", I]), *(value(*one) for one in inputs)]
    return make_model([*nodes, *after], given, ["y1"], constants)


def stacked(D=1, names=("h0", "c0")):
    return [(name, [2 * D, "B", H]) for name in names]


def both(kind, words, outputs, **attributes):
    """Return a node for h and one for c, in whose words * stands for either."""
    return [
        make_node(kind, words.replace("*", s), outputs.replace("*", s), **attributes) for s in "hc"
    ]


LAYERS = [("h_0", "c_0"), ("h_1", "c_1")]
SLICED = both("Slice", "*0 zero one zero", "*_0") + both("Slice", "*0 one two zero", "*_1")
GATHERED = [
    *both("Gather", "*0 scalar0", "*a"),
    *both("Unsqueeze", "*a zero", "*_0"),
    *both("Gather", "*0 one", "*_1"),
]
TURNED = [*both("Transpose", "*0", "*t", perm=[1, 0, 2]), *both("Split", "*t ones", "*_0 *_1")]
PACKED = [  # (1, layer, unit, h or c)
    node
    for n, s in ((0, "h"), (1, "c"))
    for node in (
        make_node("Gather", f"s scalar{n}", f"s{s}", axis=3),
        make_node("Split", f"s{s} ones", f"{s}p {s}q", axis=1),
        make_node("Squeeze", f"{s}p one", f"{s}x"),
        make_node("Unsqueeze", f"{s}x zero", f"{s}_0"),
        make_node("Transpose", f"{s}q", f"{s}_1", perm=[1, 0, 2]),
    )
]
EACH = [(f"{s}_{n}", ["D", "B", H]) for s in "hc" for n in (0, 1)]
PAIRS = [(f"{s}{n}{d}", [1, "B", H]) for s in "hc" for n in "01" for d in "fb"]
JOINED = [make_node("Concat", f"{s}{n}f {s}{n}b", f"{s}_{n}", axis=0) for s in "hc" for n in "01"]


def rows(feeds, name):
    return feeds[f"{name}0"]


def of_layers(feeds, s):
    return np.concatenate([feeds[f"{s}_{n}"] for n in (0, 1)])


# The nodes before the LSTMs, the inputs, D, and what h or c of a call is of them.
READ = {
    "split": (both("Split", "*0 ones", "*_0 *_1"), stacked(), 1, rows),
    "split of both directions": (both("Split", "*0 pairs", "*_0 *_1"), stacked(2), 2, rows),
    "slice": (SLICED, stacked(), 1, rows),
    "slice to the end": (
        both("Slice", "*0 minus2 minus", "*_0") + both("Slice", "*0 minus end", "*_1"),
        stacked(),
        1,
        rows,
    ),
    "gather": (GATHERED, stacked(), 1, rows),
    "gather of both directions": (
        both("Gather", "*0 first", "*_0") + both("Gather", "*0 second", "*_1"),
        stacked(2),
        2,
        rows,
    ),
    "an input each": (
        [],
        [(f"{s}_{n}", ["D", "B", H]) for s in "hc" for n in (0, 1)],
        1,
        of_layers,
    ),
    "an input each of both directions": (
        [],
        [(f"{s}_{n}", ["D", "B", H]) for s in "hc" for n in (0, 1)],
        2,
        of_layers,
    ),
    "an input for each direction": (
        JOINED,
        PAIRS,
        2,
        lambda feeds, s: np.concatenate([feeds[f"{s}{n}{d}"] for n in "01" for d in "fb"]),
    ),
    "batch first": (
        TURNED,
        [(name, ["B", 2, H]) for name in ("h0", "c0")],
        1,
        lambda feeds, s: feeds[f"{s}0"].swapaxes(0, 1),
    ),
    "units before the batch": (
        [*both("Transpose", "*0", "*t", perm=[0, 2, 1]), *both("Split", "*t ones", "*_0 *_1")],
        [(name, [2, H, "B"]) for name in ("h0", "c0")],
        1,
        lambda feeds, s: feeds[f"{s}0"].swapaxes(1, 2),
    ),
    "an axis of directions": (
        both("Gather", "*0 scalar0", "*_0") + both("Gather", "*0 scalar1", "*_1"),
        [(name, [2, 2, "B", H]) for name in ("h0", "c0")],
        2,
        lambda feeds, s: feeds[f"{s}0"].reshape(4, -1, H),
    ),
    "one array": (
        PACKED,
        [("s", ["B", 2, H, 2])],
        1,
        lambda feeds, s: feeds["s"][..., "hc".index(s)].swapaxes(0, 1),
    ),
}


@pytest.mark.parametrize("name", READ)
def test_states_in_their_order(rng, monkeypatch, name):
    before, inputs, D, expected = READ[name]
    model = two_layers(rng, before, LAYERS, inputs, D)
    seen = []
    call = LSTM.__call__
    monkeypatch.setattr(LSTM, "__call__", lambda *given: seen.append(given) or call(*given))
    block = from_onnx(model, verify=True)
    monkeypatch.undo()
    assert block.num_layers == 2
    for state in seen[0][2]:  # of verify=True
        assert state.shape == (2 * D, B, H) and len(np.unique(state)) == state.size
    shapes = {"x": (T, B, I)}
    for one, shape in inputs:
        shapes[one] = tuple({"B": B, "D": D}.get(size, size) for size in shape)
    feeds = {one: rng.standard_normal(shape, np.float32) for one, shape in shapes.items()}
    y = run(model, feeds)[0]
    found = block(feeds["x"], tuple(expected(feeds, s) for s in "hc"))[0]
    np.testing.assert_allclose(found, y, 0, 1e-6)


def test_a_state_of_h_alone(rng):
    model = two_layers(
        rng,
        [make_node("Split", "h0 ones", "h_0 h_1")],
        [("h_0", "-"), ("h_1", "-")],
        stacked(names=["h0"]),
    )
    block = from_onnx(model, verify=True)
    feeds = {"x": (T, B, I), "h0": (2, B, H)}
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in feeds.items()}
    y = block(feeds["x"], (feeds["h0"], None))[0]
    np.testing.assert_allclose(y, run(model, feeds)[0], 0, 1e-6)


SPLIT = both("Split", "*0 ones", "*_0 *_1")
CROSSED = both("Split", "*0 pairs", "*a *b")
REFUSED = {
    "layers exchanged": (SPLIT, [("h_1", "c_1"), ("h_0", "c_0")], stacked(), 1, "in another order"),
    "layers of c exchanged": (
        SPLIT,
        [("h_0", "c_1"), ("h_1", "c_0")],
        stacked(),
        1,
        "its c is at .* of 'c0'.*another order",
    ),
    "one state for two layers": (
        SPLIT,
        [("h_0", "c_0"), ("h_0", "c_1")],
        stacked(),
        1,
        "in another order",
    ),
    "h and c exchanged": (
        SPLIT,
        [("c_0", "h_0"), ("c_1", "h_1")],
        stacked(),
        1,
        "its h is 'c0', and its c 'h0'",
    ),
    "h and c exchanged, by other names": (
        [],
        [("cell_in.1", "hidden_in.1"), ("cell_in.2", "hidden_in.2")],
        [(f"{s}_in.{n}", [1, "B", H]) for n in (1, 2) for s in ("hidden", "cell")],
        1,
        "its h is 'cell_in.1', and its c 'hidden_in.1'",
    ),
    "c before h in one array": (
        [make_node("Split", "s", "c_0 h_0 c_1 h_1")],
        LAYERS,
        [("s", [4, "B", H])],
        1,
        "its c comes before its h",
    ),
    "states of one layer": (
        [],
        [("h_0", "c_0"), ("-", "-")],
        [(name, [1, "B", H]) for name in ("h_0", "c_0")],
        1,
        "l1: has no initial_h, and other layers have",
    ),
    "directions exchanged": (
        CROSSED + [n for s in "ab" for n in both("Gather", f"*{s} crossed", f"*_{'ab'.index(s)}")],
        LAYERS,
        stacked(2),
        2,
        "its initial_h is no part of an input, or one in another order",
    ),
    "directions turned round": (
        CROSSED
        + [
            n
            for s in "ab"
            for n in both("Slice", f"*{s} minus far zero minus", f"*_{'ab'.index(s)}")
        ],
        LAYERS,
        stacked(2),
        2,
        "another order",
    ),
    "directions put together the other way round": (
        [
            *both("Split", "*0", "*a *b *c *d"),
            *both("Concat", "*b *a", "*_0", axis=0),
            *both("Concat", "*c *d", "*_1", axis=0),
        ],
        LAYERS,
        stacked(2),
        2,
        "at .0, 0, 0. of 'h0', that before it at .1, 0, 0.",
    ),
    "axes that are mixed": (
        both("Reshape", "*0 as_layers", "*r") + both("Split", "*r ones", "*_0 *_1"),
        LAYERS,
        [(name, ["B", 2 * H, 2]) for name in ("h0", "c0")],
        1,
        "l0.*initial_h|no part of an input",
    ),
    "a part of the batch": (
        both("Slice", "*0 zero three one", "*p") + both("Split", "*p ones", "*_0 *_1"),
        LAYERS,
        [(name, [2, 4, H]) for name in ("h0", "c0")],
        1,
        "is a part of the batch, or of the units",
    ),
    "a state of the whole batch": (
        both("Expand", "*a shape", "*_0") + both("Expand", "*a shape", "*_1"),
        LAYERS,
        [(name, [1, 1, H]) for name in ("ha", "ca")],
        1,
        "no part of an input",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_states_in_another_order(rng, name):
    before, states, inputs, D, message = REFUSED[name]
    model = two_layers(rng, before, states, inputs, D)
    with pytest.raises(ValueError, match=message):
        from_onnx(model)
    assert from_onnx(model, "l0").hidden_size == H


def test_states_of_several_blocks(rng, tmp_path):
    """In a model, and of layers of different sizes."""
    first, second = LSTM(I, H, 2, seed=0), LSTM(H, (5, 7), bidirectional=True, seed=1)
    model = Sequential(a=first, b=Linear(H, H, seed=2), c=second)
    to_onnx(tmp_path / "model.onnx", model, state=True)
    read = from_onnx(tmp_path / "model.onnx", verify=True)
    assert [type(block).__name__ for block in read] == ["LSTM", "Linear", "LSTM"]


def test_states_of_layout_1(rng):
    """ONNX Runtime refuses it: it is layout 0 with other axes."""
    arrays = lstm_arrays(rng, I, H, 2)
    blocks = []
    for layout, axes in ((0, [2, "B", H]), (1, ["B", 2, H])):
        options = {"hidden_size": H, "direction": "bidirectional", "layout": layout}
        node = make_node("LSTM", "x W R B - h c", "y", **options)
        given = [value("x", ["T", "B", I]), value("h", axes), value("c", axes)]
        blocks.append(from_onnx(make_model([node], given, ["y"], arrays)))
    plain, turned = blocks
    x = rng.standard_normal((T, B, I), np.float32)
    state = [rng.standard_normal((2, B, H), np.float32) for _ in "hc"]
    y = turned(x.swapaxes(0, 1), state)[0]
    np.testing.assert_array_equal(y.swapaxes(0, 1), plain(x, state)[0])
