"""`lstm_fast.peers` and `lstm_fast.comparison`: what is timed is right, and the timing too."""

import importlib
import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

import lstm_fast
from lstm_fast import comparison, peers
from lstm_fast.comparison import Case
from lstm_fast.peers import PEERS, Peer

SHAPES = [(1, 1, 3, 5), (4, 1, 6, 8), (5, 3, 7, 17), (2, 4, 20, 16)]


def build(kind: type[Peer], case: Case) -> Peer:
    """Build one peer, or skip the test with the reason why it is missing."""
    try:
        return kind(case.state_dict, threads=1)
    except ImportError as error:
        pytest.skip(f"{kind.name} is not installed: {error}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", PEERS)
def test_every_pass_of_every_peer_agrees_with_the_reference(
    kind: type[Peer], shape: tuple[int, int, int, int]
) -> None:
    case = Case(*shape)
    peer = build(kind, case)
    case.forward(peer)
    case.streaming(peer)
    if kind.trains:
        case.training(peer)
    else:
        with pytest.raises(NotImplementedError, match="backward"):
            case.training(peer)


@pytest.mark.parametrize("kind", PEERS)
def test_a_bound_function_gives_the_same_again(kind: type[Peer]) -> None:
    case = Case(4, 3, 5, 6)
    peer = build(kind, case)
    bound = [case.forward(peer), *([case.training(peer)] if kind.trains else [])]
    for call in bound:
        first = [np.asarray(array).copy() for array in call()]
        for a, b in zip(first, call(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", peers.WEIGHTS)
@pytest.mark.parametrize("kind", PEERS)
def test_a_wrong_weight_is_seen(kind: type[Peer], name: str) -> None:
    case = Case(4, 3, 5, 6)
    wrong = {key: array.copy() for key, array in case.state_dict.items()}
    wrong[name].flat[7] += 0.01
    try:
        peer = kind(wrong, threads=1)
    except ImportError as error:
        pytest.skip(f"{kind.name} is not installed: {error}")
    for bind in (case.forward, case.streaming, *([case.training] if kind.trains else [])):
        with pytest.raises(RuntimeError, match="differs from the reference"):
            bind(peer)


def test_nan_is_not_taken_for_agreement() -> None:
    case = Case(2, 1, 3, 4)
    wrong = {key: np.full_like(array, np.nan) for key, array in case.state_dict.items()}
    with pytest.raises(RuntimeError, match="differs from the reference by nan"):
        case.forward(peers.Reference(wrong, threads=1))


def test_the_state_is_part_of_the_comparison() -> None:
    case = Case(2, 1, 3, 4)
    peer = peers.Reference(case.state_dict, threads=1)
    case.h0, case.c0 = case.c0, case.h0
    swapped = case.forward(peer)()
    case = Case(2, 1, 3, 4)
    for a, b in zip(case.forward(peer)(), swapped, strict=True):
        assert np.abs(a - b).max() > 100 * comparison.TOLERANCE


def test_a_missing_framework_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> ModuleType:
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return importlib.import_module(name)

    monkeypatch.setattr(peers, "import_module", import_module)
    found, missing = peers.available_peers(Case(1, 1, 2, 3).state_dict, threads=1)
    assert missing["PyTorch"] == "No module named 'torch'"
    assert [peer.name for peer in found[:2]] == ["lstm_fast", "NumPy reference"]
    assert {peer.name for peer in found} | set(missing) == {kind.name for kind in PEERS}


def test_threads_are_limited_inside_the_block_only() -> None:
    def blas_threads() -> list[Any]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = lstm_fast.get_num_threads(), blas_threads()
    with comparison.limit_threads(1):
        assert lstm_fast.get_num_threads() == 1
        assert set(blas_threads()) == {1}
    assert (lstm_fast.get_num_threads(), blas_threads()) == before


def test_median_times_are_those_of_the_functions() -> None:
    short, long = comparison.median_times([lambda: None, lambda: time.sleep(0.01)], seconds=0.0)
    assert 0 < short < 0.005 < long
