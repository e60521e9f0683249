"""Print the bytes by which a training step raises the peak memory of a process."""

import resource
import sys

from .contenders import CONTENDERS
from .problems import Arguments, Problem


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    contender = CONTENDERS[sys.argv[1]]
    small = Arguments(Problem("memory", 2, 2, 256, 256, "training"))
    call = contender(small, 1)
    assert call is not None
    call()
    # The exact results are not wanted here: they would raise the peak themselves.
    large = Arguments(Problem("memory", 1000, 32, 256, 256, "training"), exact=False)
    before = peak()
    call = contender(large, 1)
    assert call is not None
    call()
    print(peak() - before)


if __name__ == "__main__":
    main()
