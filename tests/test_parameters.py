"""Parameters of an `LSTM`: names, loading, writing, and that no stale ones are used; copies."""

import copy
import pickle

import numpy as np
import pytest
from support.comparing import assert_identical

from lstm_fast import LSTM

TYPES = [np.float16, np.float32, np.float64, np.longdouble, ">f4", ">f8"]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
# Settings, and the names they give.
NAMES = [
    ({}, ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]),
    (
        {"bias": False, "num_layers": 2},
        ["weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"],
    ),
    ({"proj_size": 2, "bias": False}, ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
    (
        {"proj_size": 2, "num_layers": 2, "bidirectional": True},
        [
            f"{kind}_l{layer}{end}"
            for layer in (0, 1)
            for end in ("", "_reverse")
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        ],
    ),
]


@pytest.fixture
def lstm(dtype):
    return LSTM(3, 4, 2, dtype=dtype, seed=0)


@pytest.fixture
def x(dtype, rng):
    return rng.standard_normal((5, 2, 3)).astype(dtype)


def fresh(lstm):
    """Return a new LSTM of the same parameters."""
    other = LSTM(3, 4, 2, dtype=lstm.dtype, matmul=lstm.matmul, seed=1)
    other.load_state_dict(lstm.state_dict())
    return other


def assert_uses_its_parameters(lstm, x):
    """Inference, forward, backward and a new stream are those of an LSTM with nothing cached."""
    other = fresh(lstm)
    y, _, cache = other.forward(x)
    np.testing.assert_array_equal(lstm(x)[0], y)
    np.testing.assert_array_equal(lstm.forward(x)[0], y)
    np.testing.assert_array_equal(lstm.stream(2).step(x[0]), other(x[:1])[0][0])
    expected = other.backward(np.ones_like(y), None, cache)
    actual = lstm.backward(np.ones_like(y), None, lstm.forward(x)[2])
    np.testing.assert_array_equal(actual[0], expected[0])
    assert_identical(actual[2], expected[2])


# Names


@pytest.mark.parametrize(("settings", "names"), NAMES)
def test_names_are_pytorchs(settings, names, dtype):
    lstm = LSTM(3, 4, **settings, dtype=dtype)
    assert list(lstm.state_dict()) == names
    assert set(names) <= set(dir(lstm))
    with lstm.writable() as p:
        assert list(p) == names
        assert len(p) == len(names)
        assert "weight_xx_l0" not in p


def test_state_dict_is_a_copy(lstm):
    before = lstm.state_dict()
    for array in lstm.state_dict().values():
        assert array.flags.owndata and array.flags.writeable
        array.fill(7)
    assert_identical(lstm.state_dict(), before)
    assert_identical({name: getattr(lstm, name) for name in before}, before)


# Loading


@pytest.mark.parametrize("source", TYPES)
def test_loading_casts(lstm, x, source, rng):
    lstm(x)
    values = {k: rng.standard_normal(v.shape).astype(source) for k, v in lstm.state_dict().items()}
    lstm.load_state_dict(values)
    assert_identical(lstm.state_dict(), {k: v.astype(lstm.dtype) for k, v in values.items()})
    assert_uses_its_parameters(lstm, x)


def test_loading_takes_any_mapping_in_any_order_and_layout(lstm, tmp_path):
    values = {k: v + 1 for k, v in lstm.state_dict().items()}
    np.savez(tmp_path / "p.npz", **values)
    with np.load(tmp_path / "p.npz") as archive:
        lstm.load_state_dict(archive)
    assert_identical(lstm.state_dict(), values)
    fortran = {k: np.asfortranarray(v + 1) for k, v in reversed(values.items())}
    lstm.load_state_dict(fortran)
    for array in fortran.values():
        array.fill(7)
    assert_identical(lstm.state_dict(), {k: v + 1 for k, v in values.items()})
    lstm.load_state_dict({k: v.tolist() for k, v in values.items()})
    assert_identical(lstm.state_dict(), values)


