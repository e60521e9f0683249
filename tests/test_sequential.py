"""Models of blocks: names, states, streams, gradients, one buffer of parameters."""

import copy
import pickle

import numpy as np
import pytest
from support.pauses import beside

import lstm_fast as lf
from lstm_fast import LSTM, nn
from lstm_fast.nn import (
    Activation,
    Dropout,
    Embedding,
    Flatten,
    Last,
    LayerNorm,
    Linear,
    Pool,
    Sequential,
    Softmax,
)

T, B, V = 6, 3, 11
DOUBLE = {"dtype": np.float64}


def tagger(dtype=np.float64, **options):
    of = {"dtype": dtype, **options}
    return Sequential(
        embed=Embedding(V, 5, seed=1, **of),
        lstm=LSTM(5, 7, num_layers=2, bidirectional=True, seed=2, **of),
        norm=LayerNorm(14, **of),
        relu=Activation("Relu", **of),
        head=Linear(14, 4, seed=3, **of),
    )


def forecaster(dtype=np.float64):
    return Sequential(
        below=LSTM(2, 6, seed=1, dtype=dtype),
        above=LSTM(6, 5, seed=2, dtype=dtype),
        last=Last(dtype=dtype),
        head=Linear(5, 3, seed=3, dtype=dtype),
    )


def numbers(rng, shape=(T, B)):
    return rng.integers(0, V, shape)


def blocks_by_hand(model, x, lengths=None):
    """Run the blocks one after the other."""
    for block in model:
        x, _ = block(x, lengths=lengths)
        lengths = lengths if block.keeps_time else None
    return x


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class TestComputing:
    def test_blocks_follow_one_another(self, rng):
        model, x = tagger(), numbers(rng)
        y, state = model(x)
        assert np.array_equal(y, blocks_by_hand(model, x))
        assert [*state] == ["lstm"]
        again, after, cache = model.forward(x)
        assert np.array_equal(again, y)
        assert cache.nbytes > 0
        assert np.array_equal(after["lstm"][1], state["lstm"][1])

    def test_lengths_reach_every_block_that_sees_time(self, rng):
        model, x, lengths = tagger(), numbers(rng), [6, 2, 0]
        y, _ = model(x, lengths=lengths)
        for b, n in enumerate(lengths):
            alone, _ = model(x[:n, b : b + 1]) if n else (np.zeros((0, 1, 4)), None)
            assert np.allclose(y[:n, b], alone[:, 0], atol=1e-13)
            assert not y[n:, b].any()

    def test_what_is_beyond_lengths_is_not_read(self, rng):
        model, lengths = forecaster(), [4, 6, 0]
        x = rng.standard_normal((T, B, 2))
        spoilt = x.copy()
        for b, n in enumerate(lengths):
            spoilt[n:, b] = np.nan
        results = []
        for given in (x, spoilt):
            y, _, cache = model.forward(given, lengths=lengths)
            dx, _, grads = model.backward(np.ones_like(y), None, cache)
            results.append((y, dx, grads.flat))
        for whole, part in zip(*results, strict=True):
            assert np.array_equal(whole, part)

    def test_state_is_carried(self, rng):
        model, x = tagger_forward(), numbers(rng)
        y, end = model(x)
        first, state = model(x[:2])
        second, state = model(x[2:], state)
        assert np.array_equal(np.concatenate([first, second]), y)
        assert all(map(np.array_equal, state["lstm"], end["lstm"]))

    def test_model_in_a_model(self, rng):
        x = rng.standard_normal((T, B, 2))
        flat = forecaster()
        nested = Sequential(
            encoder=Sequential(
                below=LSTM(2, 6, seed=1, **DOUBLE), above=LSTM(6, 5, seed=2, **DOUBLE)
            ),
            last=Last(**DOUBLE),
            head=Linear(5, 3, seed=3, **DOUBLE),
        )
        assert np.array_equal(nested(x)[0], flat(x)[0])
        assert nested.parameters[0] == "encoder.below.weight_ih_l0"
        y, _, cache = nested.forward(x, {"encoder": {}})
        _, dstate, grads = nested.backward(np.ones_like(y), None, cache)
        y, _, cache = flat.forward(x)
        _, _, expected = flat.backward(np.ones_like(y), None, cache)
        assert np.array_equal(grads.flat, expected.flat)
        assert [*dstate["encoder"]] == ["below", "above"]

    def test_gradients_are_central_differences(self, rng):
        model, lengths = forecaster(), [4, 6, 1]
        x = rng.standard_normal((T, B, 2))
        state = {"below": tuple(rng.standard_normal((1, B, 6)) for _ in range(2))}
        target = rng.standard_normal((B, 3))
        loss = nn.MeanSquared()

        def value():
            return loss(model(x, state, lengths=lengths)[0], target)[0]

        y, _, cache = model.forward(x, state, lengths=lengths)
        dx, dstate, grads = model.backward(loss(y, target)[1], None, cache)
        step = 1e-6
        for name in model.parameters:
            for index in np.ndindex(grads[name].shape):
                found = []
                for sign in (1, -1):
                    with model.writable() as p:
                        p[name][index] += sign * step
                    found.append(value())
                    with model.writable() as p:
                        p[name][index] -= sign * step
                assert grads[name][index] == pytest.approx(
                    (found[0] - found[1]) / (2 * step), abs=1e-8
                )
        for array, gradient in ((x, dx), (state["below"][1], dstate["below"][1])):
            for index in np.ndindex(array.shape):
                found = []
                for sign in (1, -1):
                    array[index] += sign * step
                    found.append(value())
                    array[index] -= sign * step
                slope = (found[0] - found[1]) / (2 * step)
                assert gradient[index] == pytest.approx(slope, abs=1e-8)

    def test_gradient_of_numbers_is_none(self, rng):
        model = tagger()
        y, _, cache = model.forward(numbers(rng))
        dx, _, _ = model.backward(np.ones_like(y), None, cache)
        assert dx is None

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_batch_first_is_the_same(self, rng, dtype):
        first, second = tagger(dtype), tagger(dtype, batch_first=True)
        x, lengths = numbers(rng), [6, 3, 1]
        y, _ = first(x, lengths=lengths)
        assert np.array_equal(second(x.T, lengths=lengths)[0].swapaxes(0, 1), y)


