"""Random models of blocks, against PyTorch in float64 and against central differences."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from support import comparisons
from support.comparing import assert_close
from support.differences import assert_gradient
from support.options import MANY
from support.random_models import Ours, problems

with suppress(ImportError):
    import torch
    from support.torch_models import Theirs

STEPS = 3
# Relative to the largest element of an array, or to 0.1: ten times the largest errors found.
TOLERANCE = {"float32": 3e-5, "float64": 1e-12}


@pytest.fixture
def one_thread():
    """PyTorch on one thread, or no test without it."""
    comparisons.require("PyTorch", "torch")
    torch.set_num_threads(1)


@settings(MANY, max_examples=150)
@given(problem=problems())
def test_training_against_pytorch(one_thread, dtype, problem):
    ours = Ours(problem, dtype)
    theirs = Theirs(problem, ours)
    near = {"tolerance": TOLERANCE[dtype.name], "floor": 0.1}
    assert_close(ours.infer(), theirs.infer(), **near)
    for step in range(STEPS):
        assert_close(ours.train(), theirs.train(), **near, where=f"in step {step}")
        assert_close(ours.model.state_dict(), theirs.parameters(), **near, where=f"after {step}")


@MANY
@given(problem=problems(smooth=True))
def test_gradients_are_central_differences(problem):
    ours = Ours(problem, np.dtype(np.float64))
    values = ours.model.state_dict()
    arrays = {f"d {name}": value for name, value in values.items()}
    for path, (h, c) in ours.arguments.state.items():
        arrays |= {f"dh0 {path}": h, f"dc0 {path}": c}
    if ours.x.dtype.kind == "f":
        arrays["dx"] = ours.turned(ours.x)

    def value():
        ours.model.load_state_dict(values)
        return ours.value()

    grads = ours.train()
    assert_gradient(
        [grads[name] for name in arrays],
        value,
        [*arrays.values()],
        tolerance=1e-6,
        floor=0.01,
        effect=False,  # a softmax of one column, for example, has none
    )
