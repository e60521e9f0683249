"""The engine against the reference in float64, on every ISA, for sizes around the vector width."""

from functools import lru_cache

import numpy as np
import pytest
from support.comparing import assert_identical, in_dtype
from support.internals import Cell, engine_backward, engine_forward
from support.layers import SEVERAL_THREADS, draw_layer, lanes, run_layer, select_rows

import lstm_fast
from lstm_fast import reference

# Sizes in vectors: fewer elements than a vector, whole vectors and panels, and one more than these.
SIZES = {
    "1": lambda n: 1,
    "n-1": lambda n: n - 1,
    "n": lambda n: n,
    "n+1": lambda n: n + 1,
    "2n+3": lambda n: 2 * n + 3,
    "4n": lambda n: 4 * n,
    "4n+1": lambda n: 4 * n + 1,
    "9n+2": lambda n: 9 * n + 2,
}
VARIANTS = [
    pytest.param(bias, projected, reverse, id=f"{bias=}-{projected=}-{reverse=}")
    for bias in (True, False)
    for projected in (False, True)
    for reverse in (False, True)
]
MATMULS = ["auto", "packed", "blas"]


@lru_cache(maxsize=16)  # they are the same for every ISA and matmul
def expected_results(sizes, dtype, bias, reverse):
    """Return random arguments, and results of the reference in float64 and in the dtype."""
    args, d_results = draw_layer(np.random.default_rng(sizes), *sizes, dtype=dtype, bias=bias)
    wide = in_dtype(args, float), in_dtype(d_results, float)
    exact, naive = (run_layer(reference, *a, reverse=reverse) for a in (wide, (args, d_results)))
    return args, d_results, exact, naive


def check(sizes, dtype, *, matmul="packed", bias=True, reverse=False):
    """Compare outputs, states and every gradient with the reference in float64.

    A unit is that in the last place of the largest element, or of 1, the size of what is summed.
    float32: at most twice the error of the reference in float32, and ten units, since that is small
    by luck in small arrays, and where the BLAS of a CPU adds in another order than the kernels.
    float64: the reference has errors of its own; 64 units, 1.4e-14.
    """
    args, d_results, exact, naive = expected_results(sizes, dtype, bias, reverse)
    actual = run_layer(lstm_fast, args, d_results, matmul=matmul, reverse=reverse)
    assert actual.keys() == exact.keys()
    for name, array in exact.items():
        assert (actual[name].shape, actual[name].dtype) == (array.shape, dtype), name
        unit = np.finfo(dtype).eps * max(1, np.abs(array).max())
        error = np.abs(actual[name] - array).max()
        if dtype == np.float32:
            allowed = 2 * np.abs(naive[name] - array).max() + 10 * unit
        else:
            allowed = 64 * unit
        assert error <= allowed, f"{name}: {error / unit} units, allowed {allowed / unit}"


@pytest.mark.parametrize("H", SIZES)
@pytest.mark.parametrize("B", [*range(1, 9), 13, 97])
def test_sizes_around_the_vector_width(isa, dtype, B, H):
    sizes = [size(lanes(isa, dtype)) for size in SIZES.values()]
    n = [*SIZES].index(H)
    for I in {sizes[(n + B) % len(sizes)], sizes[(n + 3 * B + 1) % len(sizes)]}:
        check((3, B, I, sizes[n]), dtype)


@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
@pytest.mark.parametrize("matmul", MATMULS)
def test_variants(isa, dtype, bias, projected, reverse, matmul):
    n = lanes(isa, dtype)
    for T, B, I, H, P in [(4, 1, 3, n, 1), (3, 5, n + 1, 4 * n + 1, n), (5, 8, 4 * n, 6, 5)]:
        sizes = T, B, I, H, P if projected else 0
        check(sizes, dtype, bias=bias, reverse=reverse, matmul=matmul)


