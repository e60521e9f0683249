"""Whether the machine was quiet while it was measured: what others took, steal, load, spread."""

import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Reading", "before", "between", "complaints", "read", "spread", "warnings"]

STAT = Path("/proc/stat")
# The machine counts as busy beyond these.
OTHERS = 0.05  # of the CPU time, used by other processes
STEAL = 0.01  # of the CPU time, taken by the hypervisor
LOAD = 0.5  # processes for each CPU that want to run, before anything is measured
SPREAD = 0.10  # distance of the quartiles over the median, the median of all cells
WATCHED = 1.0  # seconds for which `before` watches


class Reading(NamedTuple):
    """Seconds since start, summed over some CPUs; `own` of this process and its ended children."""

    total: float
    busy: float
    steal: float
    own: float
    load: float | None


def read(cpus: Iterable[int], stat: str | None = None) -> Reading | None:
    """Read the clocks of these CPUs.

    Parameters
    ----------
    cpus : iterable of int
        Their numbers. A machine that does not list CPUs one by one is read as a whole.
    stat : str, optional
        A text of /proc/stat instead of the present one.

    Returns
    -------
    Reading or None
        None on a system without /proc/stat.
    """
    if stat is None:
        try:
            stat = STAT.read_text()
        except OSError:
            return None
    lines = {words[0]: words[1:] for words in map(str.split, stat.splitlines()) if words}
    wanted = [f"cpu{n}" for n in cpus]
    wanted = wanted if all(name in lines for name in wanted) else ["cpu"]
    total = busy = steal = 0
    for name in wanted:
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user and nice
        ticks = [*map(int, lines[name][:8]), *[0] * 8][:8]
        total += sum(ticks)
        busy += sum(ticks) - ticks[3] - ticks[4] - ticks[7]
        steal += ticks[7]
    second = os.sysconf("SC_CLK_TCK")
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return Reading(total / second, busy / second, steal / second, own, load())


def load() -> float | None:
    """Return the load average of the last minute, where the system has one."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def between(first: Reading | None, last: Reading | None) -> dict[str, Any]:
    """Return the shares of the CPU time of others and of steal, and the loads at both ends."""
    if first is None or last is None or last.total <= first.total:
        return {}
    total = last.total - first.total
    others = (last.busy - first.busy) - (last.own - first.own)
    return {
        "others": max(0.0, others / total),
        "steal": (last.steal - first.steal) / total,
        "load": [first.load, last.load],
    }


def before(cpus: list[int]) -> dict[str, Any]:
    """Watch these CPUs for a second without using them; `idle` says that the load is others'."""
    first = read(cpus)
    time.sleep(WATCHED)
    return {**between(first, read(cpus)), "idle": True, "cpus": os.cpu_count() or 1}


def spread(times: Iterable[list[float]]) -> list[float]:
    """Return the quartiles, over cells of median and quartiles, of the relative spread."""
    found = [(high - low) / median for median, low, high in times]
    if len(found) < 2:
        return found * 3
    return statistics.quantiles(found, n=4, method="inclusive")


def complaints(quiet: dict[str, Any]) -> list[str]:
    """Return what speaks against a quiet machine: nothing, or a phrase for each limit exceeded."""
    found = []
    if quiet.get("others", 0.0) > OTHERS:
        found.append(f"other processes used {quiet['others']:.0%} of the CPU time")
    if quiet.get("steal", 0.0) > STEAL:
        found.append(f"the hypervisor took {quiet['steal']:.1%} of the CPU time (steal)")
    loads = [x for x in quiet.get("load", []) if x is not None]
    if quiet.get("idle") and loads and loads[0] > LOAD * quiet["cpus"]:
        found.append(f"the load was {loads[0]:.1f} on {quiet['cpus']} CPUs")
    if quiet.get("spread") and quiet["spread"][1] > SPREAD:
        found.append(f"the median cell spread by {quiet['spread'][1]:.0%} of its time")
    return found


def warnings(result: dict[str, Any]) -> list[str]:
    """Return a line for each part of a result during which the machine was busy.

    Results of before there was such a look at the machine have none.
    """
    parts = {"before": result.get("before", {})}
    for run in result.get("runs", []):
        plural = "s" * (run["threads"] > 1)
        parts[f"with {run['threads']} thread{plural}"] = run.get("quiet", {})
    lines = {when: ", ".join(complaints(quiet)) for when, quiet in parts.items()}
    return [f"The machine was busy, {when}: {line}." for when, line in lines.items() if line]
