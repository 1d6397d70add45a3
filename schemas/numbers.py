"""Conversion of numbers and durations to text."""

from collections.abc import Iterable
from typing import Any


def exact(number: float) -> str:
    """Return a number in its usual form, with as many digits as are needed to read back the same value: `0.1`, `1e-05`,
    `0.1234567`. Different numbers have different texts."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def digits_apart(values: Iterable[Any], least: int) -> int:
    """Return the smallest number of significant digits, at least `least`, for which different floats among `values`
    have different texts (`f"{value:.{digits}g}"`)."""
    numbers = {value for value in values if isinstance(value, float)}
    return next(
        (n for n in range(least, 17) if len({f"{number:.{n}g}" for number in numbers}) == len(numbers)),
        17,  # enough for any double
    )


def quantity(value: float | None, unit: str = "") -> str:
    """Return 1,234,567 as `1.23 M`, with a unit after the prefix; a dash if there is no value."""
    if value is None:
        return "–"
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".strip()


def duration(seconds: float) -> str:
    """Return a duration as `2.4 s`, `4.4 min` or `13.0 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in singular or plural: `1 epoch`, `1,200 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
