"""What the measurements ran on: the CPU, how much of it, and its peaks."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lstm_fast

__all__ = ["describe", "identify", "machine_line", "peaks_line", "usable_cpus"]

CPUINFO = Path("/proc/cpuinfo")
FIELDS = {  # of /proc/cpuinfo on x86, then on ARM
    "name": ("model name",),
    "vendor": ("vendor_id", "CPU implementer"),
    "family": ("cpu family", "CPU architecture"),
    "model": ("model", "CPU part"),
    "stepping": ("stepping", "CPU revision"),
}


def usable_cpus() -> list[int]:
    """Return the numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def identify(cpuinfo: str) -> dict[str, str]:
    """Return name, vendor, family, model and stepping, those that a text of /proc/cpuinfo has."""
    first = cpuinfo.strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    found = {}
    for field, keys in FIELDS.items():
        value = next((values[key] for key in keys if values.get(key)), None)
        if value is not None:
            found[field] = value
    return found


def describe() -> dict[str, Any]:
    """Return what is known of this machine: `identify`, and the number of CPUs and their ISA."""
    try:
        cpu = identify(CPUINFO.read_text())
    except OSError:  # not Linux
        cpu = {}
    return {
        "name": platform.processor() or platform.machine(),
        **cpu,
        "cpus": len(usable_cpus()),
        "isa": lstm_fast.show_config()["isas"]["active"],
        "system": platform.system(),
        "python": platform.python_version(),
    }


def machine_line(cpu: dict[str, Any]) -> str:
    """Return `describe` in a line, but for the instruction set."""
    parts = [cpu["vendor"]] if "vendor" in cpu else []
    parts += [f"{key} {cpu[key]}" for key in ("family", "model", "stepping") if key in cpu]
    named = f"{cpu['name']} ({' '.join(parts)})" if parts else cpu["name"]
    cores = f"{cpu['cpus']} core" + "s" * (cpu["cpus"] > 1)
    return f"{named}, {cores}, {cpu['system']}, Python {cpu['python']}"


def peaks_line(
    limits: dict[str, Any], threads: int, kinds: Sequence[str] = ("float32", "float64")
) -> str:
    """Return what `roofline.probe` found with so many threads, in a line."""
    each = [f"{limits[kind] / threads / 1e9:.0f} GFLOP/s {kind}" for kind in kinds]
    rate = limits["levels"]["memory"]["rate"] / 1e9
    plural = "s" * (threads > 1)
    return f"peak with {threads} thread{plural}: {', '.join(each)} a core; memory {rate:.0f} GB/s"
