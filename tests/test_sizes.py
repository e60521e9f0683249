"""Sizes that no memory could hold are refused before anything is built."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_isa

# What is refused.
HUGE = {
    "layers": """
        LSTM(3, 4, num_layers=10**9)
        LSTM(3, 4, num_layers=np.int64(10**9))
        LSTM(3, 1, num_layers=10**8, bias=False)
        LSTM(3, 4, num_layers=10**7, proj_size=2, peephole=True, layer_norm=True)
        LSTM(3, 4, num_layers=10**6, bidirectional=True)
        LSTM(3, 4, num_layers=2**62)
        LSTM(3, 4, num_layers=10**30)
    """,
    "units": """
        LSTM(3, 10**7)
        LSTM(10**9, 10**6)
        LSTM(10**12, 1)
        LSTM(3, (10**7,) * 3)
        LSTM(3, [10**7, 4, 4], num_layers=3)
    """,
    "sequences": """
        LSTM(3, 4).stream(batch_size=10**12)
        LSTM(3, 4, num_layers=2).stream(batch_size=2**62)
        LSTM(3, (4, 5)).stream(10**12)
        LSTM(3, 4)(np.broadcast_to(np.float32(0), (10**12, 1, 3)))
        LSTM(3, 4).forward(np.broadcast_to(np.float32(0), (10**6, 10**6, 3)))
        LSTM(3, 4).stream()(np.broadcast_to(np.float32(0), (10**12, 1, 3)))
        LSTM(3, 4)((np.broadcast_to(np.float32(0), (10**12, 3)), [0, 10**12]))
    """,
}
CODE = """
import resource, sys
import numpy as np
from lstm_fast import LSTM

LSTM(3, 4)(np.zeros((1, 1, 3), np.float32))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

print("ready", flush=True)
for what in sys.argv[1].strip().splitlines():
    print(what, file=sys.stderr, flush=True)
    before = peak()
    try:
        eval(what.strip())
    except (ValueError, MemoryError) as error:
        assert str(error), "without a message"
    else:
        raise AssertionError("was not refused")
    assert peak() - before < 200 << 10, f"took {(peak() - before) >> 10} MiB"
"""
MOST = 1 << 30  # bytes: what takes more is ended, since it may take all


def resident(pid: int) -> int:
    """Return bytes of memory that a process has, 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to watch memory")
@pytest.mark.parametrize("group", HUGE)
def test_it_is_refused(group, tmp_path):
    """At once, with a ValueError or a MemoryError, and with less than 200 MiB."""
    log = tmp_path / "log"  # what was tried last, and what became of it
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-c", CODE, HUGE[group]], stdout=subprocess.PIPE, stderr=file
        ) as process,
    ):
        try:
            assert process.stdout.readline() == b"ready\n", log.read_text()
            end = time.monotonic() + 10
            while process.poll() is None:
                assert resident(process.pid) < MOST, f"takes a GiB and more: {log.read_text()}"
                assert time.monotonic() < end, f"goes on and on: {log.read_text()}"
                time.sleep(0.005)
            assert process.returncode == 0, log.read_text()
        finally:
            process.kill()
