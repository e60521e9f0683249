"""`from_flax`: trees of Flax, Haiku and Equinox, against these and against the equations."""

import itertools

import numpy as np
import pytest
from support.comparing import assert_close
from support.processes import run_python

import lstm_fast as lf
from lstm_fast.formats import flax, from_flax
from lstm_fast.formats.flax import inspect

pytestmark = pytest.mark.no_isa

T, B, I, H = 5, 2, 3, 4
GATES = "ifgo"


def drawn(rng, *shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype) / 2


def s(v):
    return 1 / (1 + np.exp(-v))


def expected(x, h, c, w_ih, w_hh, b):
    """Return the outputs by the equations, rows of the weights in blocks i, f, g, o."""
    outputs = []
    for step in x:
        i, f, g, o = np.split(step @ w_ih.T + h @ w_hh.T + b, 4, axis=1)
        c = s(f) * c + s(i) * np.tanh(g)
        h = s(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def compare(lstm, x, h, c, y):
    """Assert that an LSTM of one layer gives y from these states."""
    actual, _ = lstm(x, (h[None], c[None]))
    assert_close([actual], [y], 1e-6, dtype=np.float32)


def flax_tree(rng, columns=I, units=H, forget="if"):
    tree = {f"i{gate}": {"kernel": drawn(rng, columns, units)} for gate in GATES}
    tree |= {
        f"h{gate}": {"kernel": drawn(rng, units, units), "bias": drawn(rng, units)}
        for gate in GATES
    }
    tree[forget] = tree.pop("if")
    return tree


def rows(tree, order=GATES, forget="if"):
    """Return w_ih, w_hh, b of a tree of Flax."""
    names = [forget if gate == "f" else f"i{gate}" for gate in order]
    return (
        np.concatenate([tree[name]["kernel"].T for name in names]),
        np.concatenate([tree[f"h{gate}"]["kernel"].T for gate in order]),
        np.concatenate([tree[f"h{gate}"]["bias"] for gate in order]),
    )


@pytest.fixture
def given(rng):
    return drawn(rng, T, B, I), drawn(rng, B, H), drawn(rng, B, H)


# ---- by the equations, without the packages


@pytest.mark.parametrize("forget", ["if", "if_"])
def test_flax_by_the_equations(rng, given, forget):
    tree = flax_tree(rng, forget=forget)
    x, h, c = given
    compare(
        from_flax({"params": {"cell": tree}}),
        x,
        h,
        c,
        expected(x, h, c, *rows(tree, forget=forget))[0],
    )


def test_flax_joint_by_the_equations(rng, given):
    x, h, c = given
    w_ih, w_hh, b = drawn(rng, 4 * H, I), drawn(rng, 4 * H, H), drawn(rng, 4 * H)
    tree = {"dense_i": {"kernel": w_ih.T}, "dense_h": {"kernel": w_hh.T, "bias": b}, "rngs": {}}
    compare(from_flax(tree, kind="flax"), x, h, c, expected(x, h, c, w_ih, w_hh, b)[0])


@pytest.mark.parametrize("bias", [True, False])
def test_haiku_by_the_equations(rng, given, bias):
    x, h, c = given
    w_ih, w_hh, b = drawn(rng, 4 * H, I), drawn(rng, 4 * H, H), drawn(rng, 4 * H)
    blocks = np.arange(4 * H).reshape(4, H)[[0, 2, 1, 3]].ravel()  # i, g, f, o
    leaf = {"w": np.concatenate([w_ih[blocks].T, w_hh[blocks].T])}
    leaf |= {"b": b[blocks]} if bias else {}
    at_run_time = np.repeat([0, 1, 0, 0], H).astype(np.float32) + (b if bias else 0)
    y = expected(x, h, c, w_ih, w_hh, at_run_time)[0]
    compare(from_flax({"lstm/linear": leaf}), x, h, c, y)
    compare(from_flax({"net/~/lstm_3": {"linear": leaf}}), x, h, c, y)
    compare(from_flax({"encoder/linear": leaf}, kind="haiku"), x, h, c, y)
    with pytest.raises(ValueError, match="give the part of the tree"):
        from_flax({"encoder/linear": leaf})


@pytest.mark.parametrize("bias", [True, False])
def test_equinox_by_the_equations(rng, given, bias):
    x, h, c = given
    w_ih, w_hh, b = drawn(rng, 4 * H, I), drawn(rng, 4 * H, H), drawn(rng, 4 * H)
    tree = {"weight_ih": w_ih, "weight_hh": w_hh, "bias": b if bias else None}
    y = expected(x, h, c, w_ih, w_hh, b if bias else 0)[0]
    compare(from_flax(tree), x, h, c, y)

    class Cell:
        def __init__(self):
            self.__dict__.update(tree)

    compare(from_flax(Cell()), x, h, c, y)


def test_layers_and_directions(rng):
    x = drawn(rng, T, B, I)
    zeros = np.zeros((B, H), np.float32)
    first, second = flax_tree(rng), flax_tree(rng, H)
    y, h, c = expected(expected(x, zeros, zeros, *rows(first))[0], zeros, zeros, *rows(second))
    stacks = [
        [first, second],
        {"lstm_1": second, "lstm_0": first},
        {"LSTMCell_1": {"cell": second}, "LSTMCell_0": {"cell": first}},
        {"lstm2": second, "lstm1": first},
    ]
    for tree in stacks:
        actual, (hn, cn) = from_flax(tree)(x)
        assert_close([actual, hn[1], cn[1]], [y, h, c], 1e-6)
    square = flax_tree(rng, H)
    named_by_flax = {"OptimizedLSTMCell_0": square, "OptimizedLSTMCell_1": second}
    with pytest.raises(ValueError, match="may be layers or directions; give a list of the layers"):
        from_flax(named_by_flax)
    with pytest.raises(ValueError, match="may be layers or directions"):
        from_flax({"LSTMCell_0": first, "LSTMCell_1": flax_tree(rng)})  # the second takes x, too
    assert from_flax([square, second]).num_layers == 2
    many = {f"lstm_{n}": flax_tree(rng, H) for n in (10, 2, 1, 11, 0, 3, 4, 5, 6, 7, 8, 9)}
    made = from_flax(many)
    assert np.array_equal(made.weight_ih_l10, rows(many["lstm_10"])[0])

    backward = flax_tree(rng)
    y = expected(x, zeros, zeros, *rows(first))[0]
    y_back = expected(x[::-1], zeros, zeros, *rows(backward))[0][::-1]
    both = from_flax({"backward_rnn": {"cell": backward}, "forward_rnn": {"cell": first}})
    assert_close([both(x)[0]], [np.concatenate([y, y_back], axis=2)], 1e-6)
    assert from_flax(first, batch_first=True)(x.swapaxes(0, 1))[0].shape == (B, T, H)


def test_dtypes(rng):
    tree = flax_tree(rng)
    half = {k: {n: a.astype(np.float16) for n, a in v.items()} for k, v in tree.items()}
    double = {k: {n: a.astype(np.float64) for n, a in v.items()} for k, v in tree.items()}
    assert from_flax(half).dtype == np.float32
    assert from_flax(double).dtype == np.float64


def test_verify_compares(rng, given, capsys):
    tree = flax_tree(rng)
    x, _, _ = given
    zeros = np.zeros((B, H), np.float32)
    y = expected(x, zeros, zeros, *rows(tree))[0]
    from_flax(tree, verify=(x, y))
    assert "largest difference" in capsys.readouterr().err
    with pytest.raises(ValueError, match="more than rounding"):
        from_flax(tree, verify=(x, y + 0.01))


# ---- what is refused


def test_what_is_ambiguous_is_refused(rng):
    good = flax_tree(rng)
    dense = {"kernel": drawn(rng, H, 2), "bias": drawn(rng, 2)}
    cases = [
        ({}, "no LSTM cell"),
        (3, "no LSTM cell"),
        ([], "no LSTM cell"),
        (dense, "give the part"),
        ({"LSTMCell_0": good, "Dense_0": dense}, "Dense_0"),
        ({"encoder": good, "decoder": good}, "give the part"),
        ({"lstm_0": good, "lstm_2": good}, "lstm_2"),
        ({"linear": {"w": drawn(rng, 7, 16), "b": drawn(rng, 16)}}, "give the part"),
        ({"lstm/linear": {"w": drawn(rng, 7, 15), "b": drawn(rng, 15)}}, r"\(7, 15\)"),
        ({"lstm/linear": {"w": drawn(rng, 4, 16), "b": drawn(rng, 16)}}, r"\(4, 16\)"),
        ({"lstm/linear": {"w": drawn(rng, 7, 16), "b": drawn(rng, 12)}}, r"\(12,\)"),
        ({k: v for k, v in good.items() if k != "ho"}, "a cell has"),
        (good | {"hx": {}}, "hx"),
        (good | {"ig": {"kernel": drawn(rng, I + 1, H)}}, "i\\*"),
        (good | {"hf": {"kernel": good["hf"]["kernel"]}}, "biases"),
        (good | {"hf": {"kernel": "no"}}, "hf/kernel"),
        (good | {"hf": {"kernel": np.zeros((H, H), np.int32)}}, "int32"),
        (good | {"hf": {"kernel": np.zeros((H, H, 1), np.float32)}}, "2 axes"),
        (good | {"hf": {"weights": np.zeros((H, H), np.float32)}}, "a kernel"),
        ({"weight_ih": np.ones((16, 3)), "weight_hh": np.ones((16, 5))}, r"\(16, 4\)"),
        ({"weight_ih": np.ones((16, 3))}, "a cell has"),
        ({"weight_ih": 1, "weight_hh": 2, "bias_ih": 3, "bias_hh": 4}, "from_torch"),
        ([good, good], "no LSTM of lstm_fast"),
        ({"forward_rnn": [good, good], "backward_rnn": good}, "single cell"),
    ]
    for tree, message in cases:
        with pytest.raises(ValueError, match=message):
            from_flax(tree)
    with pytest.raises(ValueError, match="not of haiku"):
        from_flax(good, kind="haiku")
    with pytest.raises(ValueError, match="kind: expected"):
        from_flax(good, kind="keras")
    deep = good
    for _ in range(2000):
        deep = {"cell": deep}
    with pytest.raises(ValueError, match="deep"):
        from_flax(deep)
    inspect(deep)


def test_inspect_describes(rng):
    tree = {"lstm": flax_tree(rng), "Dense_0": {"kernel": drawn(rng, H, 2)}, "n": None}
    found = inspect(tree)
    assert found[0][:4] == ("lstm", "LSTM", "3 -> 4", "flax")
    assert found[0].parameters == 4 * H * (I + H + 1)
    assert [one.name for one in found] == ["lstm", "Dense_0/kernel", "n"]
    broken = inspect({"lstm": {"ii": {"kernel": 1}}})
    assert broken[0].kind.startswith("unknown")


# ---- the comparison sees mistakes


def test_the_comparison_catches_mistakes(rng):
    tree = flax_tree(rng, H)  # square, so that a transposed matrix fits
    x, h, c = drawn(rng, T, B, H), drawn(rng, B, H), drawn(rng, B, H)
    y = expected(x, h, c, *rows(tree))[0]
    compare(from_flax(tree), x, h, c, y)
    wrong = []
    for order in [*itertools.permutations(GATES)][1:]:
        swapped = {
            f"{s}{g}": tree[f"{s}{k}"] for s in "ih" for g, k in zip(GATES, order, strict=True)
        }
        wrong.append(swapped)
    for name in tree:
        wrong.append(tree | {name: tree[name] | {"kernel": tree[name]["kernel"].T}})
    for name in ("hi", "hf", "hg", "ho"):
        wrong.append(tree | {name: tree[name] | {"bias": 0 * tree[name]["bias"]}})
        wrong.append(tree | {name: tree[name] | {"bias": 2 * tree[name]["bias"]}})
    for mistaken in wrong:
        with pytest.raises(AssertionError):
            compare(from_flax(mistaken), x, h, c, y)
    with pytest.raises(AssertionError):
        compare(from_flax(tree), x, c, h, y)


# ---- against the packages


def randomised(rng, tree):
    """Return a tree like this one, all arrays drawn anew: initial biases are zeros."""
    import jax

    return jax.tree_util.tree_map(lambda a: drawn(rng, *a.shape), tree)


@pytest.mark.parametrize("name", ["LSTMCell", "OptimizedLSTMCell"])
def test_against_linen(rng, given, name):
    linen = pytest.importorskip("flax.linen", reason="no Flax: pip install flax")
    import jax

    x, h, c = given
    model = linen.RNN(getattr(linen, name)(H), time_major=True)
    variables = randomised(rng, model.init(jax.random.key(0), x))
    y = model.apply(variables, x, initial_carry=(c, h))
    compare(from_flax(variables), x, h, c, np.asarray(y))


def test_against_linen_in_both_directions(rng, given):
    linen = pytest.importorskip("flax.linen", reason="no Flax: pip install flax")
    import jax

    x, _, _ = given
    one, other = (linen.RNN(linen.OptimizedLSTMCell(H), time_major=True) for _ in range(2))
    model = linen.Bidirectional(one, other, time_major=True)
    variables = randomised(rng, model.init(jax.random.key(0), x))
    assert_close([from_flax(variables)(x)[0]], [np.asarray(model.apply(variables, x))], 1e-6)


@pytest.mark.parametrize("name", ["LSTMCell", "OptimizedLSTMCell"])
def test_against_nnx(rng, given, name):
    nnx = pytest.importorskip("flax.nnx", reason="no Flax: pip install flax")
    x, h, c = given
    model = nnx.RNN(getattr(nnx, name)(I, H, rngs=nnx.Rngs(0)), time_major=True)
    cell = model.cell
    nnx.update(cell, randomised(rng, nnx.state(cell, nnx.Param)))
    y = np.asarray(model(x, initial_carry=(c, h)))
    for state in (nnx.state(model), nnx.state(cell, nnx.Param), nnx.to_pure_dict(nnx.state(cell))):
        compare(from_flax(state), x, h, c, y)


def test_against_haiku(rng):
    hk = pytest.importorskip("haiku", reason="no Haiku: pip install dm-haiku")
    import jax

    x = drawn(rng, T, B, I)
    states = drawn(rng, 2, 2, B, H)

    def unrolled(x, h, c):
        core = hk.DeepRNN([hk.LSTM(H), hk.LSTM(H)])
        before = tuple(hk.LSTMState(h[n], c[n]) for n in range(2))
        return hk.dynamic_unroll(core, x, before)

    network = hk.without_apply_rng(hk.transform(unrolled))
    parameters = randomised(rng, network.init(jax.random.key(0), x, *states))
    y, after = network.apply(parameters, x, *states)
    actual, (hn, cn) = from_flax(parameters, kind="haiku")(x, tuple(states))
    assert_close(
        [actual, hn, cn],
        [np.asarray(y), np.stack([s.hidden for s in after]), np.stack([s.cell for s in after])],
        1e-6,
    )


def test_against_equinox(rng, given):
    eqx = pytest.importorskip("equinox", reason="no Equinox: pip install equinox")
    import jax

    x, h, c = given
    cell = randomised(rng, eqx.nn.LSTMCell(I, H, key=jax.random.key(0)))
    y = np.zeros((T, B, H), np.float32)
    for b in range(B):
        state = (h[b], c[b])
        for t in range(T):
            state = cell(x[t, b], state)
            y[t, b] = state[0]
    compare(from_flax(cell), x, h, c, y)


def joint_tree(rng):
    return {
        "dense_i": {"kernel": drawn(rng, I, 4 * H)},
        "dense_h": {"kernel": drawn(rng, H, 4 * H), "bias": drawn(rng, 4 * H)},
    }


def haiku_tree(rng, **bias):
    return {"lstm/linear": {"w": drawn(rng, I + H, 4 * H), **bias}}


def equinox_tree(rng, **bias):
    return {"weight_ih": drawn(rng, 4 * H, I), "weight_hh": drawn(rng, 4 * H, H), **bias}


CELLS = {
    "flax.linen": flax_tree,
    "flax.nnx": joint_tree,
    "haiku": lambda rng: haiku_tree(rng, b=drawn(rng, 4 * H)),
    "haiku, no bias": haiku_tree,
    "equinox": lambda rng: equinox_tree(rng, bias=drawn(rng, 4 * H)),
    "equinox, no bias": equinox_tree,
}


@pytest.mark.parametrize(
    "name, dtype", [*((name, np.float32) for name in CELLS), ("flax.linen", np.float64)]
)
def test_verify_runs_the_package(rng, capsys, monkeypatch, name, dtype):
    """Which finds gates in another order, too."""
    pytest.importorskip(name.partition(",")[0], reason="the package is not installed")
    import jax

    tree = jax.tree_util.tree_map(lambda a: np.asarray(a, dtype), CELLS[name](rng))
    from_flax(tree, verify=True, batch_first=True)
    assert "largest difference" in capsys.readouterr().err
    cell = flax.cell
    monkeypatch.setattr(flax, "cell", lambda *args, **arrays: cell(*args[:2], "figo", **arrays))
    with pytest.raises(ValueError, match="more than rounding"):
        from_flax(tree, verify=True)


def test_verify_runs_layers_and_directions(rng, capsys):
    pytest.importorskip("flax.linen", reason="no Flax: pip install flax")
    both = {"forward": flax_tree(rng), "backward": flax_tree(rng)}
    from_flax(
        [both, {"forward": flax_tree(rng, 2 * H), "backward": flax_tree(rng, 2 * H)}], verify=True
    )
    assert "largest difference" in capsys.readouterr().err


def test_verify_without_the_package(rng):
    tree = {
        name: {leaf: a.tolist() for leaf, a in dense.items()}
        for name, dense in flax_tree(rng).items()
    }
    code = f"""if True:
        import sys
        sys.modules["jax"] = sys.modules["flax"] = None
        import numpy as np
        from lstm_fast.formats import from_flax
        tree = {{n: {{k: np.array(a) for k, a in v.items()}} for n, v in {tree!r}.items()}}
        try:
            from_flax(tree, verify=True)
        except ImportError as error:
            print(error)
        """
    assert "pip install flax" in run_python(code)


def test_nothing_of_jax_is_imported():
    code = """if True:
        import sys
        for name in ("jax", "flax", "haiku", "equinox"):
            sys.modules[name] = None
        import numpy as np
        from lstm_fast.formats import from_flax
        w = {"weight_ih": np.ones((16, 3)), "weight_hh": np.ones((16, 4)), "bias": np.ones(16)}
        print(from_flax([w]).hidden_size)
        """
    assert run_python(code) == "4\n"


def test_it_is_public():
    assert lf.formats.from_flax is from_flax
