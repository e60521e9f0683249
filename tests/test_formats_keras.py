"""Models from the files of Keras 1, 2 and 3: hand-made ones by arithmetic, and Keras's own."""

import itertools
import json
import random
import struct
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from support import comparisons, keras_models
from support.comparing import assert_close
from support.processes import run_python

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install h5py")
from support import keras_files as files  # noqa: E402
from support.keras_files import entry, lstm_entry, sequential  # noqa: E402
from support.models import model as model_file  # noqa: E402

from lstm_fast import LSTM, nn  # noqa: E402
from lstm_fast.formats import from_keras, to_keras  # noqa: E402
from lstm_fast.formats.keras import inspect  # noqa: E402

pytestmark = pytest.mark.no_isa

B, T, I, H = 3, 5, 4, 6
TOLERANCE = 1e-6
CELL = "layers/lstm/cell"


@pytest.fixture
def x(rng):
    return rng.standard_normal((B, T, I)).astype(np.float32)


def differs(block, x, expected):
    """Whether an output is none of rounding's making."""
    return np.abs(block(x)[0] - expected).max() > 1e-3


# ---- the formats, by arithmetic


def written(path, arrays, layout, **settings):
    """Write one LSTM in one of the layouts."""
    config = sequential(lstm_entry("lstm", H, **settings))
    if layout == "keras":
        files.write_keras(path, config, {CELL: arrays})
    elif layout == "h5":
        files.write_named(path, config, {"lstm": files.named("lstm", arrays)})
    elif layout == "weights of Keras 2":
        files.write_named(path, None, {"lstm": files.named("lstm", arrays)})
    else:
        files.write_numbered(path, {CELL: arrays})
    return path


@pytest.mark.parametrize("layout", ["keras", "h5", "weights of Keras 2", "weights of Keras 3"])
def test_one_lstm(tmp_path, rng, x, layout):
    arrays = files.lstm_arrays(rng, I, H)
    lstm = from_keras(written(tmp_path / "model", arrays, layout))
    assert isinstance(lstm, LSTM) and lstm.batch_first
    assert_close(lstm(x)[0], files.keras_lstm(x, *arrays), TOLERANCE)
    (row,) = inspect(tmp_path / "model")
    assert row[:3] == ("lstm", "LSTM", f"{I} -> {H}") and row.parameters == 4 * H * (I + H + 1)


def test_states_are_those_of_the_reference(tmp_path, rng, x):
    kernel, recurrent, bias = arrays = files.lstm_arrays(rng, I, H)
    lstm = from_keras(written(tmp_path / "model", arrays, "keras"))
    expected = LSTM(I, H, batch_first=True)
    zeros = np.zeros_like(bias)
    values = {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T}
    expected.load_state_dict(values | {"bias_ih_l0": zeros, "bias_hh_l0": bias})
    state = [rng.standard_normal((1, B, H)).astype(np.float32) for _ in range(2)]
    (y, last), (y_expected, last_expected) = lstm(x, state), expected(x, state)
    for one, other in zip((y, *last), (y_expected, *last_expected), strict=True):
        assert_close(one, other, TOLERANCE)


def test_every_wrong_order_of_gates_is_seen(tmp_path, rng, x):
    arrays = files.lstm_arrays(rng, I, H)
    expected = files.keras_lstm(x, *arrays)
    orders = list(itertools.permutations(range(4)))[1:]
    assert len(orders) == 23
    for order in orders:
        wrong = [
            np.concatenate([np.split(array, 4, axis=-1)[gate] for gate in order], axis=-1)
            for array in arrays
        ]
        assert differs(from_keras(written(tmp_path / "model", wrong, "keras")), x, expected)


def test_other_mistakes_are_seen(tmp_path, rng, x):
    kernel, recurrent, bias = arrays = files.lstm_arrays(rng, I, H)
    expected = files.keras_lstm(x, *arrays)
    turned = np.hstack([gate.T for gate in np.hsplit(recurrent, 4)])
    for wrong in (
        [kernel, turned, bias],
        [kernel, recurrent, 2 * bias],
        [kernel, recurrent, 0 * bias],
    ):
        assert differs(from_keras(written(tmp_path / "model", wrong, "keras")), x, expected)