NAME = "bias_hh_l1"  # the last one: those before it could be half-loaded


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.pop(NAME), ValueError, rf"missing.*'{NAME}'"),
        (lambda d: d.update(extra=d[NAME]), ValueError, "unknown.*'extra'"),
        (lambda d: d.update({3: d[NAME]}), ValueError, "unknown.*3"),
        (lambda d: d.update({NAME: d[NAME][:-1]}), ValueError, r"expected .*16.*got \(15,\)"),
        (lambda d: d.update({NAME: d[NAME][None]}), ValueError, r"got \(1, 16\)"),
        (lambda d: d.update({NAME: d[NAME][:1]}), ValueError, r"got \(1,\)"),
        (lambda d: d.update({NAME: 0.5}), ValueError, r"got \(\)"),
        (lambda d: d.update({NAME: d[NAME].astype(int)}), TypeError, "got int64"),
        (lambda d: d.update({NAME: d[NAME] > 0}), TypeError, "got bool"),
        (lambda d: d.update({NAME: d[NAME] + 0j}), TypeError, "got complex"),
        (lambda d: d.update({NAME: d[NAME].astype(object)}), TypeError, "got object"),
        (lambda d: d.update({NAME: d[NAME].astype(str)}), TypeError, "got <U"),
        (lambda d: d.update({NAME: None}), TypeError, "got object"),
        (lambda d: d.update({NAME: np.ma.masked_array(d[NAME], d[NAME] > 0)}), TypeError, "mask"),
        (lambda d: d.update({NAME: [[0.5], [0.5, 0.5]]}), (TypeError, ValueError), ""),
    ],
)
def test_nothing_is_loaded_if_something_is_wrong(lstm, change, error, message):
    before = lstm.state_dict()
    values = {name: array + 1 for name, array in before.items()}
    change(values)
    with pytest.raises(error, match=rf"^state_dict.*{message}"):
        lstm.load_state_dict(values)
    assert_identical(lstm.state_dict(), before)


# Writing


def test_attributes_are_read_only(lstm):
    before = lstm.state_dict()
    for name, array in before.items():
        view = getattr(lstm, name)
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
        with pytest.raises(ValueError, match="read-only"):
            view += 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        with pytest.raises(AttributeError, match=f"^{name} is read-only"):
            setattr(lstm, name, array + 1)
    assert_identical(lstm.state_dict(), before)
    with lstm.writable():
        assert not lstm.weight_ih_l0.flags.writeable
    with pytest.raises(AttributeError, match="weight_ih_l9"):
        _ = lstm.weight_ih_l9


@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_every_call_sees_what_was_written(lstm, x, matmul, isa):
    lstm.matmul = matmul
    stream = lstm.stream(2)
    for name in lstm.state_dict():
        lstm(x)
        stream.step(x[0])
        before = lstm.state_dict()
        with lstm.writable() as p:
            for n in (1, 2):
                p[name] += n
                assert_uses_its_parameters(lstm, x)
        assert_uses_its_parameters(lstm, x)
        assert_identical(lstm.state_dict(), before | {name: before[name] + 1 + 2})
        stream.reset()
        np.testing.assert_array_equal(stream.step(x[0]), lstm(x[:1])[0][0])


def test_assigned_values_are_copied_and_checked(lstm, x):
    value = np.arange(16.0)
    with lstm.writable() as p:
        kept = p["bias_ih_l0"]
        p["bias_ih_l0"] = value
        value.fill(np.nan)
        np.testing.assert_array_equal(kept, np.arange(16.0))
        p["bias_ih_l0"] = p["bias_ih_l0"][::-1]  # of itself
        before = lstm.state_dict()
        for wrong in (np.zeros(1), np.zeros((1, 16)), 0.0, np.zeros((4, 4))):
            with pytest.raises(ValueError, match=r"^bias_ih_l0: expected shape \(16,\)"):
                p["bias_ih_l0"] = wrong
        for wrong in (np.zeros(16, int), np.zeros(16, complex), ["a"] * 16, None):
            with pytest.raises(TypeError, match=r"^bias_ih_l0: expected .*floating-point"):
                p["bias_ih_l0"] = wrong
        with pytest.raises(KeyError, match="nope"):
            p["nope"] = np.zeros(16)
        with pytest.raises(KeyError, match="nope"):
            p["nope"]
    assert_identical(lstm.state_dict(), before)
    np.testing.assert_array_equal(lstm.bias_ih_l0, np.arange(16.0)[::-1])
    assert_uses_its_parameters(lstm, x)


