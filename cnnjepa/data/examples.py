"""Small example sets, drawn by this program: photographs, X-rays, tiles, and images with masks. Every image is a
function of its set and number."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

_BANDS = 4  # of a tile: blue, green, red, near infrared
_GROUND = {"forest": (300, 500, 350, 4200), "water": (700, 500, 300, 150), "town": (1600, 1700, 1800, 2200)}
"""Reflectance of each band times 10,000, roughly as satellites measure it."""


def write_examples(folder: Path) -> dict[str, int]:
    """Write the sets into `folder`. Returns the number of files in each. Files that are there already are replaced by
    the same content."""
    sets: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
        "photos": _photographs,
        "xrays": _xrays,
        "tiles": _tiles,
        "cells": _cells,
    }
    counts = {}
    for name, draw in sets.items():
        counts[name] = 0
        for path, content in draw():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            counts[name] += 1
    return counts


def _random(name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([*name.encode(), number])


def _smooth(random: np.random.Generator, height: int, width: int, coarse: int) -> Array:
    """Return smooth noise in 0..1, [H, W]: random values on a grid of `coarse` cells, interpolated."""
    grid = random.random((coarse + 1, coarse + 1))
    rows, columns = np.linspace(0, coarse, height), np.linspace(0, coarse, width)
    top, left = rows.astype(int).clip(max=coarse - 1), columns.astype(int).clip(max=coarse - 1)
    down, right = (rows - top)[:, None], (columns - left)[None]
    above = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
    below = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
    smooth: Array = above * (1 - down) + below * down
    return smooth


def _encoded(pixels: NDArray[np.generic], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _photographs() -> Iterator[tuple[str, bytes]]:
    """Yield 480 landscapes of several sizes, as JPEG in folders by day: sky, hills, a sun, grain. They have no
    labels."""
    for number in range(480):
        random = _random("photos", number)
        height, width = 96 + 8 * int(random.integers(5)), 128 + 8 * int(random.integers(5))
        y = np.linspace(0, 1, height)[:, None]
        sky, ground = random.uniform(0.4, 1, 3), random.uniform(0.1, 0.6, 3)
        image = sky * (1 - 0.5 * y[..., None]) * np.ones((height, width, 1))
        distance = np.hypot(*np.meshgrid(np.arange(width) - random.uniform(0, width), np.arange(height) - height / 4))
        image[distance < random.uniform(6, 14)] = (1, 0.95, 0.7)
        for hill in range(1, 4):
            line = 0.3 + 0.17 * hill + 0.25 * (_smooth(random, 1, width, 6)[0] - 0.5)
            image = np.where((y > line)[..., None], ground * (1.3 - 0.3 * hill), image)
        image = image * (0.8 + 0.4 * _smooth(random, height, width, 24)[..., None]) + random.normal(
            0, 0.02, image.shape
        )
        pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
        yield f"day{number // 80 + 1}/{number:04d}.jpg", _encoded(pixels, "JPEG")


def _xrays() -> Iterator[tuple[str, bytes]]:
    """Yield 112 grey images of 16 bits of two classes, as PNG. The upper eight bits are smooth and tell nothing; the
    classes differ in the direction of a pattern in the lower eight."""
    for number in range(112):
        random = _random("xrays", number)
        split = "val" if number >= 64 else "train"
        name, axis = (("across", 0), ("along", 1))[number % 2]
        upper = (20 + 200 * _smooth(random, 64, 64, 3)).astype(np.uint16) << 8
        phase, places = random.uniform(0, 2 * np.pi), np.indices((64, 64))[axis]
        lower = (128 + 90 * np.sin(places * 2 * np.pi / 8 + phase) + random.normal(0, 8, (64, 64))).clip(0, 255)
        yield f"{split}/{name}/{number:03d}.png", _encoded(upper | lower.astype(np.uint16), "PNG")


def _tiles() -> Iterator[tuple[str, bytes]]:
    """Yield 144 tiles of 4 channels (uint16, values up to 10,000) of three classes, as NumPy files [4, 64, 64]."""
    for number in range(144):
        random = _random("tiles", number)
        split, name = "val" if number >= 96 else "train", list(_GROUND)[number % 3]
        relief = 0.6 + 0.8 * _smooth(random, 64, 64, 10)
        tile = np.array(_GROUND[name])[:, None, None] * relief * random.uniform(0.8, 1.2)
        buffer = io.BytesIO()
        np.save(buffer, tile.clip(0, 10_000).astype(np.uint16))
        yield f"{split}/{name}/{number:03d}.npy", buffer.getvalue()


def _cells() -> Iterator[tuple[str, bytes]]:
    """Yield 48 images of cells, and for each a mask of the same name: 0 background, 1 cell, 2 nucleus."""
    y, x = np.indices((96, 96))
    for number in range(48):
        random = _random("cells", number)
        image = 0.75 + 0.1 * _smooth(random, 96, 96, 12)[..., None] * np.ones(3)
        mask = np.zeros((96, 96), np.uint8)
        for _ in range(int(random.integers(4, 9))):
            centre, radius = random.uniform(8, 88, 2), random.uniform(7, 13)
            distance = np.hypot(y - centre[0], (x - centre[1]) * random.uniform(0.7, 1.4)) / radius
            mask[distance < 1] = 1
            mask[distance < 0.4] = 2
            image = np.where((distance < 1)[..., None], (0.85, 0.5, 0.7), image)
            image = np.where((distance < 0.4)[..., None], (0.35, 0.2, 0.55), image)
        noisy = (image + random.normal(0, 0.03, image.shape)).clip(0, 1)
        yield f"images/{number:03d}.png", _encoded((noisy * 255).round().astype(np.uint8), "PNG")
        yield f"masks/{number:03d}.png", _encoded(mask, "PNG")