def test_cudnn(tmp_path, rng, x):
    kernel, recurrent, bias = files.lstm_arrays(rng, I, H)
    other = rng.standard_normal(4 * H).astype(np.float32)
    arrays = files.cudnn(kernel, recurrent, bias - other, other)
    expected = files.keras_lstm(x, kernel, recurrent, bias)
    config = sequential(entry("CuDNNLSTM", "lstm", units=H, return_sequences=True))
    files.write_named(tmp_path / "model", config, {"lstm": files.named("lstm", arrays)}, "2.2.4")
    assert_close(from_keras(tmp_path / "model")(x)[0], expected, 2e-6)
    # An LSTM that was loaded with such arrays, and the mistake of reading them as they stand.
    written(tmp_path / "model", arrays, "h5")
    assert_close(from_keras(tmp_path / "model")(x)[0], expected, 2e-6)
    written(tmp_path / "model", [*arrays[:2], bias], "h5")
    assert differs(from_keras(tmp_path / "model"), x, expected)


def stacked(*cells, **settings):
    """Return a model of an RNN with LSTMCells, of which these are units and settings."""
    inner = [
        entry("LSTMCell", f"cell_{n}", units=H) | {"config": {"units": units, **own}}
        for n, (units, own) in enumerate(cells)
    ]
    cell = entry("StackedRNNCells", "stack", cells=inner, reverse_state_order=True)
    return sequential(entry("RNN", "rnn", cell=cell, return_sequences=True, **settings))


def test_stacked_cells(tmp_path, rng, x):
    one, two = files.lstm_arrays(rng, I, 5), files.lstm_arrays(rng, 5, H)
    expected = files.keras_lstm(files.keras_lstm(x, *one), *two)
    path = tmp_path / "model"
    cells = [f"layers/rnn/cell/cells/lstm_cell{end}" for end in ("", "_1")]
    files.write_keras(path, stacked((5, {}), (H, {})), dict(zip(cells, (one, two), strict=True)))
    read = from_keras(path)
    assert isinstance(read, LSTM) and read.num_layers == 2
    assert_close(read(x)[0], expected, TOLERANCE)
    arrays = {
        name: array
        for n, of_cell in enumerate((one, two))
        for name, array in files.named(f"rnn/cell_{n}", of_cell).items()
    }
    files.write_named(path, stacked((5, {"dropout": 0.5}), (H, {})), {"rnn": arrays})
    read = from_keras(path)
    assert [(b.hidden_size, b.variational_dropout) for b in read] == [(5, 0.5), (H, 0)]
    assert_close(read(x)[0], expected, TOLERANCE)
    assert inspect(path)[0][1:3] == ("LSTM", f"{I} -> 5 -> {H}")
    for config, message in (
        (stacked((5, {})), "6 arrays"),
        (stacked((5, {"use_bias": False}), (H, {})), "6 arrays"),
        (stacked((H, {}), (5, {})), "the arrays have 5"),
        (stacked((5, {}), (H, {}), go_backwards=True), "reversed order"),
        (stacked(), "a list of cells"),
    ):
        files.write_named(path, config, {"rnn": arrays})
        with pytest.raises(ValueError, match=message):
            from_keras(path)


def keras_1(path, arrays, *, name="lstm_1", version=None, **settings):
    given = {"output_dim": H, "activation": "tanh", "inner_activation": "hard_sigmoid"}
    given |= {"return_sequences": True, "consume_less": "cpu", "dropout_U": 0.2, "init": "glorot"}
    one = entry("LSTM", name, **(given | settings))
    of_gates = {}
    for gate, n in zip("icfo", (0, 2, 1, 3), strict=True):
        for kind, array in zip("WUb", arrays, strict=True):
            of_gates[f"{name}_{kind}_{gate}"] = np.split(array, 4, axis=-1)[n]
    config = {"class_name": "Sequential", "config": [one]}
    files.write_named(path, config, {name: of_gates}, version)


@pytest.mark.parametrize("version", [None, "1.2.2"])
def test_keras_1(tmp_path, rng, x, version):
    arrays = files.lstm_arrays(rng, I, H)
    keras_1(tmp_path / "model", arrays, version=version)
    expected = files.keras_lstm(x, *arrays, gate=lambda v: np.clip(0.2 * v + 0.5, 0, 1))
    assert_close(from_keras(tmp_path / "model")(x)[0], expected, TOLERANCE)


@pytest.mark.parametrize("version", ["2.15.0", "3.0.0"])
def test_hard_sigmoid_is_that_of_the_version(tmp_path, rng, x, version):
    arrays = files.lstm_arrays(rng, I, H)
    slope = 0.2 if version < "3" else 1 / 6
    config = sequential(lstm_entry("lstm", H, recurrent_activation="hard_sigmoid"))
    files.write_keras(tmp_path / "model", config, {CELL: arrays}, version)
    expected = files.keras_lstm(x, *arrays, gate=lambda v: np.clip(slope * v + 0.5, 0, 1))
    assert_close(from_keras(tmp_path / "model")(x)[0], expected, TOLERANCE)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
