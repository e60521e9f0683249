"""`nn.EncoderDecoder`, against the same model put together by hand, which PyTorch checks."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from support.differences import assert_gradient
from support.translators import B, E, H, M, N, Translator, V, batch

import lstm_fast as lf
from lstm_fast import LSTM, nn, optim, training

pytestmark = pytest.mark.no_isa


def reader(words=V, seed=0, **options):
    """Return an encoder or decoder of numbers."""
    first = {"batch_first": options.get("batch_first", False), "seed": seed}
    if "dtype" in options:
        first["dtype"] = options["dtype"]
    return nn.Sequential(
        embed=nn.Embedding(words, E, **first), lstm=LSTM(E, H, seed=seed, **options)
    )


def new(attention=H**-0.5, words=V, **options):
    head = {key: options[key] for key in ("dtype", "batch_first") if key in options}
    columns = H if attention is None else 2 * H
    return nn.EncoderDecoder(
        reader(words, **options),
        reader(words, **options),
        nn.Linear(columns, words, seed=0, **head),
        attention=attention,
    )


def draw(model, rng):
    """Give it parameters with which it writes this and that."""
    with model.writable() as p:
        for name in model.parameters:
            p[name] = 1.5 * rng.standard_normal(p[name].shape)
        p["head.bias"] /= 4


def time_first(array, batch_first):
    return array.swapaxes(0, 1) if batch_first else array


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_model_put_together_by_hand(rng, dtype, batch_first):
    model, by_hand, given = new(dtype=dtype, batch_first=batch_first), Translator(dtype), batch(rng)
    x = tuple(time_first(part, batch_first) for part in given.x)
    expected, _, cache = by_hand.forward(given.x, lengths=given.lengths)
    dscores = rng.standard_normal(expected.shape).astype(dtype)
    _, _, grads = by_hand.backward(dscores, None, cache)
    scores, state, cache = model.forward(x, lengths=given.lengths)
    dx, dstate, found = model.backward(time_first(dscores, batch_first), None, cache)
    assert state is None and dstate is None and dx == (None, None)
    np.testing.assert_array_equal(time_first(scores, batch_first), expected)
    np.testing.assert_array_equal(model(x, lengths=given.lengths)[0], scores)
    assert found.keys() == grads.keys()
    for name, value in grads.items():
        np.testing.assert_array_equal(found[name], value, name)


@pytest.mark.parametrize("lengths", [None, (N, None), (None, M), (N, M)])
@pytest.mark.parametrize("attention", [None, 0.7])
def test_gradients_are_differences(rng, attention, lengths):
    """Also those of inputs that are no numbers."""
    of = {"seed": 1, "dtype": np.float64}
    model = nn.EncoderDecoder(
        nn.Sequential(lstm=LSTM(E, H, 2, bidirectional=False, **of)),
        nn.Sequential(lstm=LSTM(3, H, 2, **of)),
        nn.Linear(H if attention is None else 2 * H, 5, **of),
        attention=attention,
    )
    read, written = rng.standard_normal((max(N), B, E)), rng.standard_normal((max(M), B, 3))
    weights = rng.standard_normal((max(M), B, 5))

    def loss():
        return float((model((read, written), lengths=lengths)[0] * weights).sum())

    scores, _, cache = model.forward((read, written), lengths=lengths)
    weights[scores == 0] = 0  # beyond the lengths
    (dread, dwritten), _, grads = model.backward(weights, None, cache)
    for name, dx, x in (("read", dread, read), ("written", dwritten, written)):
        assert_gradient(dx, loss, x, tolerance=1e-6, where=name)
    names = [*grads]
    with model.writable() as p:
        assert_gradient(
            [grads[name] for name in names], loss, [p[name] for name in names], tolerance=1e-6
        )


def likeliest(model, read, n, begin, end, longest):
    """Return the sequence of greatest mean logarithm, of all there are."""
    V = model.head.output_size
    best, found = -np.inf, None
    for length in range(1, longest + 1):
        for numbers in itertools.product(range(V), repeat=length):
            if end in numbers[:-1] or (length < longest and numbers[-1] != end):
                continue
            written = np.array([begin, *numbers[:-1]])[:, None]
            scores = model((read[:n, None], written))[0][:, 0].astype(float)
            odds = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
            mean = odds[range(length), numbers].mean()
            if mean > best:
                best, found = mean, [number for number in numbers if number != end]
    return found


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("attention", [None, 1.0])
def test_a_wide_beam_finds_the_likeliest(rng, attention, batch_first):
    model = new(attention, words=3, dtype=np.float64, batch_first=batch_first)
    draw(model, rng)
    read, n = rng.integers(0, 3, (5, 12)), rng.integers(1, 6, 12)
    found = model.generate(time_first(read, batch_first), n, begin=0, end=1, beam=40, longest=3)
    of_one = new(attention, words=3, dtype=np.float64)
    of_one.load_state_dict(model.state_dict())
    expected = [likeliest(of_one, read[:, b], n[b], 0, 1, 3) for b in range(12)]
    assert [one.tolist() for one in found] == expected
    assert len({*map(tuple, expected)}) > 1


def test_greedy_search_goes_on_with_the_likeliest(rng):
    lengths = set()
    for _ in range(8):
        model = new(words=6)
        draw(model, rng)
        read, n = rng.integers(0, 6, (max(N), 6)), rng.integers(1, max(N) + 1, 6)
        for b, one in enumerate(model.generate(read, n, begin=0, end=1, longest=9)):
            written = [0]
            while len(written) <= 9 and 1 not in written:
                given = np.array(written)[:, None]
                scores, _ = model((read[: n[b], b : b + 1], given))
                written.append(int(scores[-1, 0].argmax()))
            assert one.tolist() == [number for number in written[1:] if number != 1]
            lengths.add(len(one))
    assert len(lengths) > 3 and 9 in lengths  # some end, some do not


def test_what_is_found_depends_on_no_sequence_beside_it(rng):
    model = new(words=7, dtype=np.float64)
    draw(model, rng)
    read, n = rng.integers(0, 7, (5, 12)), rng.integers(0, 6, 12)
    wide = model.generate(read, n, begin=0, end=1, beam=5, longest=6)
    for b, one in enumerate(wide):
        alone = model.generate(read[:, [b]], n[[b]], begin=0, end=1, beam=5, longest=6)
        assert np.array_equal(alone[0], one)
    assert model.generate(np.zeros((4, 0), int), begin=0, end=1, beam=3) == []


def test_it_learns_to_reverse(rng):
    """A whole training, with validation, and what is written at its end."""
    read = [rng.integers(2, V, n) for n in rng.integers(1, 5, 300)]
    written = [np.append(one[::-1], 1) for one in read]
    source = training.batches(read, written, 20, begin=0, seed=0)
    encoder, decoder = (
        nn.Sequential(embed=nn.Embedding(V, 16, seed=s), lstm=LSTM(16, 32, seed=s)) for s in (0, 1)
    )
    model = nn.EncoderDecoder(encoder, decoder, nn.Linear(64, V, seed=2), attention=32**-0.5)
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.Adam(0.01), clip_norm=1.0)
    trainer.fit(source, validation=source, epochs=25, progress=False)
    found = model.generate(*padded(read), begin=0, end=1, beam=2, longest=8)
    right = [np.array_equal(one, target[:-1]) for one, target in zip(found, written, strict=True)]
    assert np.mean(right) > 0.9


def padded(sequences):
    n = [*map(len, sequences)]
    found = np.zeros((max(n), len(n)), int)
    for b, one in enumerate(sequences):
        found[: n[b], b] = one
    return found, n


def test_its_file_makes_it_again(rng, tmp_path):
    pytest.importorskip("safetensors")
    for attention in (0.3, None):
        model = new(attention)
        model.save(tmp_path / "m.safetensors")
        again = lf.load(tmp_path / "m.safetensors")
        assert type(again) is nn.EncoderDecoder and repr(again) == repr(model)
        given = batch(rng)
        expected = model(given.x, lengths=given.lengths)[0]
        for other in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert np.array_equal(other(given.x, lengths=given.lengths)[0], expected)


def test_errors(rng):
    model, given = new(), batch(rng)
    with pytest.raises(ValueError, match="encoder: its states go to the decoder"):
        nn.EncoderDecoder(nn.Embedding(3, 4), reader(), nn.Linear(H, V))
    with pytest.raises(ValueError, match="head: expected a block of each step by itself"):
        nn.EncoderDecoder(reader(), reader(), LSTM(H, V))
    with pytest.raises(ValueError, match="decoder: has batch_first=True, and encoder False"):
        nn.EncoderDecoder(reader(), reader(batch_first=True), nn.Linear(H, V))
    with pytest.raises(ValueError, match="attention: needs the time steps of the encoder"):
        last = nn.Sequential(lstm=LSTM(E, H), last=nn.Last())
        nn.EncoderDecoder(last, reader(), nn.Linear(2 * H, V), attention=1.0)
    with pytest.raises(TypeError, match="attention: expected"):
        nn.EncoderDecoder(reader(), reader(), nn.Linear(2 * H, V), attention="dot")
    with pytest.raises(TypeError, match="x: expected a pair"):
        model(given.x[0])
    with pytest.raises(TypeError, match="lengths: expected a pair"):
        model(given.x, lengths=N)
    with pytest.raises(ValueError, match="state: expected None"):
        model(given.x, {})
    with pytest.raises(ValueError, match="encoder: embed: x"):
        model((given.x[0] + V, given.x[1]))
    with pytest.raises(ValueError, match="decoder: embed: x"):
        model((given.x[0], given.x[1] + V))
    with pytest.raises(ValueError, match="decoder: lstm: h0"):
        wide = nn.Sequential(embed=nn.Embedding(V, E), lstm=LSTM(E, 2 * H))
        nn.EncoderDecoder(wide, reader(), nn.Linear(H, V))(given.x)
    with pytest.raises(ValueError, match="attention: memory: expected the B and columns"):
        both = nn.Sequential(embed=nn.Embedding(V, E), lstm=LSTM(E, H, bidirectional=True))
        deep = nn.Sequential(embed=nn.Embedding(V, E), lstm=LSTM(E, H, 2))
        nn.EncoderDecoder(both, deep, nn.Linear(2 * H, V), attention=1.0)(given.x)
    with pytest.raises(ValueError, match="head: x"):
        nn.EncoderDecoder(reader(), reader(), nn.Linear(H + 1, V))(given.x)
    with pytest.raises(ValueError, match=r"read: expected axes \(T, B\), got shape \(5,\)"):
        model.generate(given.x[0][:, 0], begin=0, end=1)
    with pytest.raises(ValueError, match="end: expected a number below 11"):
        model.generate(given.x[0], begin=0, end=V)
    with pytest.raises(ValueError, match="decoder: embed: x"):
        model.generate(given.x[0], begin=V, end=0)
    with pytest.raises(ValueError, match="beam: expected"):
        model.generate(given.x[0], begin=0, end=1, beam=0)
    with pytest.raises(ValueError, match="lengths: expected"):
        model.generate(given.x[0], [9, 9, 9], begin=0, end=1)
    _, _, cache = model.forward(given.x)
    with pytest.raises(ValueError, match="cache: comes from another EncoderDecoder"):
        new().backward(np.zeros((max(M), B, V), np.float32), None, cache)
