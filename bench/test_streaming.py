"""Time of one streaming step: x_t to y_t, with the state carried from call to call.

Three steps are checked first.
"""

import pytest

from lstm_fast.comparison import Case
from lstm_fast.peers import Peer

from .conftest import Timed, all_peers
from .shapes import STREAMS, Shape


@all_peers
@pytest.mark.parametrize("shape", STREAMS, ids=lambda shape: shape.name)
def test_streaming_step(shape: Shape, kind: type[Peer], run: Timed) -> None:
    run(shape, kind, Case.streaming, "streaming step", shape.flop, steps=3)