def test_bidirectional(tmp_path, rng, x, merge):
    both = [files.lstm_arrays(rng, I, H) for _ in range(2)]
    one, two = (files.keras_lstm(x, *a, backwards=d > 0) for d, a in enumerate(both))
    merged = {
        "concat": np.concatenate([one, two], axis=2),
        "sum": one + two,
        "mul": one * two,
        "ave": (one + two) / 2,
    }
    config = sequential(
        entry("Bidirectional", "both", merge_mode=merge, layer=lstm_entry("lstm", H))
    )
    paths = [f"layers/bidirectional/{d}_layer/cell" for d in ("forward", "backward")]
    files.write_keras(tmp_path / "model", config, dict(zip(paths, both, strict=True)))
    assert_close(from_keras(tmp_path / "model")(x)[0], merged[merge], TOLERANCE)
    if merge == "concat":
        files.write_keras(tmp_path / "model", config, dict(zip(paths, both[::-1], strict=True)))
        assert differs(from_keras(tmp_path / "model"), x, merged[merge])


def test_bidirectional_of_older_files(tmp_path, rng, x):
    """CuDNNLSTM of Keras 2, the arrays of each gate of Keras 1, names in several attributes."""
    both = [files.lstm_arrays(rng, I, H) for _ in range(2)]
    path, gates = tmp_path / "model", [lambda v: np.clip(0.2 * v + 0.5, 0, 1), files.sigmoid]
    hard, soft = (
        np.concatenate(
            [files.keras_lstm(x, *a, gate=g, backwards=d > 0) for d, a in enumerate(both)], axis=2
        )
        for g in gates
    )
    arrays = {}
    for name, (kernel, recurrent, bias) in zip(("forward_a", "backward_a"), both, strict=True):
        of_cudnn = files.cudnn(kernel, recurrent, bias / 2, bias / 2)
        arrays |= files.named(f"both/{name}", of_cudnn)
    inner = entry("CuDNNLSTM", "a", units=H, return_sequences=True)
    config = sequential(entry("Bidirectional", "both", layer=inner))
    files.write_named(path, config, {"both": arrays}, "2.2.4")
    assert_close(from_keras(path)(x)[0], soft, TOLERANCE)
    with h5py.File(path, "r+") as h5:
        names = h5["model_weights/both"].attrs
        given = names["weight_names"]
        del names["weight_names"]
        names["weight_names0"], names["weight_names1"] = given[:4], given[4:]
    assert_close(from_keras(path)(x)[0], soft, TOLERANCE)
    arrays = {}
    for name, of_layer in zip(("forward_a", "backward_a"), both, strict=True):
        for gate, n in zip("icfo", (0, 2, 1, 3), strict=True):
            for kind, array in zip("WUb", of_layer, strict=True):
                arrays[f"{name}_{kind}_{gate}"] = np.split(array, 4, axis=-1)[n]
    settings = {"output_dim": H, "inner_activation": "hard_sigmoid", "return_sequences": True}
    inner = entry("LSTM", "a", activation="tanh", **settings)
    config = {"class_name": "Sequential", "config": [entry("Bidirectional", "both", layer=inner)]}
    files.write_named(path, config, {"both": arrays}, "1.2.2")
    assert_close(from_keras(path)(x)[0], hard, TOLERANCE)


def test_time_major(tmp_path, rng, x):
    arrays = files.lstm_arrays(rng, I, H)
    lstm = from_keras(written(tmp_path / "model", arrays, "h5", time_major=True))
    assert not lstm.batch_first
    expected = files.keras_lstm(x, *arrays).swapaxes(0, 1)
    assert_close(lstm(np.ascontiguousarray(x.swapaxes(0, 1)))[0], expected, TOLERANCE)


def test_half_precision(tmp_path, rng, x):
    arrays = [array.astype(np.float16) for array in files.lstm_arrays(rng, I, H)]
    expected = files.keras_lstm(x, *(array.astype(float) for array in arrays))
    assert_close(from_keras(written(tmp_path / "model", arrays, "h5"))(x)[0], expected, TOLERANCE)
    with h5py.File(tmp_path / "model", "w") as h5:
        for n, array in enumerate(arrays):
            single = array.astype(np.float32).view(np.uint32) & 0xFFFF0000
            arrays[n] = single.view(np.float32)
            dataset = h5.create_dataset(
                f"{CELL}/vars/{n}", data=(single >> 16).astype("<u2").view("V2")
            )
            dataset.attrs["dtype"] = "bfloat16"
    expected = files.keras_lstm(x, *(array.astype(float) for array in arrays))
    assert_close(from_keras(tmp_path / "model")(x)[0], expected, TOLERANCE)


