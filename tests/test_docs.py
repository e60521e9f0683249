"""The examples of the documentation run."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.no_isa
BLOCK = r"```python\n(.*?)^```"
# As "lstm_fast[keras]" or ".[files,torch]"; "[onnx]" alone in a list of such.
EXTRAS = r"(?:lstm_fast|(?<=[\s'\"])\.|`)\[([a-z, ]+)\]"

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/variants.md", "docs/pytorch.md", "docs/training.md", "docs/precision.md"],
)
def test_examples(name):
    blocks = re.findall(f"^{BLOCK}", (ROOT / name).read_text(), flags=re.M | re.S)
    assert blocks
    if any("torch" in block for block in blocks):
        pytest.importorskip("torch")
    namespace = {}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
    assert namespace.get("np", np) is np


def test_serving_a_model_of_pytorch_without_it(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    text = (ROOT / "docs/formats.md").read_text()
    example = re.findall(f"\\n\\n{BLOCK}", text, flags=re.M | re.S)[0]
    blocks = [
        re.findall(f"<!-- {where} PyTorch -->\n{BLOCK}", text, flags=re.M | re.S)[0]
        for where in ("with", "without")
    ]
    without = "import sys\nsys.modules['torch'] = None\n"
    for code in (without + example, blocks[0], without + blocks[1]):
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
        assert ran.returncode == 0, ran.stderr
    assert re.match("verified: the largest difference is", ran.stderr)


def test_extras_that_are_named_exist():
    project = (ROOT / "pyproject.toml").read_text()
    table = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = ", table, flags=re.M))
    texts = [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]
    texts += [*ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")]
    texts += [path for top in ("src", "bench", "examples") for path in ROOT.glob(f"{top}/**/*.py")]
    named = {
        (name.strip(), str(path.relative_to(ROOT)))
        for path in [*texts, ROOT / "pyproject.toml"]
        for names in re.findall(EXTRAS, path.read_text())
        for name in names.split(",")
    }
    assert {name for name, _ in named} >= {"keras", "onnx", "openvino", "torch", "files", "bench"}
    assert not {(name, path) for name, path in named if name not in extras}
