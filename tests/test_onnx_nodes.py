"""Every implementation on ONNX's own examples of LSTM nodes: all those of the installed package."""

import ast
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from oracles import INPUTS, OUTPUTS, every_implementation, run_onnx_node

pytest.importorskip("onnx", reason="runs ONNX's examples of nodes")


@lru_cache(maxsize=1)
def cases():
    """Return a name, a node, its arrays by name of input and of output, for every example."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # examples of casts overflow on purpose
        tests = load_model_tests(kind="node")
    found = []
    for test in tests:
        nodes = [node for node in test.model.graph.node if node.op_type == "LSTM"]
        if not nodes:
            continue
        (node,) = nodes
        assert [node] == [*test.model.graph.node]
        for given, expected in test.data_sets:
            # Names follow the order of inputs and outputs; an absent one is "" in the node only.
            names = [k for k, name in zip(INPUTS, node.input, strict=False) if name]
            results = [k for k, name in zip(OUTPUTS, node.output, strict=False) if name]
            arrays = dict(zip(names, given, strict=True))
            found.append((test.name, node, arrays, dict(zip(results, expected, strict=True))))
    return found


def test_there_are_as_many_as_in_the_source():
    import onnx.backend.test.case.node.lstm as source

    tree = ast.parse(Path(source.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    expected = sum(getattr(call.func, "id", None) == "expect" for call in calls)
    assert len(cases()) >= expected >= 6
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