@pytest.mark.parametrize("compression", [{"compression": "gzip"}, {"chunks": (2, 7)}])
def test_arrays_in_chunks(tmp_path, rng, x, compression):
    arrays = files.lstm_arrays(rng, I, H)
    with h5py.File(tmp_path / "model", "w") as h5:
        for n, array in enumerate(arrays):
            how = compression if array.ndim == 2 else {}
            h5.create_dataset(f"{CELL}/vars/{n}", data=array, shuffle="compression" in how, **how)
    assert_close(from_keras(tmp_path / "model")(x)[0], files.keras_lstm(x, *arrays), TOLERANCE)


def functional(*nodes, outputs=("last",)):
    """Return a functional model of Keras 2: an entry and the names before it, for each layer."""
    layers = [
        {**one, "name": one["config"]["name"], "inbound_nodes": [[[b, 0, 0, {}] for b in before]]}
        for one, before in nodes
    ]
    layers = [
        {**one, "inbound_nodes": [] if one["class_name"] == "InputLayer" else one["inbound_nodes"]}
        for one in layers
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [[o, 0, 0] for o in outputs]}
    return {"class_name": "Functional", "config": {"name": "model", "layers": layers, **ends}}


def test_functional_models_and_some_of_their_layers(tmp_path, rng, x):
    one, two = files.lstm_arrays(rng, I, H), files.lstm_arrays(rng, H, H)
    arrays = {"one": files.named("one", one), "last": files.named("last", two), "add": {}}
    nodes = [(entry("InputLayer", "x", batch_input_shape=[None, None, I]), ())]
    nodes += [(lstm_entry("last", H), ("one",)), (lstm_entry("one", H), ("x",))]
    files.write_named(tmp_path / "model", functional(*nodes), arrays)
    expected = files.keras_lstm(files.keras_lstm(x, *one), *two)
    assert_close(from_keras(tmp_path / "model")(x)[0], expected, TOLERANCE)
    nodes += [(entry("Add", "add"), ("one", "last"))]
    files.write_named(tmp_path / "model", functional(*nodes, outputs=("add",)), arrays)
    with pytest.raises(ValueError, match="layer add: is called with"):
        from_keras(tmp_path / "model")
    chosen = from_keras(tmp_path / "model", layers=["one", "last"])
    assert_close(chosen(x)[0], expected, TOLERANCE)
    assert [row.name for row in inspect(tmp_path / "model")] == ["last", "one", "add"]


