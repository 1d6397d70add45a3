"""The least and the greatest value of a draw."""

from typing import Annotated

from pydantic import AfterValidator


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("must be two numbers, 0 < least <= greatest")
    return value


Bounds = Annotated[tuple[float, float], AfterValidator(_ordered)]


def share_of(whole: str) -> AfterValidator:
    """Return the validator of bounds that are shares of `whole`, a phrase for the message."""

    def at_most_one(value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError(f"is a share of {whole}, at most 1")
        return value

    return AfterValidator(at_most_one)