def tagger_forward():
    return Sequential(
        embed=Embedding(V, 5, seed=1),
        lstm=LSTM(5, 7, num_layers=2, seed=2),
        drop=Dropout(0.5, seed=4),
        head=Linear(7, 4, seed=3),
        softmax=Softmax(),
    )


class TestStreams:
    def test_steps_have_the_bits_of_one_call(self, rng):
        model, x = tagger_forward(), numbers(rng)
        y, state = model(x)
        stream = model.stream(batch_size=B)
        assert np.array_equal(np.stack([stream.step(x_t) for x_t in x]), y)
        assert np.array_equal(stream.state["lstm"][0], state["lstm"][0])

    def test_a_decision_after_each_step(self, rng):
        model = forecaster()
        x = rng.standard_normal((T, B, 2))
        stream = model.stream(B)
        for t, x_t in enumerate(x):
            assert np.array_equal(stream.step(x_t), model(x[: t + 1])[0])

    def test_snapshot_restore_reset_copy(self, rng):
        stream = forecaster().stream(B)
        x = rng.standard_normal((T, B, 2))
        fresh = stream.step(x[0])
        at = stream.snapshot()
        y = stream.step(x[1])
        other = stream.copy()
        stream.restore(at)
        assert np.array_equal(stream.step(x[1]), y)
        stream.reset()
        assert np.array_equal(stream.step(x[0]), fresh)
        assert not np.array_equal(other.state["below"][0], stream.state["below"][0])

    def test_wrong_input_changes_no_state(self, rng):
        stream = forecaster().stream(B)
        stream.step(rng.standard_normal((B, 2)))
        before = stream.state
        for shape in ((B, 3), (B + 1, 2), (B, 1, 2)):
            with pytest.raises(ValueError, match="x_t"):
                stream.step(rng.standard_normal(shape))
        assert all(np.array_equal(stream.state[k][0], before[k][0]) for k in before)

    @pytest.mark.parametrize(
        "block", [Pool(), Flatten(), Last(2), Last(reverse=True), LSTM(2, 3, bidirectional=True)]
    )
    def test_what_needs_the_whole_sequence_cannot(self, block):
        with pytest.raises(ValueError, match=r"slow: .*cannot stream"):
            Sequential(slow=block).stream()


