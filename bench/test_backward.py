"""Time of a training step: forward, then backward to the gradients of x, h0, c0 and all weights."""

import pytest

from lstm_fast.comparison import Case
from lstm_fast.peers import Peer

from .conftest import Timed, training_peers
from .shapes import SHAPES, Shape


@training_peers
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forward_and_backward(shape: Shape, kind: type[Peer], run: Timed) -> None:
    run(shape, kind, Case.training, "forward and backward", 3 * shape.flop)
