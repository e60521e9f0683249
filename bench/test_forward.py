"""Time of a forward pass for inference: x, h0, c0 to y, hn, cn."""

import pytest

from lstm_fast.comparison import Case
from lstm_fast.peers import Peer

from .conftest import Timed, all_peers
from .shapes import SHAPES, Shape


@all_peers
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forward(shape: Shape, kind: type[Peer], run: Timed) -> None:
    run(shape, kind, Case.forward, "forward", shape.flop)
