"""Common output of all benchmarks: figures with their targets, written as JSON and printed as lines.

A script asks `add_options` for its flags, times with `timing.alternately`, and ends with `report`, which prints the
figures and writes `<out>/<script>.json`:

    {"script", "mode": "full | quick | tiny", "asked": {...}, "environment": {...}, "seconds",
     "figures": [{"name", "measured", "unit", "target", "direction", "ok", "spread", "n", "note"}, ...],
     "details": {...}}

`benchmarks/all.py` runs the scripts and gathers these files into one table. Only the standard library is imported here,
so that a script can run wherever the engine does.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

OUT = Path(__file__).parent / "out"
_BEGUN = time.perf_counter()

Mode = Literal["full", "quick", "tiny"]


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    """Description of the measurement; unique within a script."""
    measured: float
    """Median of a ratio or a time over the rounds, or a count."""
    unit: str = ""
    """s, ms, images/s, GiB, TFLOP/s, …; empty for a ratio."""
    target: float | None = None
    """Target of `measured`; None if there is no target."""
    direction: Literal["at_most", "at_least"] | None = None
    """Side of the target that meets it; given exactly when the target is."""
    spread: tuple[float, float] | None = None
    """Lowest and highest over the rounds."""
    n: int = 1
    """Timed rounds behind it."""
    note: str = ""
    """Conditions of the measurement: batch, size, precision, what is estimated."""

    def __post_init__(self) -> None:
        if (self.target is None) != (self.direction is None):
            raise ValueError(f"{self.name}: a target needs a direction, and a direction a target")

    @property
    def ok(self) -> bool | None:
        """True if the target is met; None without a target."""
        if self.target is None:
            return None
        return self.measured <= self.target if self.direction == "at_most" else self.measured >= self.target

    def as_json(self) -> dict[str, Any]:
        """Return the fields and `ok`."""
        return {**asdict(self), "ok": self.ok}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Figure":
        """Return the figure that `as_json` wrote."""
        spread = found["spread"]
        rest = {name: value for name, value in found.items() if name not in ("ok", "spread")}
        return cls(**rest, spread=None if spread is None else (spread[0], spread[1]))


def ratio(name: str, over: Sequence[float], under: Sequence[float], scale: float = 1.0, **further: Any) -> Figure:
    """The median over rounds of scale · over / under, round by round, so that a slow minute falls on both."""
    values = [scale * a / b for a, b in zip(over, under, strict=True)]
    return median(name, values, **further)


def median(name: str, values: Sequence[float], **further: Any) -> Figure:
    """The median of the rounds' values, with their spread."""
    return Figure(name, statistics.median(values), spread=(min(values), max(values)), n=len(values), **further)


def add_options(parser: argparse.ArgumentParser) -> None:
    """--quick, --tiny and --out."""
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--quick", dest="mode", action="store_const", const="quick", help="as `make bench` runs it")
    modes.add_argument("--tiny", dest="mode", action="store_const", const="tiny", help="seconds: shows that it runs")
    parser.set_defaults(mode="full")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the JSON file (default benchmarks/out)")


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """--arch, --size, --batch and --rounds, which `sized` fills in."""
    parser.add_argument("--arch")
    parser.add_argument("--size", type=int, help="side length in pixels")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, help="timed rounds after one warm-up")


def sized(asked: argparse.Namespace, modes: Mapping[str, tuple[int, str, int, int]]) -> argparse.Namespace:
    """With the mode's (rounds, arch, size, batch) wherever none was given."""
    for name, usual in zip(("rounds", "arch", "size", "batch"), modes[asked.mode], strict=True):
        if getattr(asked, name) is None:
            setattr(asked, name, usual)
    return asked


def report(
    script: str,
    asked: argparse.Namespace,
    environment: Mapping[str, Any],
    figures: Sequence[Figure],
    details: Mapping[str, Any],
) -> Path:
    """Prints the figures and writes the file. `script` is the script's name without .py; `environment` is
    cnnjepa.training.environment's; `details` is whatever else a later reader may want (times of every round)."""
    names = [figure.name for figure in figures]
    if len(set(names)) != len(names):
        raise ValueError(f"two figures share a name: {sorted({n for n in names if names.count(n) > 1})}")
    print()
    for line in lines(figures):
        print(line)
    asked.out.mkdir(parents=True, exist_ok=True)
    path: Path = asked.out / f"{script}.json"
    told = {name: str(value) if isinstance(value, Path) else value for name, value in vars(asked).items()}
    found = {
        "script": script,
        "mode": asked.mode,
        "asked": told,
        "environment": dict(environment),
        "seconds": round(time.perf_counter() - _BEGUN, 1),
        "figures": [figure.as_json() for figure in figures],
        "details": dict(details),
    }
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nwrote {path}")
    return path


def lines(figures: Sequence[Figure]) -> list[str]:
    """A line a figure: name, measured, range, target, verdict, note."""
    rows = [("", "measured", "range", "n", "target", "", "")]
    rows += [(f.name, *cells(f), f.note) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    made = []
    for row in rows:
        padded = [cell.ljust(width) if not place else cell.rjust(width) for place, (cell, width) in
                  enumerate(zip(row, widths, strict=False))]  # fmt: skip
        made.append("  ".join([*padded, row[6]]).rstrip())
    return made


def cells(figure: Figure) -> tuple[str, str, str, str, str]:
    """Measured, range, n, target and verdict as text."""
    spread = f"{number(figure.spread[0])} to {number(figure.spread[1])}" if figure.spread else ""
    sign = {"at_most": "≤", "at_least": "≥", None: ""}[figure.direction]
    target = f"{sign} {number(figure.target)}" if figure.target is not None else ""
    verdict = {True: "met", False: "MISSED", None: ""}[figure.ok]
    return f"{number(figure.measured)} {figure.unit}".rstrip(), spread, str(figure.n), target, verdict


def number(value: float) -> str:
    """Three digits, thousands grouped."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"
