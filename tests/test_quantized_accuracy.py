"""`QuantizedLSTM` beside float32: every option, a trained speech enhancer, and ONNX Runtime."""

import os
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.models import model as model_file
from support.options import FUNCTIONS

import lstm_fast as lf
from lstm_fast import LSTM
from lstm_fast.reference.quantised import bfloat16

PRECISIONS = [("int8",), ("int8", "int8"), ("int8", "float32"), ("bfloat16",)]
SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
FRAME, HOP, FRAMES = 512, 128, 600
OPTIONS = [
    {},
    {"bias": False, "reverse": True},
    {"num_layers": 3},
    {"num_layers": 2, "hidden_size": (24, 9)},
    *({"bidirectional": True, "merge": merge} for merge in ("concat", "sum", "mul", "ave")),
    {"proj_size": 7},
    {"num_layers": 2, "bidirectional": True, "proj_size": 5},
    {"peephole": True},
    {"coupled": True},
    {"clip": 0.5},
    {"cell_clip": 0.5},
    {"layer_norm": True},
    {"layer_norm": True, "peephole": True, "coupled": True, "clip": 1.0, "cell_clip": 0.7},
    {"layer_norm": "gates"},
    {"layer_norm": "gates", "peephole": True, "coupled": True, "clip": 1.0, "cell_clip": 0.7},
    {"zoneout": (0.1, 0.3)},
    {"num_layers": 3, "residual": True},
    {"batch_first": True},
]
OPTIONS += [{"activations": (name, "Tanh", "Tanh")} for name in ("HardSigmoid", "Softsign")]
# All that are continuous: an error near a jump may become one of its height.
SMOOTH = sorted({*FUNCTIONS} - {"ThresholdedRelu"})
OPTIONS += [{"activations": ("Sigmoid", name, "Tanh"), "cell_clip": 1.0} for name in SMOOTH]
OPTIONS += [{"activations": ("Sigmoid", "Tanh", name), "cell_clip": 1.0} for name in SMOOTH]


@pytest.fixture
def isa(extended_isa):
    """Return it: extensions multiply lower precisions."""
    return extended_isa


def rms(difference):
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def with_normal_weights(lstm, rng):
    """Return the LSTM with random values in all of its parameters."""
    with lstm.writable() as parameters:
        for value in parameters.values():
            spread = 1 / np.sqrt(value.shape[-1]) if value.ndim == 2 else 0.3
            value[...] = rng.normal(value.mean(), spread, value.shape)
    return lstm


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_is_near_float32(isa, rng, options):
    """And near float32 with the rounded weights. Layer norm enlarges errors of a few even rows."""
    error = rms if "layer_norm" in options else lambda difference: np.abs(difference).max()
    lstm = with_normal_weights(LSTM(11, **{"hidden_size": 24} | options, seed=0), rng)
    x = rng.standard_normal((9, 5, 11)).astype(np.float32)
    exact = lstm(x)[0]
    for precision in PRECISIONS:
        small = lstm.quantize(*precision)
        for given in ({}, {"lengths": [3, 5, 0, 5, 1]}) if "batch_first" not in options else ({},):
            y = small(x, **given)[0]
            assert error(y - lstm(x, **given)[0]) < 0.05, precision
            assert error(y - small.dequantize()(x, **given)[0]) < 0.05, precision
        assert not np.array_equal(small(x)[0], exact)


# ---- over time

WINDOW = 1000
MOST_BY_TIME = 5e-3  # in any window: 3.2e-3 were measured


def errors_by_time(y, exact):
    """Return the RMS of the error in each window of time."""
    return [rms(part) for part in np.split(y - exact, len(y) // WINDOW)]


@pytest.fixture
def remembering(rng):
    """Return an LSTM that forgets over some 150 steps, x of 10,000 and y of float32."""
    lstm = LSTM(16, 16, forget_bias=5.0, seed=0)
    x = rng.standard_normal((10 * WINDOW, 1, 16)).astype(np.float32)
    return lstm, x, lstm(x)[0]


@pytest.mark.parametrize("precision", PRECISIONS, ids="-".join)
def test_errors_do_not_grow_with_time(isa, remembering, precision):
    lstm, x, exact = remembering
    found = errors_by_time(lstm.quantize(*precision)(x)[0], exact)
    assert max(found) < MOST_BY_TIME and found[-1] < 2 * found[0], found


@pytest.mark.no_isa
def test_a_state_that_is_rounded_would_be_seen(remembering):
    """Cells kept in 16 bits, rounded towards 0, lose what they add up."""
    lstm, x, exact = remembering
    small, state, ys = lstm.quantize("bfloat16"), None, []
    for x_t in x:
        y, (h, c) = small(x_t[None], state)
        state = h, (c.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        ys.append(y[0])
    found = errors_by_time(np.stack(ys), exact)
    assert min(found) > MOST_BY_TIME, found


@pytest.mark.no_isa
def test_dequantized_weights_are_the_rounded_ones(rng):
    lstm = with_normal_weights(LSTM(11, 24, 2, proj_size=5, peephole=True), rng)
    for weights in ("int8", "bfloat16"):
        small = lstm.quantize(weights)
        again = small.dequantize()
        assert isinstance(again, LSTM)
        for name, value in again.state_dict().items():
            wanted = lstm.state_dict()[name]
            bound = np.abs(wanted).max(axis=-1, keepdims=True) / 253 if wanted.ndim == 2 else 0
            assert (np.abs(value - wanted) <= bound).all(), name
        for name, value in again.quantize(weights).state_dict().items():
            if not name.endswith("_scale"):
                np.testing.assert_array_equal(value, small.state_dict()[name])


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"num_layers": 2, "proj_size": 256}])
def test_memory(isa, options):
    lstm = LSTM(512, 512, **options)
    whole = sum(value.nbytes for name, value in lstm.state_dict().items() if "options" not in name)
    assert lstm.quantize("int8").nbytes <= 0.27 * whole
    assert lstm.quantize("bfloat16").nbytes <= 0.52 * whole