def test_weights_alone_need_the_order_of_layers(tmp_path, rng, x):
    lstm, dense = files.lstm_arrays(rng, I, H), [rng.standard_normal((H, 2)).astype(np.float32)]
    files.write_numbered(tmp_path / "model", {CELL: lstm, "layers/dense": dense})
    with pytest.raises(ValueError, match="unknown order"):
        from_keras(tmp_path / "model")
    model = from_keras(
        tmp_path / "model",
        layers={"lstm": {"return_sequences": False}, "dense": {"activation": "relu"}},
    )
    expected = np.maximum(files.keras_lstm(x, *lstm)[:, -1] @ dense[0], 0)
    assert_close(model(x)[0], expected, TOLERANCE)
    config = sequential(
        lstm_entry("a", H, return_sequences=False),
        entry("Dense", "b", units=2, use_bias=False, activation="relu"),
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    for given in (config, tmp_path / "config.json"):
        model = from_keras(tmp_path / "model", config=given)
        assert_close(model(x)[0], expected, TOLERANCE)


def test_old_weights_alone_leave_the_gates_function_in_doubt(tmp_path, rng, x):
    arrays = {"lstm": files.named("lstm", files.lstm_arrays(rng, I, H))}
    files.write_named(tmp_path / "model", None, arrays, "2.2.4-tf")
    with pytest.raises(ValueError, match="recurrent_activation was hard_sigmoid or sigmoid"):
        from_keras(tmp_path / "model")
    layers = {"lstm": {"recurrent_activation": "hard_sigmoid"}}
    assert from_keras(tmp_path / "model", layers=layers).activations[0] == ("HardSigmoid", 0.2, 0.5)


def test_verify(tmp_path, rng, x, capsys):
    arrays = files.lstm_arrays(rng, I, H)
    path = written(tmp_path / "model", arrays, "h5")
    y = files.keras_lstm(x, *arrays)
    from_keras(path, verify=(x, y))
    assert "largest difference" in capsys.readouterr().err
    with pytest.raises(ValueError, match="more than rounding"):
        from_keras(path, verify=(x, y + 0.01))


# ---- what is refused


REFUSED = {
    "layer lstm: activation = 'gelu'": lstm_entry("lstm", H, activation="gelu"),
    "no function of one number": lstm_entry("lstm", H, activation="softmax"),
    "builtins": lstm_entry("lstm", H, activation={"module": "builtins", "class_name": "function"}),
    "reversed order": lstm_entry("lstm", H, go_backwards=True),
    "use_bias = False": lstm_entry("lstm", H, use_bias=False),
    "units": lstm_entry("lstm", H + 1),
    "projection = 3": lstm_entry("lstm", H, projection=3),
    "return_sequences = 'yes'": lstm_entry("lstm", H, return_sequences="yes"),
    "is a GRU": entry("GRU", "lstm", units=H),
    "is a Lambda": entry("Lambda", "lstm", function="exec"),
    "is a mine.LSTM": {**lstm_entry("lstm", H), "module": "mine"},
    "quantised": lstm_entry("lstm", H, dtype={"class_name": "QuantizedDTypePolicy"}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_no_block_computes(tmp_path, rng, message):
    arrays = files.lstm_arrays(rng, I, H)
    config = sequential(REFUSED[message])
    files.write_named(tmp_path / "model", config, {"lstm": files.named("lstm", arrays)})
    with pytest.raises(ValueError, match=message) as error:
        from_keras(tmp_path / "model")
    assert str(error.value).startswith(str(tmp_path / "model"))
    assert [row.name for row in inspect(tmp_path / "model")] == ["lstm"]


def test_flatten_of_steps_that_are_no_columns(tmp_path, rng):
    arrays = files.named("lstm", files.lstm_arrays(rng, I, H))
    masking, flatten = entry("Masking", "mask", mask_value=0.0), entry("Flatten", "flat")
    for entries, message in (
        ([masking, lstm_entry("lstm", H), flatten], "masked steps"),
        ([lstm_entry("lstm", H, time_major=True), flatten], "unknown axes"),
        ([lstm_entry("lstm", H), entry("Flatten", "flat", data_format="channels_first")], "_last"),
    ):
        files.write_named(
            tmp_path / "model",
            sequential(*entries),
            {
                one["config"]["name"]: arrays if one["class_name"] == "LSTM" else {}
                for one in entries
            },
        )
        with pytest.raises(ValueError, match=message):
            from_keras(tmp_path / "model")


@pytest.mark.parametrize("settings", [{"merge_mode": None}, {"merge_mode": "mul"}])
def test_bidirectional_without_an_output_that_can_be_read(tmp_path, rng, settings):
    inner = lstm_entry("lstm", H, return_sequences=False)
    config = sequential(entry("Bidirectional", "both", layer=inner, **settings))
    arrays = [*files.lstm_arrays(rng, I, H), *files.lstm_arrays(rng, I, H)]
    names = [f"{d}/{n}" for d in "ab" for n in ("kernel", "recurrent_kernel", "bias")]
    files.write_named(tmp_path / "model", config, {"both": files.named("both", arrays, names)})
    with pytest.raises(ValueError, match="merge_mode"):
        from_keras(tmp_path / "model")


# ---- into Keras


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_into_keras_and_back(tmp_path, rng, options):
    lstm = LSTM(I, H, seed=0, **options)
    arrays, per_layer = to_keras(lstm), 3 if lstm.bias else 2
    layers = {}
    for n in range(lstm.num_layers):
        for d in ("forward", "backward")[: 1 + lstm.bidirectional]:
            inner = f"{d}_layer/cell" if lstm.bidirectional else "cell"
            kind = "bidirectional" if lstm.bidirectional else "lstm"
            group = f"layers/{kind}{'_1' * (n > 0)}/{inner}"
            layers[group], arrays = arrays[:per_layer], arrays[per_layer:]
    assert not arrays
    one = lstm_entry("lstm", H, use_bias=lstm.bias)
    entries = [one | {"config": one["config"] | {"name": f"l{n}"}} for n in range(lstm.num_layers)]
    if lstm.bidirectional:
        entries = [entry("Bidirectional", f"b{n}", layer=e) for n, e in enumerate(entries)]
    files.write_keras(tmp_path / "model", sequential(*entries), layers)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    y = from_keras(tmp_path / "model")(np.ascontiguousarray(x.swapaxes(0, 1)))[0]
    assert_close(y.swapaxes(0, 1), lstm(x)[0], TOLERANCE)


def test_into_keras_of_a_model(rng):
    model = nn.Sequential(
        embed=nn.Embedding(7, I), lstm=LSTM(I, H), last=nn.Last(), head=nn.Linear(H, 2)
    )
    shapes = [(7, I), (I, 4 * H), (H, 4 * H), (4 * H,), (H, 2), (2,)]
    assert [array.shape for array in to_keras(model)] == shapes
    refused = [{"proj_size": 2}, {"peephole": True}, {"zoneout": (0.1, 0.1)}, {"clip": 1.0}]
    for options in [*refused, {"layer_norm": True}, {"layer_norm": "gates"}]:
        with pytest.raises(ValueError, match=f"{next(iter(options))}: is"):
            to_keras(LSTM(I, H, **options))


# ---- files that lie


def good(path, rng):
    """Write a small model in the two layouts of HDF5 files, and as a zip; return their contents."""
    arrays = files.lstm_arrays(rng, 2, 3)
    found = {}
    for layout in ("h5", "keras", "weights of Keras 3"):
        config = sequential(lstm_entry("lstm", 3))
        if layout == "h5":
            files.write_named(path, config, {"lstm": files.named("lstm", arrays)})
        elif layout == "keras":
            files.write_keras(path, config, {CELL: arrays})
        else:
            files.write_numbered(path, {CELL: arrays})
        found[layout] = path.read_bytes()
    return found


def attempt(path, data):
    path.write_bytes(data)
    try:
        from_keras(path)
    except (ValueError, ImportError, FileNotFoundError) as error:
        assert str(path) in str(error), error


def test_truncated_files(tmp_path, rng):
    for data in good(tmp_path / "model", rng).values():
        for end in range(0, len(data), 64):
            path = tmp_path / "cut"
            path.write_bytes(data[:end])
            with pytest.raises(ValueError, match=str(path)):
                from_keras(path)


@pytest.mark.parametrize(
    "layout, times", [("h5", 500), ("keras", 700), ("weights of Keras 3", 500)]
)
def test_changed_bytes(tmp_path, rng, layout, times):
    data = good(tmp_path / "model", rng)[layout]
    chance = random.Random(1)
    for _ in range(times):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 2, 8, 32])):
            changed[chance.randrange(len(data))] = chance.choice([0, 1, 127, 128, 255])
        attempt(tmp_path / "changed", changed)


