"""Where benchmarks with tables of their own begin and end: what they run on, and a JSON file."""

import json
from datetime import date
from pathlib import Path
from typing import Any

from . import quiet
from .machine import describe, machine_line, usable_cpus
from .measure import versions

__all__ = ["begin", "write"]


def begin() -> dict[str, Any]:
    """Print and return the machine and the versions; warn if the machine is busy."""
    cpus, cpu = usable_cpus(), describe()
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine_line(cpu),
        "cpu": cpu,
        "versions": versions(),
        "before": quiet.before(cpus),
    }
    names = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{found['machine']}; {cpu['isa']}; {names}")
    for warning in quiet.warnings({**found, "threads": len(cpus)}):
        print(f"WARNING: {warning}")
    return found


def write(found: dict[str, Any], path: Path | None) -> None:
    """Write what was found to a JSON file, if there is to be one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"written: {path}")
