from contextlib import AbstractContextManager
from typing import Any

gemm: dict[int, object]

def single_threaded() -> AbstractContextManager[None]: ...
def info() -> list[dict[str, Any]]: ...
