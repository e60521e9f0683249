"""Damaged files: cut off anywhere, with bytes changed; and what a reader may say of them."""

import tracemalloc

# What readers raise for a file that they cannot read.
ALLOWED = (ValueError, ImportError, FileNotFoundError)
MOST = 64 * 2**20


def truncated(data, step=64):
    """Return the data cut off after every `step` bytes."""
    return [data[:n] for n in range(0, len(data), step)]


def changed(data, rng, number, most=4):
    """Return copies of the data, each with a few random bytes, or with one bit flipped."""
    copies = []
    for n in range(number):
        copy = bytearray(data)
        if n % 2:
            copy[rng.integers(len(copy))] ^= 1 << rng.integers(8)
        else:
            for at in rng.integers(len(copy), size=rng.integers(1, most + 1)):
                copy[at] = rng.integers(256)
        copies.append(bytes(copy))
    return copies


def read_all(read, path, copies):
    """Let a reader read each copy, written to `path`; return how many it could read.

    Any error but a clear one passes on, as does a peak of memory beyond the file's size and 64 MiB.
    """
    count = 0
    tracemalloc.start()
    try:
        for copy in copies:
            path.write_bytes(copy)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            try:
                read(path)
                count += 1
            except ALLOWED as error:
                assert str(error), f"an error without words: {error!r}"
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak <= len(copy) + MOST, f"{peak} bytes for a file of {len(copy)}"
    finally:
        tracemalloc.stop()
    return count
