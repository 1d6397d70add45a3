"""Numbers as text that names them."""

from collections.abc import Iterable
from typing import Any


def exact(number: float) -> str:
    """The number as people write it, with as many digits as it takes to read back the same: `0.1`, `1e-05`,
    `0.1234567`. Different numbers have different texts."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def digits_apart(values: Iterable[Any], least: int) -> int:
    """The fewest significant digits, at least `least`, at which different floats among `values` have different texts
    (`f"{value:.{digits}g}"`)."""
    numbers = {value for value in values if isinstance(value, float)}
    return next(
        (n for n in range(least, 17) if len({f"{number:.{n}g}" for number in numbers}) == len(numbers)),
        17,  # enough for any double
    )
