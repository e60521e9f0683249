"""The named shapes that are timed."""

from typing import NamedTuple

__all__ = ["SHAPES", "STREAMS", "Shape"]


class Shape(NamedTuple):
    """Extents of one layer and its input."""

    name: str
    T: int  # steps
    B: int  # batch rows
    I: int  # inputs
    H: int  # units

    def __str__(self) -> str:
        return f"{self.name} (T={self.T}, B={self.B}, I={self.I}, H={self.H})"


# Forward pass and training step.
SHAPES = (
    Shape("step-h32", 1, 1, 16, 32),
    Shape("step-h64", 1, 1, 64, 64),
    Shape("step-h256", 1, 1, 128, 256),
    Shape("step-h512", 1, 1, 512, 512),
    Shape("single-h32", 100, 1, 16, 32),
    Shape("single-h64", 100, 1, 64, 64),
    Shape("single-h128", 100, 1, 128, 128),
    Shape("single-h256", 100, 1, 256, 256),
    Shape("single-h512", 50, 1, 512, 512),
    Shape("single-h1024", 25, 1, 1024, 1024),
    Shape("batch8-h64", 100, 8, 64, 64),
    Shape("batch8-h256", 100, 8, 128, 256),
    Shape("batch16-h512", 50, 16, 512, 512),
    Shape("batch32-h32", 50, 32, 16, 32),
    Shape("batch32-h128", 50, 32, 64, 128),
    Shape("batch32-h256", 50, 32, 256, 256),
    Shape("batch64-h512", 25, 64, 512, 512),
    Shape("batch64-h1024", 25, 64, 1024, 1024),
    Shape("batch128-h512", 25, 128, 256, 512),
)

# One step, with the state carried from call to call.
STREAMS = (
    Shape("stream-h32", 1, 1, 16, 32),
    Shape("stream-h64", 1, 1, 64, 64),
    Shape("stream-h128", 1, 1, 128, 128),
    Shape("stream-h320", 1, 1, 320, 320),
    Shape("stream-h512", 1, 1, 512, 512),
    Shape("stream-batch16-h64", 1, 16, 64, 64),
)
