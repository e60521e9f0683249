"""`nn.Model`: blocks that a class puts together, as an encoder, a decoder and attention between."""

import copy
import pickle

import numpy as np
import pytest
from support import comparisons
from support.comparing import assert_close
from support.translators import B, E, H, M, N, Translator, V, batch

import lstm_fast as lf
from lstm_fast import LSTM, nn, optim, training

pytestmark = pytest.mark.no_isa


class Callable(Translator):
    def __call__(self, x, state=None, *, lengths=None):
        return self.forward(x, state, lengths=lengths)[:2]


def in_pytorch(model):
    """Return the same model as a module, with the same parameters, and a function of its loss."""
    import torch

    def reader():
        return torch.nn.ModuleDict({"embed": torch.nn.Embedding(V, E), "lstm": torch.nn.LSTM(E, H)})

    module = torch.nn.ModuleDict(
        {"encoder": reader(), "decoder": reader(), "head": torch.nn.Linear(2 * H, V)}
    ).double()
    module.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})

    def loss(given):
        (read, written), target = map(torch.tensor, given.x), torch.tensor(given.target)
        total = 0
        for b, (n, m) in enumerate(zip(N, M, strict=True)):
            memory, state = module["encoder"]["lstm"](module["encoder"]["embed"](read[:n, b]))
            y, _ = module["decoder"]["lstm"](module["decoder"]["embed"](written[:m, b]), state)
            context = (y @ memory.T * H**-0.5).softmax(1) @ memory
            scores = module["head"](torch.cat([y, context], 1))
            total += torch.nn.functional.cross_entropy(scores, target[:m, b], reduction="sum")
        return total / sum(M)

    return module, loss


def test_gradients_are_those_of_pytorch(rng):
    comparisons.require("PyTorch", "torch")
    model, given = Translator(np.float64), batch(rng)
    scores, _, cache = model.forward(given.x, lengths=given.lengths)
    loss, dscores = nn.CrossEntropy()(scores, given.target, None, given.target_lengths)
    _, _, grads = model.backward(dscores, None, cache)
    module, theirs = in_pytorch(model)
    expected = theirs(given)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_close(grads, {k: p.grad.numpy() for k, p in module.named_parameters()}, 1e-12)


def test_an_update_is_that_of_pytorch(rng):
    comparisons.require("PyTorch", "torch")
    import torch

    model, given = Translator(np.float64), batch(rng)
    module, theirs = in_pytorch(model)
    optimizer = torch.optim.AdamW(module.parameters(), 0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = theirs(given)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.AdamW(0.01), clip_norm=0.5)
    history = trainer.fit([given], epochs=5, progress=False)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-9)
    assert_close(
        model.state_dict(), {k: p.detach().numpy() for k, p in module.named_parameters()}, 1e-7
    )


def test_batches_of_pairs_train_it_and_the_best_is_kept(rng):
    read = [rng.integers(1, V, n) for n in rng.integers(2, 6, 40)]
    source = training.batches(read, [np.append(0, s[::-1]) for s in read], 8, aligned=False, seed=0)

    def pairs(epoch):
        for given in source.epoch(epoch):
            m = given.target_lengths - 1
            x, target = (given.x, given.target[:-1]), given.target[1:]
            yield training.Batch(x, target, (given.lengths, m), target_lengths=m)

    model = Callable()
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.Adam(0.03))
    history = trainer.fit(pairs, validation=pairs, epochs=30, progress=False)
    assert history.validation[-1] < 0.5 * history.validation[0]
    assert trainer.evaluate(pairs) == pytest.approx(min(history.validation), rel=1e-5)


def test_names_and_one_buffer():
    model = Translator()
    assert model.encoder is model.blocks["encoder"]
    assert model.parameters[:2] == ("encoder.embed.weight", "encoder.lstm.weight_ih_l0")
    assert model.parameters[-1] == "head.bias"
    grads = model.gradients(head=model.head.state_dict())
    assert np.array_equal(grads["head.bias"], model.head.bias)
    assert not grads["encoder.embed.weight"].any()
    assert model._parameters.layout.flat(grads) is grads.flat


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(rng, again):
    model, given = Callable(), batch(rng)
    y, _ = model(given.x, lengths=given.lengths)
    other = again(model)
    with model.writable() as p:
        p["head.weight"] *= 2
    assert np.array_equal(other(given.x, lengths=given.lengths)[0], y)
    assert not np.array_equal(model(given.x, lengths=given.lengths)[0], y)