# ---- a trained model


def magnitudes(speaker):
    """Return what DTLN takes, (1, frames, 257), of digits that one person speaks.

    It was trained at 16 kHz, twice the rate of the recordings.
    """
    folder = Path(os.environ.get("LSTM_FAST_DATA", "../shared/data")) / "fsdd/recordings"
    if not folder.exists():
        pytest.skip("no recordings of digits: LSTM_FAST_DATA names the folder that has fsdd/")
    parts = []
    for n in range(4):
        for digit in range(10):
            with wave.open(str(folder / f"{digit}_{speaker}_{n}.wav")) as file:
                parts.append(np.frombuffer(file.readframes(file.getnframes()), np.int16) / 2**15)
    slow = np.concatenate(parts)
    samples = 2 * np.fft.irfft(np.fft.rfft(slow), 2 * len(slow))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP][:FRAMES]
    assert len(frames) == FRAMES
    return np.abs(np.fft.rfft(frames)).astype(np.float32)[None]


# RMS of the error of a mask from 0 to 1, over all speakers: what is measured, and a tenth more.
LARGEST_RMS = {
    ("int8",): 0.009,
    ("int8", "float32"): 0.009,
    ("int8", "int8"): 0.038,
    ("bfloat16",): 0.0015,
}


@pytest.mark.parametrize("precision", LARGEST_RMS, ids="-".join)
def test_a_speech_enhancer(isa, precision):
    pytest.importorskip("onnx")
    exact = lf.from_onnx(model_file("dtln/model_1.onnx"))
    small = exact.quantize(*precision)
    errors = [small(x)[0] - exact(x)[0] for x in map(magnitudes, SPEAKERS)]
    assert rms(errors) <= LARGEST_RMS[precision]


def test_most_of_it_is_the_rounding_of_recurrent_weights(isa):
    """Errors of y by bfloat16 weights alone, in products of float32."""
    pytest.importorskip("onnx")
    model = lf.from_onnx(model_file("dtln/model_1.onnx"))
    xs = [magnitudes(speaker) for speaker in SPEAKERS]
    exact, whole = [model(x)[0] for x in xs], model.state_dict()
    found = {}
    for kind in ("weight_ih", "weight_hh"):
        low = {name: bfloat16(value) for name, value in whole.items() if kind in name}
        model.load_state_dict(whole | low)
        found[kind] = rms([model(x)[0] - y for x, y in zip(xs, exact, strict=True)])
    assert found["weight_ih"] < 0.0006 and 0.0009 < found["weight_hh"] < 0.0013, found


# ---- beside ONNX Runtime


def of_onnx_runtime(model, path, xs):
    """Return y of ONNX Runtime with 8-bit weights, and with 7 bits, for each x.

    A scale for each row of the weights. Where the CPU has no VNNI, sums of pairs of products may
    saturate in 16 bits, and 7 bits are the more exact.
    """
    runtime = pytest.importorskip("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    lf.to_onnx(path / "whole.onnx", model)
    found = []
    for reduce_range in (False, True):
        quantize_dynamic(
            path / "whole.onnx",
            path / "small.onnx",
            op_types_to_quantize=["LSTM"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=reduce_range,
        )
        session = runtime.InferenceSession(path / "small.onnx", providers=["CPUExecutionProvider"])
        assert b"DynamicQuantizeLSTM" in (path / "small.onnx").read_bytes()
        found.append([session.run(["y"], {"x": x})[0] for x in xs])
    return found


@pytest.mark.skipif(find_spec("onnx") is None, reason="onnx is not installed")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("T, B, I, H", [(40, 1, 8, 16), (30, 4, 32, 64), (12, 2, 300, 128)])
@pytest.mark.parametrize("scale", [1, 3])
def test_no_larger_errors_than_onnx_runtime(rng, tmp_path, T, B, I, H, options, scale):
    lstm = LSTM(I, H, **options, seed=0)
    with lstm.writable() as parameters:
        for value in parameters.values():
            value *= scale
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    y = lstm(x)[0]
    theirs = min(rms(found - y) for (found,) in of_onnx_runtime(lstm, tmp_path, [x]))
    for precision in PRECISIONS:
        assert rms(lstm.quantize(*precision)(x)[0] - y) <= theirs, precision


@pytest.mark.skipif(find_spec("onnx") is None, reason="onnx is not installed")
def test_a_speech_enhancer_beside_onnx_runtime(tmp_path):
    model = lf.from_onnx(model_file("dtln/model_1.onnx"))
    xs = [magnitudes(speaker) for speaker in SPEAKERS]
    exact = [model(x)[0] for x in xs]
    of_theirs = [np.subtract(found, exact) for found in of_onnx_runtime(model, tmp_path, xs)]
    for precision in PRECISIONS:
        small = model.quantize(*precision)
        errors = [small(x)[0] - y for x, y in zip(xs, exact, strict=True)]
        assert rms(errors) <= min(map(rms, of_theirs)), precision
