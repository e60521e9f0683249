"""Time of inference, of a training step, and of a streaming step."""

import pytest

from .conftest import Timed
from .contenders import THREADS_OF_THE_CALL
from .shapes import SHAPES, STREAMS, Shape

contenders = pytest.mark.parametrize("name", THREADS_OF_THE_CALL)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
streams = pytest.mark.parametrize("shape", STREAMS, ids=lambda shape: shape.name)


@contenders
@shapes
def test_forward(shape: Shape, name: str, run: Timed) -> None:
    """From x, h0, c0 to y, hn, cn."""
    run(shape, name, "inference")


@contenders
@shapes
def test_backward(shape: Shape, name: str, run: Timed) -> None:
    """Forward, then backward to the gradients of x, h0, c0 and all weights."""
    run(shape, name, "training")


@contenders
@streams
def test_streaming_step(shape: Shape, name: str, run: Timed) -> None:
    """From x_t to y_t, with the state carried from call to call."""
    run(shape, name, "streaming")