@pytest.mark.parametrize("sizes", [(3, 2, 2, 2, 70), (128, 8, 8, 32, 200)])
def test_a_projection_to_more_columns_than_there_are_units(isa, dtype, threads, sizes):
    check(sizes, dtype)
    args, d_results = draw_layer(np.random.default_rng(1), *sizes, dtype=dtype)
    lstm_fast.set_num_threads(1)
    one = run_layer(lstm_fast, args, d_results)
    lstm_fast.set_num_threads(2)
    assert_identical(run_layer(lstm_fast, args, d_results), one)


@pytest.mark.parametrize("matmul", ["packed", "blas"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_several_chunks(isa, dtype, reverse, projected, matmul):
    """Sequences that are cut in several pieces, of 1 MiB and less; the last one is shorter."""
    check((61, 33, 5, 50, 21 if projected else 0), dtype, reverse=reverse, matmul=matmul)


@pytest.mark.parametrize("projected", [False, True])
def test_long_sums(isa, dtype, projected):
    """More than 512 terms in every product: they are summed in pieces."""
    for *sizes, P in [(3, 230, 601, 150, 131), (2, 3, 3, 601, 520)]:
        check((*sizes, P if projected else 0), dtype)


@pytest.mark.parametrize("matmul", ["packed", "blas"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SEVERAL_THREADS)
def test_several_threads(isa, dtype, threads, sizes, reverse, matmul):
    lstm_fast.set_num_threads(3)
    check(sizes, dtype, reverse=reverse, matmul=matmul)


def test_the_float32_promise_without_a_floor(isa):
    """At most twice the root mean square error of NumPy in float32, over many steps and rows."""
    sizes, dtype = (30, 97, 40, 146), np.dtype("float32")
    args, d_results, exact, naive = expected_results(sizes, dtype, bias=True, reverse=False)
    for matmul in MATMULS:
        actual = run_layer(lstm_fast, args, d_results, matmul=matmul)
        ratio = {
            name: np.linalg.norm(actual[name] - array) / np.linalg.norm(naive[name] - array)
            for name, array in exact.items()
        }
        assert max(ratio.values()) <= 2, ratio


@pytest.mark.parametrize("absent", ["h0", "c0", "dy", "dhn", "dcn"])
def test_what_is_absent_is_zero(isa, dtype, rng, absent):
    args, (dy, dhn, dcn) = draw_layer(rng, 4, 3, 5, 7, dtype=dtype)
    gradients = {"dy": dy, "dhn": dhn, "dcn": dcn}
    zero = np.zeros_like({**args, **gradients}[absent])
    results = []
    for value in (None, zero):
        args_now = args | ({absent: value} if absent in args else {})
        gradients_now = gradients | ({absent: value} if absent in gradients else {})
        results.append(run_layer(lstm_fast, args_now, gradients_now.values()))
    assert_identical(*results)


# What is in one row, and in memory that pads rows, does not reach another


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "h0", "c0", "dy", "dhn", "dcn"])
@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_a_bad_number_stays_in_its_row(isa, dtype, rng, matmul, where, bad):
    n = lanes(isa, dtype)
    for B, I, H, P in [(7, n + 1, 4 * n + 1, 0), (3, 3, n - 1, 0), (5, 2, n + 3, n - 1)]:
        args, gradients = draw_layer(rng, 4, B, I, H, P, dtype=dtype)
        expected = run_layer(lstm_fast, args, gradients, matmul=matmul)
        arrays = {**args, **dict(zip(["dy", "dhn", "dcn"], gradients, strict=True))}
        index = (1, 1) if arrays[where].ndim == 3 else (1,)
        arrays[where][index] = bad
        actual = run_layer(lstm_fast, args, gradients, matmul=matmul)
        others = [b for b in range(B) if b != 1]
        assert_identical(select_rows(actual, others), select_rows(expected, others))
        its_own = select_rows(expected, [1])
        assert any(
            (array != its_own[name]).any() for name, array in select_rows(actual, [1]).items()
        )


@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_memory_used_before_does_not_matter(isa, dtype, rng, matmul):
    """Scratch memory goes round; the one before left NaN in all of it."""
    n = lanes(isa, dtype)
    for H, P in [(n + 1, 0), (n + 1, 1), (1, 0)]:
        args, gradients = draw_layer(rng, 4, 5, 3, H, P, dtype=dtype)
        expected = run_layer(lstm_fast, args, gradients, matmul=matmul)
        nan = {name: np.full_like(array, np.nan) for name, array in args.items()}
        run_layer(lstm_fast, nan, [np.full_like(d, np.nan) for d in gradients], matmul=matmul)
        assert_identical(run_layer(lstm_fast, args, gradients, matmul=matmul), expected)


# The engine's own interface: what the functions above do not use


def test_the_cell_has_the_kernels_of_its_isa(isa, dtype):
    cell = Cell(np.zeros((4, 1), dtype), np.zeros((4, 1), dtype))
    assert (cell.isa, cell.parameters) == (isa, ("w_ih", "w_hh"))


@pytest.mark.parametrize("reverse", [False, True])
def test_forward_into_part_of_an_array_and_into_its_state(isa, dtype, rng, reverse):
    """`y` has gaps, `hn` is `h0`, `cn` is `c0`; backward takes a `dy` with the same gaps."""
    T, B, I, H = 5, 3, 4, lanes(isa, dtype) + 2
    args, (dy, dhn, dcn) = draw_layer(rng, T, B, I, H, dtype=dtype)
    expected = run_layer(lstm_fast, args, (dy, dhn, dcn), reverse=reverse)
    cell = Cell(*(args[k] for k in ("w_ih", "w_hh", "b_ih", "b_hh")))
    cell.prepare(True, False)
    wide = np.full((T, B, 2 * H + 1), 7, dtype)
    y, h, c = wide[:, :, H : 2 * H], args["h0"][None].copy(), args["c0"][None].copy()
    tapes = engine_forward([cell], (args["x"], h, c, y, h, c), reverse=reverse, training=True)
    assert (np.delete(wide, np.s_[H : 2 * H], axis=2) == 7).all()
    wide[:, :, H : 2 * H], strided = dy, y.copy()
    dx, dh0, dc0, grads = engine_backward(tapes, wide[:, :, H : 2 * H], dhn[None], dcn[None])
    actual = {"y": strided, "hn": h[0], "cn": c[0], "dx": dx, "dh0": dh0[0], "dc0": dc0[0]}
    named = zip(cell.parameters, grads, strict=True)
    assert_identical(actual | {f"d{name}": grad for name, grad in named}, expected)


@pytest.mark.parametrize("of_input", [False, True])
def test_weights_packed_in_one_pass_are_those_packed_in_two(isa, dtype, rng, of_input):
    """Panels of gates and of columns, wide and narrow; not all begin with a vector of rows."""
    n = lanes(isa, dtype)
    T, B, I, H = 3, 2, 4 * n + 1, 5 * n + 3
    args, (dy, dhn, dcn) = draw_layer(rng, T, B, I, H, dtype=dtype)
    weights = [args[k] for k in ("w_ih", "w_hh", "b_ih", "b_hh")]
    found = []
    for training in (False, True):
        cell = Cell(*weights, training=training, of_input=of_input)
        cell.prepare(True, False, of_input)
        arrays = (
            args["x"],
            args["h0"][None],
            args["c0"][None],
            *(np.empty_like(d) for d in (dy, dhn[None], dcn[None])),
        )
        tapes = engine_forward([cell], arrays, training=True)
        dx, dh0, dc0, grads = engine_backward(tapes, dy, dhn[None], dcn[None], of_input=of_input)
        assert (dx is None) != of_input
        found.append(
            {"y": arrays[3], "dh0": dh0, "dc0": dc0}
            | dict(zip(cell.parameters, grads, strict=True))
            | ({"dx": dx} if of_input else {})
        )
    assert_identical(*found)
