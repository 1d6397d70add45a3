"""Conversion of numbers to unambiguous text."""

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
