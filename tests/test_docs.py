"""The examples of the documentation run."""

import re
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.no_isa

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name", ["README.md", "docs/variants.md", "docs/pytorch.md", "docs/training.md"]
)
def test_examples(name):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), flags=re.M | re.S)
    assert blocks
    if any("torch" in block for block in blocks):
        pytest.importorskip("torch")
    namespace = {"np": np}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
    assert namespace["np"] is np