ODD = [
    None,
    -1,
    True,
    "x",
    [],
    {},
    [[]],
    2**70,
    1e30,
    "softmax",
    {"class_name": "LSTM", "config": {}},
]


def changed_everywhere(value):
    """Return a JSON value with each of its parts replaced by odd ones, one after the other."""
    yield from ODD
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in changed_everywhere(inner))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from ([*value[:n], other, *value[n + 1 :]] for other in changed_everywhere(inner))


def test_odd_configurations(tmp_path, rng):
    arrays = files.lstm_arrays(rng, 2, 3)
    nodes = [(entry("InputLayer", "x"), ()), (lstm_entry("last", 3), ("x",))]
    both = entry("Bidirectional", "last", layer=lstm_entry("lstm", 3))
    for config in (functional(*nodes), sequential(both, entry("Dropout", "d", rate=0.5))):
        for odd in list(changed_everywhere(config))[::2]:
            files.write_named(tmp_path / "odd", odd, {"last": files.named("last", arrays)})
            attempt(tmp_path / "odd", (tmp_path / "odd").read_bytes())


def test_links_and_arrays_elsewhere(tmp_path, rng):
    arrays = files.lstm_arrays(rng, I, H)
    path, other = tmp_path / "model", tmp_path / "other"
    files.write_numbered(other, {CELL: arrays})
    (tmp_path / "raw").write_bytes(bytes(arrays[0].nbytes))
    virtual = h5py.VirtualLayout(arrays[0].shape, np.float32)
    virtual[...] = h5py.VirtualSource(str(other), f"{CELL}/vars/0", arrays[0].shape)
    makers = {
        "ExternalLink": lambda group: group.__setitem__(
            "0", h5py.ExternalLink(str(other), f"{CELL}/vars/0")
        ),
        "SoftLink": lambda group: group.__setitem__("0", h5py.SoftLink(f"/{CELL}/vars/1")),
        "two places": lambda group: group.__setitem__("0", group["1"]),
        "another file": lambda group: group.create_virtual_dataset("0", virtual),
        "in another file": lambda group: group.create_dataset(
            "0",
            arrays[0].shape,
            np.float32,
            external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)],
        ),
    }
    for message, make in makers.items():
        files.write_numbered(path, {CELL: arrays})
        with h5py.File(path, "a") as h5:
            del h5[f"{CELL}/vars/0"]
            make(h5[f"{CELL}/vars"])
        with pytest.raises(ValueError, match=message):
            from_keras(path)


