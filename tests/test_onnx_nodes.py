"""Every implementation on ONNX's own examples of LSTM nodes: all those of the installed package."""

import ast
from functools import lru_cache
from importlib import import_module, reload
from pathlib import Path
from unittest import mock

import numpy as np
from support import comparisons
from support.comparisons import every_implementation
from support.onnx_nodes import INPUTS, OUTPUTS, run_onnx_node

comparisons.require("ONNX's examples", "onnx")

EXAMPLES = "onnx.backend.test.case.node"


@lru_cache(maxsize=1)
def cases():
    """Return a name, a node, its arrays by name of input and of output, for every example.

    Each of them is a call of ``expect`` when their module is imported. To load the examples of all
    nodes takes seconds.
    """
    found = []

    def expect(node, inputs, outputs, name, **_):
        # Names follow the order of inputs and outputs; an absent one is "" in the node only.
        names = [k for k, given in zip(INPUTS, node.input, strict=False) if given]
        results = [k for k, given in zip(OUTPUTS, node.output, strict=False) if given]
        arrays = dict(zip(names, inputs, strict=True))
        found.append((name, node, arrays, dict(zip(results, outputs, strict=True))))

    module = import_module(f"{EXAMPLES}.lstm")
    with mock.patch(f"{EXAMPLES}.expect", expect):
        reload(module)
    return found


def test_there_are_as_many_as_in_the_source():
    tree = ast.parse(Path(import_module(f"{EXAMPLES}.lstm").__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    expected = sum(getattr(call.func, "id", None) == "expect" for call in calls)
    assert len(cases()) == expected >= 6
    assert {node.op_type for _, node, _, _ in cases()} == {"LSTM"}
    features = {key.name for _, node, _, _ in cases() for key in node.attribute}
    assert features >= {"hidden_size", "direction", "layout"}
    assert any("P" in arrays for _, _, arrays, _ in cases())


@every_implementation
def test_results_are_those_of_the_examples(implementation, dtype):
    assert cases()
    for name, node, arrays, expected in cases():
        actual = run_onnx_node(implementation, node, arrays, dtype)
        for output, array in expected.items():
            where = f"{name} {output}"
            assert actual[output].shape == array.shape, where
            np.testing.assert_allclose(actual[output], array, 1e-6, 0, err_msg=where)
