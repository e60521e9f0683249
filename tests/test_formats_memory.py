"""What reading a file takes of memory: the file, the model, and little else."""

from pathlib import Path

import numpy as np
import pytest
from support.processes import run_python

import lstm_fast as lf
from lstm_fast import LSTM, nn

pytestmark = [
    pytest.mark.no_isa,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="memory is read as Linux has it"
    ),
]

I, H = 512, 1848  # 64 MiB
READ = """if True:
    from pathlib import Path
    import lstm_fast as lf
    {imports}
    def most():  # bytes, of this process alone
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    before = most()
    model = lf.{reader}({path!r})
    print(most() - before)
    """


def peak(reader, path, imports=""):
    return int(run_python(READ.format(reader=reader, path=str(path), imports=imports)))


def assert_within(times, reader, path, imports=""):
    """The peak is at most so many sizes of the file, and 32 MiB."""
    size = path.stat().st_size
    assert size > 2**26
    assert peak(reader, path, imports) < times * size + 2**25


def write_torch(path, block):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.save(lf.to_torch(block), path)


def write_safetensors(path, block):
    module = pytest.importorskip("safetensors.numpy", reason="no safetensors")
    module.save_file({f"lstm.{name}": value for name, value in block.state_dict().items()}, path)


def write_keras(path, block):
    pytest.importorskip("h5py", reason="no h5py")
    from support.keras_files import lstm_entry, named, sequential, write_keras, write_named

    config = sequential(lstm_entry("lstm", H))
    if path.suffix == ".keras":
        write_keras(path, config, {"layers/lstm/cell": lf.to_keras(block)})
    else:
        write_named(path, config, {"lstm": named("lstm", lf.to_keras(block))})


def write_onnx(path, block):
    pytest.importorskip("onnx", reason="no onnx")
    lf.to_onnx(path, block)


def write_own(path, block):
    pytest.importorskip("safetensors", reason="no safetensors")
    block.save(path)


@pytest.mark.parametrize(
    "write, name, reader, imports, times",
    [
        (write_own, "a.safetensors", "load", "import safetensors.numpy", 2),
        (write_torch, "a.pt", "from_torch", "", 2),
        (write_safetensors, "a.safetensors", "from_safetensors", "", 2),
        (write_onnx, "a.onnx", "from_onnx", "import onnx", 2),
        (write_keras, "a.h5", "from_keras", "import h5py", 2),
        (write_keras, "a.keras", "from_keras", "import h5py", 3),  # the zip is unpacked before
    ],
)
def test_an_lstm(tmp_path, write, name, reader, imports, times):
    write(tmp_path / name, LSTM(I, H, seed=0))
    assert_within(times, reader, tmp_path / name, imports)


def test_a_model(tmp_path):
    """Its largest block moves into the memory of the whole: that is one copy more."""
    model = nn.Sequential(lstm=LSTM(I, H, seed=0), head=nn.Linear(H, 3, seed=0))
    write_torch(tmp_path / "a.pt", model)
    assert_within(3, "from_torch", tmp_path / "a.pt")
    write_own(tmp_path / "a.safetensors", model)
    assert_within(2, "load", tmp_path / "a.safetensors", "import safetensors.numpy")


@pytest.mark.parametrize("order", ["ifgo", "iofg", "fgoi"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8"])
def test_rows_in_any_order_and_of_any_dtype(rng, order, dtype):
    from lstm_fast.formats import cells

    values = LSTM(3, 4, seed=0, dtype=np.float64).state_dict()
    stored = {}
    for name, value in values.items():
        blocks = dict(zip("ifgo", np.split(value, 4), strict=True))
        key = name.removesuffix("_l0")
        stored[key] = np.concatenate([blocks[gate] for gate in order]).astype(dtype)
    stored["weight_ih"] = np.asfortranarray(stored["weight_ih"])
    made = cells.lstm("file", "lstm", [[cells.cell("file", "lstm", order, **stored)]])
    assert made.dtype == (np.float64 if dtype[1:] == "f8" else np.float32)
    for name, value in values.items():
        np.testing.assert_array_equal(made.state_dict()[name], value.astype(dtype[1:]))
