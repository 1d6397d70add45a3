"""k-NN probe: cosine similarity, votes weighted exp(similarity / temperature) (METHOD, "Probes")."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.features import Features

_QUERIES = 1024
_BANK = 65_536  # 1024 x 65536 similarities are 256 MiB


def nearest(bank_ND: Tensor, queries_QD: Tensor, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine similarities and indices of the k nearest bank rows of every query, [Q, k], nearest first.

    Both sides are read in blocks, so memory is bounded whatever N.
    """
    similarities, indices = [], []
    for start in range(0, queries_QD.shape[0], _QUERIES):
        queries = F.normalize(queries_QD[start : start + _QUERIES].to(device), dim=1)
        best = torch.full((queries.shape[0], 0), 0.0, device=device)
        where = torch.empty(queries.shape[0], 0, dtype=torch.int64, device=device)
        for offset in range(0, bank_ND.shape[0], _BANK):
            block = F.normalize(bank_ND[offset : offset + _BANK].to(device), dim=1)
            found = (queries @ block.T).topk(min(k, block.shape[0]), dim=1)
            best, where = torch.cat([best, found.values], 1), torch.cat([where, found.indices + offset], 1)
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, order)
        similarities.append(best)
        indices.append(where)
    return torch.cat(similarities), torch.cat(indices)


def knn_accuracies(
    bank: Features, queries: Features, classes: int, ks: Sequence[int], temperature: float, device: torch.device
) -> list[tuple[float, float]]:
    """(top-1, top-5) in percent for every k of `ks`; ties go to the lower class number."""
    similarity_QK, index_QK = nearest(bank.values, queries.values, max(ks), device)
    # Votes count relative to each other; the nearest one's is 1, so that no temperature overflows.
    votes_QK = ((similarity_QK - similarity_QK[:, :1]) / temperature).exp()
    label_QK = bank.labels.to(device)[index_QK]
    return [topk_percent(_tally(label_QK[:, :k], votes_QK[:, :k], classes), queries.labels.to(device)) for k in ks]


def _tally(label_QK: Tensor, votes_QK: Tensor, classes: int) -> Tensor:
    scores = votes_QK.new_zeros(label_QK.shape[0], classes)
    return scores.scatter_add(1, label_QK, votes_QK)


def topk_hits(scores_QC: Tensor, labels_Q: Tensor) -> tuple[int, int]:
    """Rows whose label is the best and among the best five; ties go to the lower class number."""
    order = scores_QC.argsort(dim=1, descending=True, stable=True)[:, :5]
    hit = order == labels_Q[:, None]
    return int(hit[:, 0].sum()), int(hit.any(1).sum())


def topk_percent(scores_QC: Tensor, labels_Q: Tensor) -> tuple[float, float]:
    """(top-1, top-5) accuracy in percent; top-5 is 100 where there are at most five classes."""
    top1, top5 = topk_hits(scores_QC, labels_Q)
    return 100 * top1 / labels_Q.numel(), 100 * top5 / labels_Q.numel()


def usable_k(k: int, bank_size: int) -> int:
    """k, but at most a tenth of the bank and at least 1."""
    return max(1, min(k, bank_size // 10))
