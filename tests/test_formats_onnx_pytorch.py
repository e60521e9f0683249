"""Models that PyTorch's exporter writes through `torch.export`, and the one before it."""

import io
import logging
import warnings

import numpy as np
import pytest
from support import comparisons

from lstm_fast.formats import from_onnx

comparisons.require("PyTorch's exporter", "torch", "onnx", "onnxruntime", "onnxscript")

import onnx  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.no_isa

T, B, I, H, V = 5, 3, 4, 6, 11


class Model(nn.Module):
    """An LSTM, what may stand before it, and a linear layer after it."""

    def __init__(self, batch_first, embed=True, last=False, **options):
        super().__init__()
        self.embed = nn.Embedding(V, I) if embed else nn.Identity()
        self.lstm = nn.LSTM(I, H, batch_first=batch_first, **options)
        self.last, self.batch_first = last, batch_first
        self.head = nn.Linear(H * (2 if self.lstm.bidirectional else 1), 3)

    def run(self, x, states=None):
        y, (h, c) = self.lstm(self.embed(x), states)
        if self.last:
            y = torch.cat((h[-2], h[-1]), 1) if self.lstm.bidirectional else h[-1]
        return self.head(y), h, c

    def forward(self, x):
        return self.run(x)[0]


class WithStates(Model):
    def forward(self, x, h0, c0):
        return self.run(x, (h0, c0))


class Packed(Model):
    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(x), lengths, self.batch_first)
        y = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], self.batch_first)[0]
        return self.head(y)


def made(kind, **options):
    """Return a module, and an example of its arguments by name, with which axes are open."""
    torch.manual_seed(0)
    module = kind(**options).eval()
    shape = (B, T) if module.batch_first else (T, B)
    features = options.get("embed", True)
    x = torch.randint(0, V, shape) if features else torch.randn(*shape, I)
    given, axes = {"x": x}, {"x": {0: "a", 1: "b"}}
    if kind is WithStates:
        L = module.lstm.num_layers * (2 if module.lstm.bidirectional else 1)
        given |= {name: torch.randn(L, B, H) for name in ("h0", "c0")}
        axes |= {"h0": {1: "n"}, "c0": {1: "n"}}
    if kind is Packed:
        given["lengths"], axes["lengths"] = torch.tensor([T, 3, 1]), {0: "n"}
    return module, given, axes


def exported(module, given, **options):
    """Return the model that the exporter writes, without what it says."""
    file = io.BytesIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (*given.values(),), file, input_names=[*given], verbose=False, **options
            )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load_from_string(file.getvalue())


def kinds(block):
    return [type(one).__name__ for one in block]


def assert_same(block, module, given):
    """Compare outputs and states, from these states or from zeros."""
    name = next(name for name, one in block.blocks.items() if type(one).__name__ == "LSTM")
    state = {name: (given["h0"].numpy(), given["c0"].numpy())} if "h0" in given else None
    with torch.no_grad():
        expected = module(*given.values())
    y, after = block(given["x"].numpy(), state)
    if "h0" in given:
        expected, *states = expected
        for found, wanted in zip(after[name], states, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), 0, 1e-6)
    np.testing.assert_allclose(y, expected.numpy(), 0, 1e-6)


CASES = {
    "plain": (Model, {}),
    "without embedding or bias": (Model, {"embed": False, "bias": False}),
    "layers and directions": (Model, {"num_layers": 2, "bidirectional": True}),
    "last": (Model, {"num_layers": 2, "bidirectional": True, "last": True}),
    "states": (WithStates, {"num_layers": 2, "bidirectional": True}),
    "states without embedding": (WithStates, {"embed": False}),
}


@pytest.mark.parametrize(
    "name, batch_first, is_open",
    [
        *(("plain", True, True), ("last", True, False)),
        *(("without embedding or bias", False, False), ("layers and directions", False, True)),
        *(("states", True, False), ("states without embedding", False, True)),
    ],
)
def test_through_torch_export(name, batch_first, is_open):
    """Packed sequences PyTorch cannot export so."""
    kind, options = CASES[name]
    module, given, axes = made(kind, batch_first=batch_first, **options)
    if is_open:
        auto = torch.export.Dim.AUTO
        axes = {key: dict.fromkeys(numbers, auto) for key, numbers in axes.items()}
    model = exported(module, given, dynamo=True, dynamic_shapes=axes if is_open else None)
    block = from_onnx(model, verify=True)
    assert block.batch_first == batch_first
    features = ["Embedding"] * options.get("embed", True)
    assert kinds(block) == [*features, "LSTM", *["Last"] * options.get("last", False), "Linear"]
    assert_same(block, module, given)


@pytest.mark.parametrize("name", CASES)
def test_the_exporter_before(name):
    kind, options = CASES[name]
    for opset, batch_first in ((9, False), (17, True)):
        module, given, axes = made(kind, batch_first=batch_first, **options)
        how = {"opset_version": opset, "do_constant_folding": batch_first, "dynamic_axes": axes}
        block = from_onnx(exported(module, given, dynamo=False, **how), verify=True)
        assert block.batch_first == batch_first
        assert_same(block, module, given)


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_sequences(batch_first):
    for options in ({}, {"bidirectional": True, "num_layers": 2}):
        module, given, axes = made(Packed, batch_first=batch_first, **options)
        how = {"opset_version": 12, "dynamic_axes": axes}
        block = from_onnx(exported(module, given, dynamo=False, **how), verify=True)
        lengths = given["lengths"].numpy()
        with torch.no_grad():
            expected = module(*given.values()).numpy()
        within = np.arange(T)[:, None] < lengths
        within = within.T if batch_first else within
        y = block(given["x"].numpy(), lengths=lengths)[0]
        np.testing.assert_allclose(y[within], expected[within], 0, 1e-6)
