"""Sizes of images in pixels and of grids in cells: one number for a square, two for a rectangle."""

from typing import Annotated, Any

from pydantic import BeforeValidator

Extent = int | tuple[int, int]
"""Side of a square, or (height, width) of a rectangle; of a grid (rows, columns)."""


def height_width(extent: Extent) -> tuple[int, int]:
    """Return both sides: height and width, or rows and columns."""
    return (extent, extent) if isinstance(extent, int) else (extent[0], extent[1])


def extent_of(height: int, width: int) -> Extent:
    """Return the extent of these sides: one number if they are equal."""
    return height if height == width else (height, width)


def area(extent: Extent) -> int:
    """Return the number of pixels or cells."""
    height, width = height_width(extent)
    return height * width


def as_yaml(extent: Extent) -> str:
    """Return an extent as config files have it: `224` or `[320, 192]`."""
    return str(extent if isinstance(extent, int) else list(extent))


def as_text(extent: Extent) -> str:
    """Return an extent as `320x192`, height first, for messages and tables."""
    height, width = height_width(extent)
    return f"{height}x{width}"


def at_least(least: int, most: int | None = None) -> BeforeValidator:
    """Return the validator of a size in pixels whose sides are `least` to `most`. [N, N] becomes N, so that a square
    has one spelling and one hash."""
    bounds = f"at least {least}" if most is None else f"between {least} and {most}"

    def validate(value: Any) -> Any:
        sides = value if isinstance(value, list | tuple) else [value]
        whole = [isinstance(one, int | float) and not isinstance(one, bool) and one % 1 == 0 for one in sides]
        if len(sides) != (2 if isinstance(value, list | tuple) else 1) or not all(whole):
            raise ValueError(
                f"{value!r} is not valid; must be one whole number of pixels for a square, or [height, width]"
            )
        found = [int(one) for one in sides]
        if wrong := [side for side in found if side < least or (most is not None and side > most)]:
            raise ValueError(f"a side of {wrong[0]} pixels is not valid; must be {bounds}")
        return extent_of(found[0], found[-1])

    return BeforeValidator(validate)


PixelExtent = Annotated[Extent, at_least(8)]
