"""One flat buffer of parameters, and of gradients: layout, writing, moving."""

import copy
import gc
import pickle
from contextlib import suppress

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import Gradients, Layout, Parameters, parameters_of
from support.pauses import beside

from lstm_fast import LSTM

pytestmark = pytest.mark.no_isa

SHAPES = {"weight": (3, 7), "bias": (17,), "scalar": (), "empty": (0, 4), "last": (2, 2)}
OFFSETS = (0, 32, 64, 80, 80)


@pytest.fixture
def layout(dtype):
    return Layout(SHAPES, dtype)


@pytest.fixture
def values(dtype, rng):
    return {name: np.asarray(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


@pytest.fixture
def x(dtype, rng):
    return rng.standard_normal((3, 2, 4)).astype(dtype)


@pytest.fixture
def lstm(dtype):
    return LSTM(4, 5, dtype=dtype, seed=0)


def assert_current(lstm, x):
    fresh = LSTM(4, 5, dtype=lstm.dtype)
    fresh.load_state_dict(lstm.state_dict())
    np.testing.assert_array_equal(lstm(x)[0], fresh(x)[0])


# ---- layouts


def test_arrays_begin_at_multiples_of_16(layout, dtype):
    assert (layout.names, layout.shapes) == (tuple(SHAPES), tuple(SHAPES.values()))
    assert (layout.offsets, layout.size, layout.dtype) == (OFFSETS, 96, dtype)
    flat = layout.zeros()
    assert (flat.shape, flat.dtype) == ((96,), dtype)
    assert flat.ctypes.data % 64 == 0 and not flat.any()
    views = layout.views(flat)
    assert {name: view.shape for name, view in views.items()} == SHAPES
    for n, view in enumerate(views.values()):
        view[...] = n + 1
    assert [flat[offset] for offset in OFFSETS[:3]] == [1, 2, 3]
    assert np.count_nonzero(flat) == 21 + 17 + 1 + 4


def test_layouts_one_after_the_other_are_that_of_all(dtype):
    first, second = Layout({"a": (3,), "b": (20,)}, dtype), Layout({"c": (1,)}, dtype)
    both = Layout({"a": (3,), "b": (20,), "c": (1,)}, dtype)
    assert both.offsets == (*first.offsets, *(first.size + n for n in second.offsets))
    assert both.size == first.size + second.size


def test_layouts_are_compared_by_value(layout, dtype):
    assert layout == Layout(SHAPES, dtype)
    assert layout != Layout(SHAPES, "f4" if dtype == "f8" else "f8")
    assert layout != Layout({name: SHAPES[name] for name in reversed(SHAPES)}, dtype)
    assert pickle.loads(pickle.dumps(layout)) == layout


# ---- gradients


def test_gradients_are_views_and_not_copied(layout, values):
    grads = Gradients(layout)
    for name, value in values.items():
        grads[name][...] = value
    assert_identical(dict(grads), values)
    grads["weight"] *= 2
    assert layout.flat(grads) is grads.flat
    np.testing.assert_array_equal(grads.flat[:21].reshape(3, 7), 2 * values["weight"])


def test_other_gradients_are_copied(layout, values):
    flat = layout.flat(values)
    assert_identical(layout.views(flat), values)
    flat[:] = 7
    again = layout.flat(values)  # in memory that was used before: gaps are zeros
    assert np.count_nonzero(again) == np.count_nonzero(flat[: 21 + 17 + 1 + 4])
    other = Gradients(Layout(dict(reversed(SHAPES.items())), layout.dtype))
    assert layout.flat(other) is not other.flat
    wide = {name: np.asarray(v, np.longdouble) for name, v in values.items()}
    assert_identical(layout.views(layout.flat(wide)), values)


@pytest.mark.parametrize("how", ["replaced", "deleted and set"])
def test_a_replaced_gradient_counts(layout, how):
    grads = Gradients(layout)
    if how == "deleted and set":
        del grads["bias"]
    grads["bias"] = np.ones(17)
    flat = layout.flat(grads)
    assert flat is not grads.flat and flat.sum() == 17


@pytest.mark.parametrize(
    "duplicate", [lambda g: pickle.loads(pickle.dumps(g)), copy.copy, copy.deepcopy]
)
def test_copies_of_gradients(layout, values, duplicate):
    grads = Gradients(layout, layout.flat(values))
    other = duplicate(grads)
    assert layout.flat(other) is other.flat
    other["bias"] += 1
    np.testing.assert_array_equal(layout.views(other.flat)["bias"], other["bias"])
    grads["bias"] = np.full(17, 3.0)
    assert_identical(dict(duplicate(grads)), dict(grads))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.pop("bias"), ValueError, r"^grads: missing keys \['bias'\]"),
        (lambda d: d.update(more=np.zeros(2)), ValueError, r"^grads: unknown keys \['more'\]"),
        (lambda d: d.update(bias=np.zeros(3)), ValueError, r"^grads\['bias'\]: .*\(17,\).*\(3,\)"),
        (lambda d: d.update(bias=np.zeros(17, int)), TypeError, r"^grads\['bias'\]: .*int64"),
    ],
)
def test_wrong_gradients_are_named(layout, change, error, message):
    grads = Gradients(layout)
    change(grads)
    with pytest.raises(error, match=message):
        layout.flat(grads)
    with pytest.raises(TypeError, match=r"^grads: expected a mapping, got list"):
        layout.flat([])


