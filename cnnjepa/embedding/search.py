"""Search by cosine similarity among the vectors of a file of features."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.knn import nearest

_BLOCK = 2048  # rows compared with all others at a time


class Neighbour(NamedTuple):
    """A row that is near to a query."""

    row: int
    similarity: float
    """Cosine similarity, -1 to 1."""


class Pair(NamedTuple):
    """Two rows that are near to each other."""

    first: int
    second: int
    similarity: float


def neighbours(bank_ND: Tensor, queries_QD: Tensor, k: int, own: list[int | None]) -> list[list[Neighbour]]:
    """Return the k nearest rows of every query, nearest first; equally near ones in the order of the rows. `own` is the
    row of a query that is in the bank itself, which is left out. The search is exact; FAISS does it if it is
    installed."""
    similarity_QK, row_QK = _search(bank_ND, queries_QD, min(k + 1, bank_ND.shape[0]))
    found = []
    for values, rows, itself in zip(similarity_QK.tolist(), row_QK.tolist(), own, strict=True):
        near = [Neighbour(row, value) for row, value in zip(rows, values, strict=True) if row != itself]
        found.append(sorted(near, key=lambda one: (-one.similarity, one.row))[:k])
    return found


def _search(bank_ND: Tensor, queries_QD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    try:
        import faiss
    except ImportError:
        return nearest(bank_ND, queries_QD, k, torch.device("cpu"))
    index = faiss.IndexFlatIP(bank_ND.shape[1])
    for block in bank_ND.split(_BLOCK):
        index.add(F.normalize(block, dim=1).numpy())
    values, rows = index.search(F.normalize(queries_QD, dim=1).numpy(), k)
    return torch.from_numpy(values), torch.from_numpy(rows)


def near_pairs(bank_ND: Tensor, threshold: float, most: int) -> tuple[list[Pair], int]:
    """Return the pairs of rows whose cosine similarity is at least `threshold`, most similar first and at most `most`
    of them, and the number of all such pairs. Memory does not grow with the square of the rows."""
    vectors = F.normalize(bank_ND, dim=1)
    kept = (torch.empty(0), torch.empty(0, 2, dtype=torch.int64))
    count = 0
    for first in range(0, vectors.shape[0], _BLOCK):
        block = vectors[first : first + _BLOCK]
        for second in range(first, vectors.shape[0], _BLOCK):
            similar = block @ vectors[second : second + _BLOCK].T
            if first == second:
                similar = similar.triu(1).masked_fill(torch.ones_like(similar).tril().bool(), -2)
            places = (similar >= threshold).nonzero()
            count += places.shape[0]
            values = torch.cat([kept[0], similar[places[:, 0], places[:, 1]]])
            rows = torch.cat([kept[1], places + torch.tensor([first, second])])
            order = values.argsort(descending=True, stable=True)[:most]
            kept = (values[order], rows[order])
    pairs = [Pair(rows[0], rows[1], value) for value, rows in zip(kept[0].tolist(), kept[1].tolist(), strict=True)]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second)), count
