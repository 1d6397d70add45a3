"""Pairs of similar rows."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.tensor_ops.matmul import linear

_BLOCK = 2048  # rows compared with as many others at a time: 16 MiB of similarities


class Pair(NamedTuple):
    """Two rows that are similar to each other."""

    first: int
    second: int
    """The later row."""
    similarity: float
    """Cosine similarity, -1 to 1."""


def similar_pairs(
    rows_ND: Tensor, least: float, most: int, tick: Callable[[], None] = lambda: None
) -> tuple[list[Pair], int]:
    """Return the pairs of rows of unit length whose cosine similarity is at least `least`, most similar first and at
    most `most` of them, and the number of all such pairs. Equally similar pairs come in the order of the rows. Memory
    does not grow with the square of the rows. `tick` is called before every block."""
    values = rows_ND.new_empty(0)
    places = torch.empty(0, 2, dtype=torch.int64, device=rows_ND.device)
    count, total = 0, rows_ND.shape[0]
    for first in range(0, total, _BLOCK):
        for second in range(first, total, _BLOCK):
            tick()
            similarity = linear(rows_ND[first : first + _BLOCK], rows_ND[second : second + _BLOCK])
            close = similarity >= least
            found = (close.triu(1) if first == second else close).nonzero()
            count += found.shape[0]
            values = torch.cat([values, similarity[found[:, 0], found[:, 1]]])
            places = torch.cat([places, found + found.new_tensor([first, second])])
            by_row = (places[:, 0] * total + places[:, 1]).argsort()
            order = by_row[values[by_row].argsort(descending=True, stable=True)[:most]]
            values, places = values[order], places[order]
    every = zip(places.tolist(), values.tolist(), strict=True)
    return [Pair(first, second, value) for (first, second), value in every], count
