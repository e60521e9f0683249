"""Write lstm_torch.npz: results and gradients of ``torch.nn.LSTM`` in float64.

Run ``python tests/golden/make_golden.py`` with NumPy and PyTorch installed. NumPy draws every
input from `SEED`, so a new PyTorch only changes the results, in their last digits. Inputs are
multiples of 1/128: exact in float32, and small when compressed.

Keys
----
``meta``
    JSON: seed and versions of NumPy, PyTorch and Python.
``<case>/config``
    JSON: the arguments of the ``torch.nn.LSTM`` constructor.
``<case>/x``, ``h0``, ``c0`` and the parameters under their PyTorch names
    What goes in.
``<case>/y``, ``hn``, ``cn``
    What comes out.
``<case>/dy``, ``dhn``, ``dcn``
    Gradients of the loss with respect to what comes out.
``<case>/dx``, ``dh0``, ``dc0`` and ``d<parameter>`` for every parameter
    Gradients of the loss with respect to what goes in.

All shapes are PyTorch's: time first unless ``batch_first``, states (layers * directions, B, ...).
"""

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

SEED = 20240229
PATH = Path(__file__).with_name("lstm_torch.npz")

# name: T, B, I, H, further arguments of torch.nn.LSTM
CASES: dict[str, tuple[int, int, int, int, dict[str, Any]]] = {
    "plain": (5, 3, 4, 6, {}),
    "no_bias": (4, 2, 5, 3, {"bias": False}),
    "projected": (4, 3, 3, 6, {"proj_size": 4}),
    "one_step": (1, 2, 7, 4, {}),
    "bidirectional": (4, 2, 3, 4, {"bidirectional": True}),
    "two_layers": (4, 3, 5, 4, {"num_layers": 2, "bidirectional": True}),
    "three_layers": (3, 4, 2, 5, {"num_layers": 3, "batch_first": True}),
}


def run(
    T: int, B: int, config: dict[str, Any], rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Return one case: inputs, parameters, results and gradients by name."""
    lstm = torch.nn.LSTM(**config, dtype=torch.float64)

    def draw(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(np.round(64 * rng.standard_normal(shape)) / 64)

    # Weights of order 1/2 keep the gates away from both 1/2 and saturation.
    lstm.load_state_dict({name: draw(p.shape) / 2 for name, p in lstm.state_dict().items()})
    states = lstm.num_layers * (2 if lstm.bidirectional else 1)
    sequence = (B, T) if lstm.batch_first else (T, B)
    inputs = {
        "x": draw((*sequence, lstm.input_size)).requires_grad_(),
        "h0": draw((states, B, lstm.proj_size or lstm.hidden_size)).requires_grad_(),
        "c0": draw((states, B, lstm.hidden_size)).requires_grad_(),
    }
    inputs_and_parameters = {**inputs, **dict(lstm.named_parameters())}

    y, (hn, cn) = lstm(inputs["x"], (inputs["h0"], inputs["c0"]))
    outputs = {"y": y, "hn": hn, "cn": cn}
    d_outputs = {f"d{name}": draw(value.shape) for name, value in outputs.items()}
    torch.autograd.backward(tuple(outputs.values()), tuple(d_outputs.values()))

    tensors = {**inputs_and_parameters, **outputs, **d_outputs}
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    for name, tensor in inputs_and_parameters.items():
        assert tensor.grad is not None
        arrays[f"d{name}"] = tensor.grad.numpy()
    return arrays


def main() -> None:
    """Run every case and write the archive."""
    rng = np.random.default_rng(SEED)
    meta = {
        "seed": SEED,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    archive = {"meta": np.array(json.dumps(meta))}
    for case, (T, B, I, H, options) in CASES.items():
        config = {"input_size": I, "hidden_size": H, **options}
        archive[f"{case}/config"] = np.array(json.dumps(config))
        for name, array in run(T, B, config, rng).items():
            archive[f"{case}/{name}"] = array
    np.savez_compressed(PATH, allow_pickle=False, **archive)
    print(f"{PATH}: {len(archive)} arrays, {PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()
