from types import TracebackType

from lstm_fast.engine.runtime import Array

class DefaultArithmetic:
    def __enter__(self) -> None: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

def add(a: Array, b: Array) -> None: ...