def test_more_than_the_file_can_hold(tmp_path, rng):
    arrays = files.lstm_arrays(rng, I, H)
    for how in ({}, {"compression": "gzip"}, {"chunks": (2**20, 1)}):
        files.write_numbered(tmp_path / "model", {CELL: arrays[1:]})
        with h5py.File(tmp_path / "model", "a") as h5:
            del h5[f"{CELL}/vars/0"]
            h5.create_dataset(f"{CELL}/vars/0", (2**20, 4 * H), np.float32, **how)
        with pytest.raises(ValueError, match=r"more than the file can hold|not all there"):
            from_keras(tmp_path / "model")


def test_zips_that_lie(tmp_path, rng):
    path = tmp_path / "model"
    written(path, files.lstm_arrays(rng, I, H), "keras")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    cases = {
        "'../x'": {**parts, "../x": b""},
        "'/x'": {**parts, "/x": b""},
        "zip bomb": {**parts, "model.weights.h5": bytes(2**26)},
        "config.json: is not in the zip": {"model.weights.h5": b""},
        "no JSON": {**parts, "config.json": b"{"},
        "a key stands twice": {**parts, "config.json": b'{"a": 1, "a": 2}'},
        "zip: cannot be read": {**parts, "config.json": b"\xff"},
        "configuration: is no JSON": {**parts, "config.json": b"[" * 100000},
        "config.json: would be": {**parts, "config.json": b"[" + b"[]," * 2**20 + b"[]]"},
    }
    for message, contents in cases.items():
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        with pytest.raises(ValueError, match=message):
            from_keras(path)


def test_a_heap_in_which_hdf5_would_go_round(tmp_path, rng):
    data = good(tmp_path / "model", rng)["h5"]
    heap = data.index(b"GCOL")
    broken = bytearray(data)
    broken[heap + 16 : heap + 32] = struct.pack("<HHIQ", 0, 0, 0, 0)
    (tmp_path / "model").write_bytes(broken)
    with pytest.raises(ValueError, match="broken heap"):
        from_keras(tmp_path / "model")


def test_a_model_of_its_authors_class(tmp_path, rng, x):
    arrays = files.lstm_arrays(rng, I, H)
    config = {"class_name": "Tagger", "module": "mine", "config": {"units": H}}
    files.write_keras(tmp_path / "model", config, {"encoder/rnn/cell": arrays})
    with pytest.raises(ValueError, match=r"is a mine\.Tagger, whose code"):
        from_keras(tmp_path / "model")
    (row,) = inspect(tmp_path / "model")
    lstm = from_keras(tmp_path / "model", layers={row.name: {}})
    assert_close(lstm(x)[0], files.keras_lstm(x, *arrays), TOLERANCE)
    for odd in ([], "model", None, 1):
        files.write_keras(tmp_path / "model", odd, {"encoder/rnn/cell": arrays})
        assert len(inspect(tmp_path / "model")) == 1


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_keras(tmp_path / "none.keras")
    with pytest.raises(ValueError, match="is a folder"):
        from_keras(tmp_path)


# ---- files of others


