"""Tables and plots from the JSON of `python -m bench`: ``python -m bench.report FILE``."""

import argparse
import json
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from typing import Any

from . import quiet
from .machine import peaks_line

__all__ = ["write_report"]

OURS = "lstm_fast"
NAMES = {
    **{"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "jax": "JAX"},
    **{"tensorflow": "Keras", "lstm_fast, padded": "lstm_fast, padded"},
}
README = Path(__file__).parents[1] / "README.md"
NOISY = 0.25  # of the median: a cell whose quartiles are farther apart is marked
MARK = "~"
LEGEND = f"{MARK} The quartiles are more than {NOISY:.0%} of the median apart: not to be relied on."
MARKS = "<!-- benchmark: begin -->\n", "<!-- benchmark: end -->\n"
EXPLANATION = """\
Median microseconds of a call (and half the distance of its quartiles, in percent). The ratio is the
time of the fastest peer divided by that of lstm_fast. The share is that of the roofline; for a
ragged batch it is the time of the padded one, times the share of valid steps, divided by ours.
"""
# What the README shows: section, T, B, I, H.
SHOWN = [
    *(("inference", 1, 1, 16, 32), ("inference", 1, 1, 512, 512), ("inference", 100, 1, 64, 64)),
    *(("inference", 100, 8, 64, 64), ("inference", 50, 32, 16, 32)),
    *(("inference", 50, 16, 512, 512), ("inference", 25, 64, 1024, 1024)),
    *(("training", 1, 1, 16, 32), ("training", 100, 1, 64, 64), ("training", 100, 8, 64, 64)),
    *(("training", 50, 32, 256, 256), ("training in double precision", 100, 8, 64, 64)),
    *(("streaming", 1, 1, 16, 32), ("ragged batches", 200, 32, 256, 256)),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--check", action="store_true", help="fail if README.md has another table")
    options = parser.parse_args()
    text = README.read_text()
    begin, rest = text.split(MARKS[0])
    old, end = rest.split(MARKS[1])
    new = readme_table(json.loads(options.json.read_text()))
    if options.check and old != new:
        raise SystemExit("README.md has another table: run python -m bench.report --readme")
    if options.readme:
        README.write_text(begin + MARKS[0] + new + MARKS[1] + end)
    if not options.check:
        print(write_report(options.json))


def peers(entry: dict[str, Any]) -> dict[str, float]:
    """Return the medians of the others."""
    return {name: t[0] for name, t in entry["times"].items() if not name.startswith(OURS)}


def share(entry: dict[str, Any]) -> float | None:
    """Return the share of the least possible time; see EXPLANATION for ragged batches."""
    ours = entry["times"][OURS][0]
    if "valid" in entry:
        return float(entry["times"]["lstm_fast, padded"][0] * entry["valid"] / ours)
    return entry["least"] / ours if entry["least"] else None


def over(entries: list[dict[str, Any]], peer: str | None = None) -> str:
    """Return the geometric mean and the least of the ratios to a peer, or to the fastest."""
    if peer is None:
        ratios = [ratio(e) for e in entries]
    else:
        ratios = [e["times"][peer][0] / e["times"][OURS][0] for e in entries if peer in e["times"]]
    return f"geometric mean {geometric_mean(ratios):.2f}, least {min(ratios):.2f}"


def threads_compared(result: dict[str, Any]) -> list[str]:
    """Return a table of the speed with the most threads, as a multiple of that with the fewest."""
    order = sorted(range(len(result["runs"])), key=lambda n: result["runs"][n]["threads"])
    few, many = order[0], order[-1]
    lines = [
        f"## {result['runs'][many]['threads']} threads against {result['runs'][few]['threads']}\n",
        "| | geometric mean | least | at T, B, I, H |",
        "|---|--:|--:|---|",
    ]
    for section, action, runs in sections(result):
        speeds = {
            shape(one): one["times"][OURS][0] / two["times"][OURS][0]
            for one, two in zip(runs[few], runs[many], strict=True)
        }
        least = min(speeds, key=lambda name: speeds[name])
        mean = geometric_mean(list(speeds.values()))
        lines.append(f"| {title(section, action)} | {mean:.2f} | {speeds[least]:.2f} | {least} |")
    return [*lines, ""]


def ratio(entry: dict[str, Any]) -> float:
    """Return the time of the fastest peer divided by ours."""
    return float(min(peers(entry).values()) / entry["times"][OURS][0])


def sections(result: dict[str, Any]) -> Iterator[tuple[str, str, list[list[dict[str, Any]]]]]:
    """Yield section, action, and the same entries once per run."""
    keys = dict.fromkeys((e["section"], e["action"]) for e in result["runs"][0]["entries"])
    for section, action in keys:
        yield (
            section,
            action,
            [
                [e for e in run["entries"] if (e["section"], e["action"]) == (section, action)]
                for run in result["runs"]
            ],
        )


def geometric_mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def caption(result: dict[str, Any]) -> str:
    versions = result["runs"][0]["versions"]
    names = [f"{NAMES.get(name, name)} {version}" for name, version in versions.items()]
    return f"{result['machine']}; {result['isa']}; {', '.join(names)}; {result['date']}"


def title(section: str, action: str) -> str:
    return section if action in section or action == "inference" else f"{section}, {action}"


def shape(entry: dict[str, Any]) -> str:
    stack = f", {entry['layers']} layers" if entry["layers"] > 1 else ""
    stack += ", bidirectional" if entry["bidirectional"] else ""
    return f"{entry['T']}, {entry['B']}, {entry['I']}, {entry['H']}{stack}"


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"


def cell(times: list[float]) -> str:
    """Return the median and half the distance of the quartiles, marked if that is large."""
    median, low, high = times
    mark = MARK if high - low > NOISY * median else ""
    return f"{mark}{microseconds(median)} ±{50 * (high - low) / median:.0f}"


def head_of(result: dict[str, Any]) -> list[str]:
    """Return the title, warnings if the machine was busy, and what the machine is."""
    busy = [f"> **Warning.** {line}\n" for line in quiet.warnings(result)]
    peaks = [peaks_line(run["limits"], run["threads"]) for run in result["runs"]]
    return ["# Benchmark\n", *busy, f"{caption(result)}\n", *(f"{p}\n" for p in peaks), EXPLANATION]


def write_report(path: Path) -> str:
    """Write the Markdown table and the two plots beside the JSON; return the summary."""
    result = json.loads(path.read_text())
    lines, summary = head_of(result), []
    for section, action, runs in sections(result):
        lines.append(f"## {title(section, action)}\n")
        for run, entries in zip(result["runs"], runs, strict=True):
            names = list(dict.fromkeys(name for e in entries for name in e["times"]))
            threads = f"{run['threads']} thread" + "s" * (run["threads"] > 1)
            head = ["T, B, I, H", *(NAMES.get(name, name) for name in names), "ratio", "share"]
            lines += [
                f"{threads}:\n",
                f"| {' | '.join(head)} |",
                "|---" + "|--:" * (len(head) - 1) + "|",
            ]
            for e in entries:
                cells = [cell(e["times"][name]) if name in e["times"] else "" for name in names]
                part = share(e)
                cells += [f"{ratio(e):.2f}", "" if part is None else f"{part:.2f}"]
                lines.append(f"| {shape(e)} | {' | '.join(cells)} |")
            if any(cell(t).startswith(MARK) for e in entries for t in e["times"].values()):
                lines.append(f"\n{LEGEND}")
            text = over(entries)
            if "torch" in names:
                text += f"; over PyTorch: {over(entries, 'torch')}"
            lines.append(f"\n{text}\n")
            summary.append(f"{title(section, action):40} {threads:10} {text}")
            summary += [
                f"    behind at {shape(e)}: {ratio(e):.2f}" for e in entries if ratio(e) < 1
            ]
    if len(result["runs"]) > 1:
        lines += threads_compared(result)
    seconds = result["import_seconds"]
    taken = "not measured" if seconds is None else f"{1e3 * seconds:.1f} ms beyond NumPy's"
    lines.append(f"## Import and memory\n\nimport: {taken}\n")
    case = "training step, T = 1000, B = 32, I = H = 256"
    for name, size in result["memory"].items():
        lines.append(f"{case}, {NAMES.get(name, name)}: {size / 2**20:.0f} MiB\n")
    path.with_suffix(".md").write_text("\n".join(lines))
    plot(result, path)
    machine = [caption(result), *(peaks_line(r["limits"], r["threads"]) for r in result["runs"])]
    busy = [f"WARNING: {line}" for line in quiet.warnings(result)]
    return "\n".join([*machine, *summary, *busy])


def readme_table(result: dict[str, Any]) -> str:
    """Return some rows as a table of Markdown."""
    lines = [
        f"{caption(result)}:\n",
        "| | T, B, I, H | 1 thread | best peer | | 2 threads | best peer | |",
    ]
    lines.append("|---|---|--:|---|--:|--:|---|--:|")
    for key in SHOWN:
        cells = []
        for run in result["runs"]:
            entry = next(e for e in run["entries"] if (e["section"], *list(e.values())[1:5]) == key)
            times = peers(entry)
            best = min(times, key=lambda name: times[name])
            cells += [
                microseconds(entry["times"][OURS][0]),
                f"{NAMES[best]} {microseconds(times[best])}",
                f"{ratio(entry):.2f}",
            ]
        lines.append(f"| {key[0]} | {', '.join(map(str, key[1:]))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the ratio, and the share of the roofline, at every shape."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours, markers = ("#0072b2", "#d55e00"), ("o", "s")  # safe for the colour-blind
    for kind in ("ratio", "roofline"):
        shown = [s for s in sections(result) if kind == "ratio" or s[2][0][0]["least"]]
        shown = [s for s in shown if s[0] in ("inference", "training")] or shown[:2]
        figure, axes = pyplot.subplots(
            1, len(shown), figsize=(5 + 4 * len(shown), 6.5), sharey=True, squeeze=False
        )
        for axis, (section, _, runs) in zip(axes[0], shown, strict=True):
            labels = [shape(e) for e in runs[0]]
            for run, entries, colour, marker in zip(
                result["runs"], runs, colours, markers, strict=False
            ):
                if kind == "ratio":
                    values = [ratio(e) for e in entries]
                else:
                    values = [e["least"] / e["times"][OURS][0] for e in entries]
                threads = f"{run['threads']} thread" + "s" * (run["threads"] > 1)
                axis.plot(
                    values, range(len(labels)), marker, color=colour, label=threads, alpha=0.8
                )
            axis.axvline(1, color="black", linewidth=1)
            axis.set_yticks(range(len(labels)), labels)
            axis.grid(axis="both", alpha=0.3)
            axis.set_title(f"{section}, float32")
            if kind == "ratio":
                axis.set_xscale("log")
                ticks = [t for t in (0.5, 1, 1.5, 2, 3, 5, 10, 20) if t <= 2 * axis.get_xlim()[1]]
                axis.set_xticks(ticks, [str(t) for t in ticks])
                axis.minorticks_off()
                axis.set_xlabel("time of the fastest peer / time of lstm_fast")
            else:
                axis.set_xlim(0, 1.1)
                axis.set_xlabel("least possible time / time of lstm_fast")
        axes[0][0].invert_yaxis()
        axes[0][0].set_ylabel("T, B, I, H")
        axes[0][0].legend(loc="lower right")
        figure.suptitle(caption(result), fontsize=8, wrap=True)
        figure.tight_layout()
        figure.savefig(path.with_name(f"{path.stem}-{kind}.png"), dpi=110)
        pyplot.close(figure)


if __name__ == "__main__":
    main()
