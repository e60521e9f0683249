"""What errors say: the name under which users called something, and the argument that is wrong."""

import warnings

import numpy as np
import pytest

import lstm_fast
from lstm_fast import LSTM

pytestmark = pytest.mark.no_isa


@pytest.mark.parametrize(
    "make",
    [
        lambda: LSTM(),
        lambda: LSTM(3),
        lambda: LSTM(hidden_size=4),
        lambda: LSTM(3, 4, nonsense=1),
        lambda: LSTM(3, 4, input_size=3),
        lambda: LSTM(3, 4, 1, True, False, 0.0, False, 0, True),
    ],
)
def test_a_call_that_does_not_fit_names_the_class(make):
    """`LSTM` as users know it, whatever it is made of."""
    with pytest.raises(TypeError, match=r"^(lstm_fast\.)?LSTM(\.__init__)?\(\)") as raised:
        make()
    assert "Settings" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda a: lstm_fast.set_num_threads(a), "n"),
        (lambda a: LSTM(a, 4), "input_size"),
        (lambda a: LSTM(3, a), "hidden_size"),
        (lambda a: LSTM(3, (4, a)), r"hidden_size\[1\]"),
        (lambda a: LSTM(3, 4, num_layers=a), "num_layers"),
        (lambda a: LSTM(3, 4, proj_size=a), "proj_size"),
        (lambda a: LSTM(3, 4, seed=a), "seed"),
        (lambda a: LSTM(3, 4).stream(a), "batch_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(
    "array", [np.array([2]), np.array([[2]]), np.array([2.0]), np.array(2.0), np.array([True])]
)
def test_an_array_is_no_integer(call, name, array):
    """Not even one of a single element, which NumPy converts with a warning in some versions."""
    before = lstm_fast.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=rf"^{name}: expected an integer, got .*ndarray"):
            call(array)
    assert lstm_fast.get_num_threads() == before