@pytest.mark.skipif(find_spec("onnx") is None, reason="onnx is not installed")
def test_dtln():
    import onnx

    settings = {"recurrent_activation": "sigmoid"}
    model = from_keras(
        model_file("dtln/model.h5"),
        layers={"lstm": settings, "lstm_1": settings, "dense": {"activation": "sigmoid"}},
    )
    graph = onnx.load(model_file("dtln/model_1.onnx")).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}

    def rows(array):  # i, o, f, c
        return array.reshape(4, -1, *array.shape[1:])[[0, 2, 3, 1]].reshape(array.shape)

    for ours, theirs in (("lstm", "lstm_4"), ("lstm_1", "lstm_5")):
        values = model[ours].state_dict()
        bias = np.split(arrays[f"{theirs}_B"][0], 2)
        np.testing.assert_array_equal(values["weight_ih_l0"], rows(arrays[f"{theirs}_W"][0]))
        np.testing.assert_array_equal(values["weight_hh_l0"], rows(arrays[f"{theirs}_R"][0]))
        np.testing.assert_array_equal(values["bias_ih_l0"], rows(bias[0]))
        np.testing.assert_array_equal(values["bias_hh_l0"], rows(bias[1]))
    np.testing.assert_array_equal(model["dense"].weight.T, arrays["dense_2/kernel:0"])
    np.testing.assert_array_equal(model["dense"].bias, arrays["dense_2/bias:0"])
    with pytest.raises(ValueError, match="layer conv1d"):
        from_keras(model_file("dtln/model.h5"), layers=["conv1d"])
    assert "lstm_3" in {row.name for row in inspect(model_file("dtln/model.h5"))}


# ---- Keras's own files

NAMES = [
    *("lstm", "last", "backwards", "without_bias", "functions", "two_layers", "rnn", "stateful"),
    *("half", "double", "both_last", "around", "nested", "masked", "masking", "words", "flat"),
    *("concat", "sum", "mul", "ave", "sum_last", "ave_last", "stacked", "stacked_apart"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    missing = [name for name in ("keras", "jax") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{comparisons.MARK}files of Keras: {comparisons.pip_line(missing)}")
    return keras_models.written(tmp_path_factory.mktemp("keras"))


@pytest.mark.parametrize("end", ["keras", "h5"])
@pytest.mark.parametrize("name", NAMES)
def test_models_that_keras_saved(saved, name, end):
    with np.load(saved / f"{name}.npz") as recorded:
        x, y = recorded["x"], recorded["y"]
        arrays = [recorded[key] for key in recorded.files if key not in ("x", "y")]
    model = from_keras(saved / f"{name}.{end}")
    x = x.astype(model.dtype) if x.dtype.kind == "f" else x
    assert_close(model(x)[0], y, 2e-3 if name == "half" else TOLERANCE)
    assert inspect(saved / f"{name}.{end}")
    if name not in ("around", "sum_last", "ave_last"):  # in which Keras has other arrays
        for ours, theirs in zip(to_keras(model), arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_masks_of_any_steps(saved, both, last):
    name = f"gaps{'_both' * both}{'_last' * last}"
    with np.load(saved / f"{name}.npz") as recorded:
        x, y = recorded["x"], recorded["y"]
    embedding, lstm, *_ = from_keras(saved / f"{name}.keras")
    assert "pass lengths" in inspect(saved / f"{name}.keras")[0].options
    # Keras has zeros at masked steps of a Bidirectional, else it repeats the output before.
    padding = "zero" if both else "hold"
    steps, (h, _) = lstm(embedding(x)[0], mask=x != 0, padding=padding)
    assert_close(np.concatenate([*h], axis=1) if last else steps, y, TOLERANCE)


@pytest.mark.parametrize("both", [False, True])
def test_padding_before_sequences_is_moved_behind_them(saved, both):
    name = f"gaps{'_both' * both}_last"
    with np.load(saved / f"{name}.npz") as recorded:
        x, y = recorded["x"][:2], recorded["y"][:2]
    moved = np.stack([np.roll(row, -np.argmax(row != 0)) for row in x])
    model = from_keras(saved / f"{name}.keras")
    assert_close(model(moved, lengths=(x != 0).sum(axis=1))[0], y, TOLERANCE)


@pytest.mark.parametrize(
    "name", ["lstm", "without_bias", "two_layers", "concat", "masked", "nested", "stacked_apart"]
)
def test_weights_that_keras_saved(saved, name):
    with zipfile.ZipFile(saved / f"{name}.keras") as archive:
        config = json.loads(archive.read("config.json"))
    one = from_keras(saved / f"{name}.keras").state_dict()
    two = from_keras(saved / f"{name}.weights.h5", config=config).state_dict()
    assert one.keys() == two.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key])


def test_nothing_of_keras_is_imported(tmp_path, rng):
    path = written(tmp_path / "model.keras", files.lstm_arrays(rng, I, H), "keras")
    code = f"""if True:
        import sys
        sys.modules |= dict.fromkeys(("keras", "tensorflow", "tf_keras", "jax", "torch"))
        from lstm_fast.formats import from_keras
        print(from_keras({str(path)!r}))
        """
    assert run_python(code).startswith("LSTM(4, 6")
