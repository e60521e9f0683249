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


def read_all(read, path, copies, measured=8):
    """Let a reader read each copy, written to `path`; return how many it could read.

    Any error but a clear one passes on. Of every eighth copy, the peak of memory must not be beyond
    the file's size and 64 MiB.
    """
    count = 0
    for n, copy in enumerate(copies):
        path.write_bytes(copy)
        count += _read(read, path, len(copy) if n % measured == 0 else None)
    return count


def _read(read, path, size):
    if size is not None:
        tracemalloc.start()
    try:
        read(path)
        return True
    except ALLOWED as error:
        assert str(error), f"an error without words: {error!r}"
        return False
    finally:
        if size is not None:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak <= size + MOST, f"{peak} bytes for a file of {size}"
