"""Search by cosine similarity among the vectors of a file of features."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.knn import nearest

_BLOCK = 2048  # rows normalised at a time


class Neighbour(NamedTuple):
    """A row that is near to a query."""

    row: int
    similarity: float
    """Cosine similarity, -1 to 1."""


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