def test_its_file_has_parameters_and_blocks(tmp_path):
    pytest.importorskip("safetensors")
    model, other = Translator(seed=1), Translator(seed=2)
    model.save(tmp_path / "m.safetensors")
    found = lf.load(tmp_path / "m.safetensors")
    assert type(found) is nn.Model and repr(found.encoder) == repr(model.encoder)
    other.load_state_dict(found.state_dict())
    for name, value in model.state_dict().items():
        assert np.array_equal(other.state_dict()[name], value)


def test_in_a_sequence(rng):
    """A model with a state and without a time axis, between two blocks."""

    class Summary(nn.Model):
        stateful, keeps_time = True, False

        def __call__(self, x, state=None, *, lengths=None):
            _, state = self.lstm(x, state, lengths=lengths)
            return state[0][-1], state

        def forward(self, x, state=None, *, lengths=None):
            _, state, cache = self.lstm.forward(x, state, lengths=lengths)
            return state[0][-1], state, cache

        def backward(self, dy, dstate, cache):
            dx, dstate, grads = self.lstm.backward(None, (dy[None], np.zeros_like(dy)[None]), cache)
            return dx, dstate, self.gradients(lstm=grads)

    x, results = rng.integers(0, V, (5, B)), []
    lstms = [LSTM(E, H, seed=0) for _ in range(2)]
    for part in (Summary(lstm=lstms[0]), nn.Sequential(lstm=lstms[1], last=nn.Last())):
        embed, head = nn.Embedding(V, E, seed=0), nn.Linear(H, 2, seed=0)
        model = nn.Sequential(embed=embed, part=part, head=head)
        y, _, cache = model.forward(x, lengths=N)
        assert np.array_equal(model(x, lengths=N)[0], y)
        results.append([y, *model.backward(np.ones_like(y), None, cache)[2].values()])
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_options_that_pytorch_has_not_are_refused():
    with pytest.raises(ValueError, match="lstm: peephole=True: torch"):
        lf.to_torch(nn.Model(lstm=LSTM(2, 3, peephole=True)))


def test_repr_is_a_table():
    lines = repr(Translator()).splitlines()
    assert lines[0] == "Translator"
    assert lines[2].split() == ["encoder", "Sequential", "332"]
    assert lines[4].split()[-1] == "143"
    assert lines[-1].split() == ["807"]


def test_a_number_that_is_none_is_found(rng):
    model, given = Translator(), batch(rng)
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.Adam())
    with model.writable() as p:
        p["head.bias"][0] = np.nan
    with pytest.raises(FloatingPointError, match=r"parameter head\.bias of block Translator"):
        trainer.fit([given], progress=False)
    with model.writable() as p:
        p["head.bias"][0] = 0
        p["head.weight"] = np.full((V, 2 * H), 3e38)
    with pytest.raises(FloatingPointError, match="what Translator computes, or the loss"):
        trainer.fit([given], progress=False)


def test_errors():
    with pytest.raises(TypeError, match="head: expected a block, got int"):
        nn.Model(head=3)
    with pytest.raises(ValueError, match="at least one"):
        nn.Model()
    with pytest.raises(ValueError, match="'save': a model has another attribute of this name"):
        nn.Model(save=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="b: has dtype float64, and a has float32"):
        nn.Model(a=nn.Linear(2, 2), b=nn.Linear(2, 2, dtype=np.float64))
    model = Translator()
    with pytest.raises(ValueError, match="tail: expected the gradients of one of"):
        model.gradients(tail={})
    with pytest.raises(ValueError, match="head: expected the gradients of one of"):
        model.gradients(head={"weight": model.head.weight})
    with pytest.raises(NotImplementedError, match="Translator has no __call__"):
        model((np.zeros((1, 1), int),) * 2, lengths=([1], [1]))
    with pytest.raises(ValueError, match="inner: Translator has no stream"):
        nn.Sequential(inner=model).stream()
