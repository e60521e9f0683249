"""Models of blocks with optimisers and the Trainer: where the parts meet."""

import numpy as np
import pytest

from lstm_fast import LSTM, nn, optim, training

pytestmark = pytest.mark.no_isa


def test_a_loss_that_is_no_number_says_where_also_with_a_state():
    model = nn.Sequential(
        embed=nn.Embedding(10, 4, seed=0),
        lstm=LSTM(4, 8, seed=0),
        head=nn.Linear(8, 10, seed=0),
    )
    stream = np.random.default_rng(0).integers(0, 10, 400)
    before = model.state_dict()
    with pytest.raises(FloatingPointError, match="not finite first: the"):
        training.Trainer(model, nn.CrossEntropy(), optim.SGD(1e38)).fit(
            training.truncated(stream, 10, 4), epochs=3, progress=False
        )
    assert before.keys() == model.state_dict().keys()


def test_a_model_without_parameters():
    x = np.zeros((4, 2, 3), np.float32)
    for optimizer in (optim.SGD(0.1), optim.AdamW(), optim.RMSprop()):
        optimizer.step(nn.Softmax(), {})
        training.Trainer(nn.Softmax(), nn.MeanSquared(), optimizer).fit([(x, x)], progress=False)


def test_a_batch_of_empty_sequences():
    model = nn.Sequential(
        lstm=LSTM(3, 4, bidirectional=True, seed=0), last=nn.Last(2), head=nn.Linear(8, 2, seed=0)
    )
    sequences = [np.zeros((n, 3), np.float32) for n in (0, 5, 0, 2)]
    source = training.batches(sequences, [0, 1, 1, 0], batch_size=1, seed=0)
    history = training.Trainer(model, nn.CrossEntropy(), optim.Adam()).fit(source, progress=False)
    assert np.isfinite(history.loss).all()


def test_the_steps_of_a_trainer_are_those_by_hand():
    def made():
        return nn.Sequential(lstm=LSTM(3, 5, seed=0), last=nn.Last(), head=nn.Linear(5, 2, seed=1))

    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 3)).astype(np.float32) for n in (4, 2, 6, 1)]
    source = training.batches(sequences, [0, 1, 1, 0], batch_size=2, shuffle=False)
    trained, by_hand = made(), made()
    trainer = training.Trainer(trained, nn.CrossEntropy(), optim.Adam(1e-2), clip_norm=0.5)
    trainer.fit(source, epochs=3, progress=False)
    optimizer = optim.Adam(1e-2)
    for epoch in range(3):
        for batch in source.epoch(epoch):
            y, _, cache = by_hand.forward(batch.x, lengths=batch.lengths)
            _, dy = nn.CrossEntropy()(y, batch.target)
            _, _, grads = by_hand.backward(dy, None, cache)
            optim.clip_by_global_norm(grads, 0.5)
            optimizer.step(by_hand, grads)
    values = by_hand.state_dict()
    assert all(np.array_equal(value, values[name]) for name, value in trained.state_dict().items())
