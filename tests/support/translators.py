"""An encoder, a decoder and attention, put together by hand, and what it is trained with."""

import numpy as np

from lstm_fast import LSTM, nn, training

V, E, H, B = 11, 4, 6, 3
N, M = [5, 2, 4], [3, 4, 1]  # steps of what is read, and of what is written


class Translator(nn.Model):
    """Reads numbers (T, B), and says what follows each of the numbers (M, B) that are written."""

    def __init__(self, dtype=np.float32, seed=0):
        of = {"dtype": dtype, "seed": seed}
        super().__init__(
            encoder=nn.Sequential(embed=nn.Embedding(V, E, **of), lstm=LSTM(E, H, **of)),
            decoder=nn.Sequential(embed=nn.Embedding(V, E, **of), lstm=LSTM(E, H, **of)),
            head=nn.Linear(2 * H, V, **of),
        )
        self.attention = nn.Attention(H**-0.5, dtype=dtype)

    def forward(self, x, state=None, *, lengths=None):
        (read, written), (n, m) = x, lengths
        memory, state, of_encoder = self.encoder.forward(read, lengths=n)
        y, _, of_decoder = self.decoder.forward(written, state, lengths=m)
        context, of_attention = self.attention.forward(y, memory, lengths=n)
        both = np.concatenate([y, context], axis=2)
        scores, _, of_head = self.head.forward(both, lengths=m)
        return scores, None, (of_encoder, of_decoder, of_attention, of_head)

    def backward(self, dy, dstate, cache):
        of_encoder, of_decoder, of_attention, of_head = cache
        dboth, _, head = self.head.backward(dy, None, of_head)
        dy, dcontext = np.split(dboth, 2, axis=2)
        dquery, dmemory = self.attention.backward(dcontext, of_attention)
        _, dstate, decoder = self.decoder.backward(dy + dquery, None, of_decoder)
        _, _, encoder = self.encoder.backward(dmemory, dstate, of_encoder)
        return None, None, self.gradients(encoder=encoder, decoder=decoder, head=head)


def batch(rng):
    """Return one that the trainer takes: what is written, and what is to follow."""
    read, written = rng.integers(0, V, (max(N), B)), rng.integers(0, V, (max(M) + 1, B))
    n, m = np.array(N), np.array(M)
    return training.Batch((read, written[:-1]), written[1:], (n, m), target_lengths=m)