class TestParameters:
    def test_names_are_those_of_a_module(self):
        names = tagger().parameters
        assert names[:2] == ("embed.weight", "lstm.weight_ih_l0")
        assert names[-2:] == ("head.weight", "head.bias")

    def test_one_buffer(self):
        model = tagger()
        flat = model._parameters.layout.views(model._parameters._storage.flat)
        for name, view in flat.items():
            block, _, own = name.partition(".")
            assert np.shares_memory(view, model[block]._parameters[own])

    def test_writing_to_the_model_and_to_a_block(self, rng):
        model, x = tagger(), numbers(rng)
        model(x)
        with model.writable() as p:
            p["head.bias"] += 1
            p["lstm.weight_hh_l1"] *= 0.5
        assert np.array_equal(model(x)[0], blocks_by_hand(copy.deepcopy(model), x))
        with model["head"].writable() as p:
            p["bias"] -= 1
        assert np.array_equal(model.state_dict()["head.bias"], model["head"].state_dict()["bias"])
        assert np.array_equal(model(x)[0], blocks_by_hand(copy.deepcopy(model), x))

    def test_loading_is_all_or_nothing(self, rng):
        model, other, x = tagger(), tagger(), numbers(rng)
        values = {k: v + 1 for k, v in model.state_dict().items()}
        values["head.bias"] = np.zeros(3)
        with pytest.raises(ValueError, match=r"head\.bias"):
            model.load_state_dict(values)
        assert np.array_equal(model(x)[0], other(x)[0])

    @pytest.mark.parametrize(
        "again",
        [copy.deepcopy, *(lambda m, n=n: pickle.loads(pickle.dumps(m, n)) for n in range(6))],
    )
    def test_copies_are_independent(self, rng, again):
        model, x = tagger(), numbers(rng)
        y, _ = model(x)
        other = again(model)
        with model.writable() as p:
            p["head.weight"] *= 2
        assert np.array_equal(other(x)[0], y)
        assert not np.array_equal(model(x)[0], y)
        with other.writable() as p:
            p["lstm.bias_hh_l0"] += 1
        assert not np.array_equal(other(x)[0], y)

    def test_a_block_belongs_to_one_model(self):
        head = Linear(3, 3)
        model = Sequential(head=head)
        with pytest.raises(ValueError, match="again: is part of another model"):
            Sequential(again=head)
        with pytest.raises(ValueError, match="b: is the same block as a"):
            Sequential(a=(other := Linear(3, 3)), b=other)
        Sequential(again=copy.copy(head))
        del model
        Sequential(again=head)

    def test_gradients_are_views_of_one_array(self, rng):
        model = tagger()
        y, _, cache = model.forward(numbers(rng))
        _, _, grads = model.backward(np.ones_like(y), None, cache)
        assert tuple(grads) == model.parameters
        assert all(np.shares_memory(grads.flat, grad) for grad in grads.values())
        assert model._parameters.layout.flat(grads) is grads.flat


class TestBesideAnotherThread:
    """One that loads parameters while a model computes: no call has some of each version."""

    @staticmethod
    def model(seed):
        return Sequential(
            embed=Embedding(V, 3, seed=seed),
            inner=Sequential(lstm=LSTM(3, 4, seed=seed), norm=LayerNorm(4)),
            head=Linear(4, 2, seed=seed),
        )

    @staticmethod
    def infer(model):
        return [model(np.arange(6).reshape(3, 2))[0]]

    @staticmethod
    def train(model):
        y, _, cache = model.forward(np.arange(6).reshape(3, 2))
        return [y, *model.backward(np.ones_like(y), None, cache)[2].values()]

    @pytest.mark.parametrize("load_pauses", [False, True])
    @pytest.mark.parametrize("how", ["infer", "train"])
    def test_a_call_is_of_one_version(self, how, load_pauses):
        reader, values = getattr(self, how), self.model(2).state_dict()
        versions = [reader(self.model(seed)) for seed in (1, 2)]

        def load(model):
            model.load_state_dict(values)

        both = (load, reader) if load_pauses else (reader, load)
        for model, *found in beside(lambda: self.model(1), *both, visits=1):
            result = found[1 if load_pauses else 0]
            assert any(all(map(np.array_equal, result, version)) for version in versions)
            assert all(map(np.array_equal, reader(model), versions[1]))


