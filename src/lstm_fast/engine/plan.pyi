from typing import Any

def planned(
    jobs: int,
    chained: bool,
    bands: int,
    steps: int,
    rows: int,
    ragged: bool,
    panels: int,
    weights: int,
    step_work: float,
    total_work: float,
    by_steps: bool,
    backward: bool,
) -> tuple[dict[str, Any], list[dict[str, Any]]]: ...