def test_a_block_that_raises_keeps_what_it_wrote_and_closes(lstm, x):
    lstm(x)
    before = lstm.state_dict()
    with pytest.raises(RuntimeError, match="stop"), lstm.writable() as p:
        p["bias_ih_l0"] += 1
        raise RuntimeError("stop")
    assert_identical(lstm.state_dict(), before | {"bias_ih_l0": before["bias_ih_l0"] + 1})
    assert_uses_its_parameters(lstm, x)
    assert not lstm.bias_ih_l0.flags.writeable


@pytest.mark.parametrize("how", ["array", "item", "flag"])
def test_arrays_kept_after_the_block_are_read_only(lstm, how):
    with lstm.writable() as p:
        kept = p["bias_ih_l0"]
    before = lstm.state_dict()
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE"):
        if how == "array":
            kept += 1
        elif how == "item":
            p["bias_ih_l0"] = np.zeros(16)
        else:
            kept.flags.writeable = True
    assert_identical(lstm.state_dict(), before)


def test_blocks_nest(lstm, x):
    before = lstm.state_dict()
    with lstm.writable() as outer:
        with lstm.writable() as inner:
            inner["bias_ih_l0"] += 1
            outer["bias_hh_l0"] += 1
        with pytest.raises(ValueError, match="read-only"):
            inner["bias_ih_l0"] += 1
        lstm(x)
        outer["bias_ih_l1"] += 1
        lstm.load_state_dict(lstm.state_dict())
        outer["bias_hh_l1"] += 1
        assert_uses_its_parameters(lstm, x)
    changed = ("bias_ih_l0", "bias_hh_l0", "bias_ih_l1", "bias_hh_l1")
    assert_identical(lstm.state_dict(), before | {name: before[name] + 1 for name in changed})
    assert not any(getattr(lstm, name).flags.writeable for name in before)
    assert_uses_its_parameters(lstm, x)


# Copies


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    "duplicate",
    [
        *(lambda lstm, n=n: pickle.loads(pickle.dumps(lstm, n)) for n in PROTOCOLS),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle{n}" for n in PROTOCOLS), "copy", "deepcopy"],
)
def test_copies_are_independent(lstm, x, duplicate, dropout):
    lstm.dropout, lstm.matmul = dropout, "packed"
    lstm(x)
    other = duplicate(lstm)
    assert repr(other) == repr(lstm)
    assert_identical(other.state_dict(), lstm.state_dict())
    y = lstm.forward(x)[0]
    np.testing.assert_array_equal(other.forward(x)[0], y)  # the same masks, too
    before = lstm.state_dict()
    for name in before:
        with pytest.raises(ValueError, match="WRITEABLE"):
            getattr(other, name).flags.writeable = True
    with other.writable() as p:
        p["bias_ih_l0"] += 1
    assert_identical(lstm.state_dict(), before)
    lstm.dropout = other.dropout = 0
    assert_uses_its_parameters(lstm, x)
    assert_uses_its_parameters(other, x)
    assert not np.array_equal(other(x)[0], lstm(x)[0])


def test_a_copy_made_inside_a_block_is_closed(lstm, x):
    with lstm.writable() as p:
        p["bias_ih_l0"] += 1
        other = copy.deepcopy(lstm)
        p["bias_ih_l0"] += 1
    np.testing.assert_array_equal(other.bias_ih_l0 + 1, lstm.bias_ih_l0)
    assert not other.bias_ih_l0.flags.writeable
    assert_uses_its_parameters(other, x)


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_size", 3),
        ("hidden_size", 5),
        ("num_layers", 2),
        ("bias", False),
        ("batch_first", True),
        ("bidirectional", True),
        ("proj_size", 1),
        ("dtype", np.float64),
    ],
)
def test_sizes_are_fixed(lstm, name, value):
    before = getattr(lstm, name)
    with pytest.raises(AttributeError, match=f"^{name} is fixed"):
        setattr(lstm, name, value)
    assert getattr(lstm, name) == before