class TestWhatItSays:
    def test_repr_is_a_table(self):
        lines = repr(tagger()).splitlines()
        assert lines[0] == "Sequential"
        assert lines[2].split()[:2] == ["embed", "Embedding(vocabulary=11,"]
        assert "(T, B, 14)" in lines[3]
        assert lines[-2].endswith(" 60")
        count = sum(value.size for value in tagger().state_dict().values())
        assert lines[-1].split() == [f"{count:,}"]

    def test_errors_name_the_block(self, rng):
        model = forecaster()
        with pytest.raises(ValueError, match=r"below: x: expected shape"):
            model(np.zeros((T, B, 3)))
        with pytest.raises(TypeError, match=r"below: x: expected dtype float64"):
            model(np.zeros((T, B, 2), np.float32))
        with pytest.raises(ValueError, match=r"embed: x: expected 0 to 10, got 3 to 11"):
            tagger()(np.array([[3, 11]]))
        with pytest.raises(ValueError, match=r"state: 'head' is no block with a state"):
            model(np.zeros((T, B, 2)), {"head": None})
        with pytest.raises(ValueError, match=r"below: h0: expected shape"):
            model(np.zeros((T, B, 2)), {"below": (np.zeros((1, B, 5)), None)})

    def test_what_does_not_go_together(self):
        with pytest.raises(TypeError, match="head: expected a block, got int"):
            Sequential(head=3)
        with pytest.raises(ValueError, match="head: has dtype float64, and lstm has float32"):
            Sequential(lstm=LSTM(2, 3), head=Linear(3, 1, dtype=np.float64))
        with pytest.raises(ValueError, match="head: has batch_first=False, and lstm has True"):
            Sequential(lstm=LSTM(2, 3, batch_first=True), head=Linear(3, 1))
        with pytest.raises(ValueError, match="at least one"):
            Sequential()
        with pytest.raises(ValueError, match="'0': stands twice"):
            Sequential(Linear(3, 1), **{"0": Linear(1, 1)})
        for after in (Pool(), LSTM(3, 3), Sequential(inner=Last())):
            with pytest.raises(ValueError, match="more: needs time steps, of which last has made"):
                Sequential(lstm=LSTM(2, 3), last=Last(), more=after)
        assert len(Sequential(self=Linear(3, 1))) == 1

    def test_sequences_one_after_the_other_are_refused(self):
        x = np.zeros((9, 2)), np.array([0, 4, 9])
        for call in (forecaster(), forecaster().forward):
            with pytest.raises(TypeError, match="x: expected one array"):
                call(x)
        with pytest.raises(ValueError, match="no dot"):
            Sequential(**{"a.b": Linear(3, 1)})

    def test_a_cache_of_another_model(self, rng):
        one, other = forecaster(), forecaster()
        y, _, cache = one.forward(rng.standard_normal((T, B, 2)))
        with pytest.raises(ValueError, match="another Sequential"):
            other.backward(y, None, cache)


def test_public_names():
    assert lf.nn.Sequential is Sequential


@pytest.mark.parametrize("kind", [nn.Linear, LSTM, nn.Sequential], ids=lambda kind: kind.__name__)
def test_a_subclass_with_another_forward(kind):
    """It computes in a model what it computes by itself, in every place of one."""

    class Doubled(kind):
        def __call__(self, x, state=None, *, lengths=None):
            y, state = super().__call__(x, state, lengths=lengths)
            return 2 * y, state

        def forward(self, x, state=None, *, lengths=None):
            y, state, cache = super().forward(x, state, lengths=lengths)
            return 2 * y, state, cache

        def backward(self, dy, dstate, cache):
            return super().backward(2 * dy, dstate, cache)

    def make():
        return Doubled(nn.Linear(4, 4, seed=0)) if kind is nn.Sequential else Doubled(4, 4, seed=0)

    x = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    model = nn.Sequential(first=make(), inner=nn.Sequential(second=make()))
    y, _, cache = model.forward(x)
    expected = make()(make()(x)[0])[0]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(model(x)[0], expected)
    one, two = make(), make()
    inner, _, of_one = one.forward(x)
    _, _, of_two = two.forward(inner)
    expected = one.backward(two.backward(y, None, of_two)[0], None, of_one)[0]
    np.testing.assert_array_equal(model.backward(y, None, cache)[0], expected)