# ---- parameters


def test_parameters_are_views_of_one_buffer(values, dtype):
    parameters = Parameters(values)
    assert parameters.layout == Layout(SHAPES, dtype)
    assert_identical(dict(parameters), values)
    starts = [view.ctypes.data for name, view in parameters.items() if name != "empty"]
    expected = [
        o * dtype.itemsize for o, s in zip(OFFSETS, SHAPES.values(), strict=True) if 0 not in s
    ]
    assert [start - starts[0] for start in starts] == expected
    assert not any(view.flags.writeable for view in parameters.values())
    with pytest.raises(TypeError, match=r"^values: expected one dtype, got"):
        Parameters({"a": np.zeros(1, "f4"), "b": np.zeros(1, "f8")})
    with parameters.writable() as p:
        for name in p:
            p[name] += 1
    assert_identical(
        dict(parameters), {name: value + dtype.type(1) for name, value in values.items()}
    )
    none = Parameters({})
    with none.update() as flat:
        assert flat.size == none.layout.size == 0
    assert none.settled and none.state_dict() == {}


def test_update_writes_all(lstm, x):
    parameters = parameters_of(lstm)
    before, version = lstm.state_dict(), parameters.version.number
    lstm(x)
    with parameters.update() as flat:
        assert flat.shape == (parameters.layout.size,) and flat.flags.writeable
        assert not parameters.settled
        flat *= 2
        assert_current(lstm, x)
        flat *= 2
    assert_identical(lstm.state_dict(), {name: 4 * value for name, value in before.items()})
    assert parameters.settled and parameters.version.number > version
    assert_current(lstm, x)
    with pytest.raises(ValueError, match="read-only"):
        flat *= 2


def test_a_slice_of_the_buffer_that_is_kept(lstm, x):
    parameters = parameters_of(lstm)
    with parameters.update() as flat:
        kept = flat[3:]
    assert not parameters.settled
    kept += 1
    assert_current(lstm, x)
    with pytest.raises(ValueError, match=r"^parameters are open for writing"):
        parameters.move(parameters.layout.zeros(), 0)
    del kept, flat
    gc.collect()
    assert parameters.settled


def test_parameters_move_to_another_buffer(lstm, x):
    parameters = parameters_of(lstm)
    before, version = lstm.state_dict(), parameters.version.number
    lstm(x)
    size = parameters.layout.size
    joined = np.full(size + 48, 7, lstm.dtype)
    parameters.move(joined, 16)
    assert parameters.version.number > version
    assert_identical(lstm.state_dict(), before)
    assert not lstm.weight_ih_l0.flags.writeable
    assert (joined[:16] == 7).all() and (joined[16 + size :] == 7).all()
    joined[16 : 16 + size] *= 2
    joined.flags.writeable = False
    assert_identical(lstm.state_dict(), {name: 2 * value for name, value in before.items()})
    with pytest.raises(ValueError, match="WRITEABLE"):
        lstm.weight_ih_l0.flags.writeable = True
    with parameters.update() as flat:
        flat *= 2
    assert_identical(lstm.state_dict(), {name: 4 * value for name, value in before.items()})
    np.testing.assert_array_equal(
        parameters.layout.views(joined[16 : 16 + size])["bias_hh_l0"], lstm.bias_hh_l0
    )
    assert_current(lstm, x)
    other = copy.deepcopy(lstm)
    with other.writable() as p:
        p["bias_hh_l0"] += 1
    assert_identical(lstm.state_dict(), {name: 4 * value for name, value in before.items()})


def test_parameters_that_are_open_do_not_move(lstm):
    parameters = parameters_of(lstm)
    with lstm.writable() as p:
        with pytest.raises(ValueError, match=r"^parameters are open for writing"):
            parameters.move(parameters.layout.zeros(), 0)
        p["bias_hh_l0"] = np.ones(20)
    np.testing.assert_array_equal(lstm.bias_hh_l0, 1)


@pytest.mark.parametrize("move_pauses", [False, True], ids=["write pauses", "move pauses"])
def test_a_move_at_any_line_of_a_writer(move_pauses):
    """Either the move is refused, or what is written is in the new buffer."""

    def write(lstm):
        with lstm.writable() as p:
            p["bias_hh_l0"] = np.ones(20)

    def move(lstm):
        parameters = parameters_of(lstm)
        with suppress(ValueError):
            parameters.move(parameters.layout.zeros(), 0)

    pair = (move, write) if move_pauses else (write, move)
    for lstm, *_ in beside(lambda: LSTM(4, 5, seed=0), *pair):
        np.testing.assert_array_equal(lstm.bias_hh_l0, 1)
        assert parameters_of(lstm).settled
        assert_current(lstm, np.ones((3, 2, 4), np.float32))
