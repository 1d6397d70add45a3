"""k-NN probe: cosine similarity, votes weighted by exp(similarity / temperature) (docs/sources.md#probe-knn)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.features import Features
from cnnjepa.tensor_ops.matmul import linear

_QUERIES = 1024
_BANK = 8192  # rows normalised at a time: 64 MiB at 2,048 channels; with 1,024 queries, 32 MiB of similarities


def nearest(bank_ND: Tensor, queries_QD: Tensor, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosine similarities and indices of the k nearest bank rows of every query, [Q, k], nearest first.

    The bank is read once, block by block, so memory in addition to the queries and the result is bounded for any N.
    """
    queries = [F.normalize(part.to(device), dim=1) for part in queries_QD.split(_QUERIES)]
    best = [torch.empty(part.shape[0], 0, device=device) for part in queries]
    where = [torch.empty(part.shape[0], 0, dtype=torch.int64, device=device) for part in queries]
    for first in range(0, bank_ND.shape[0], _BANK):
        block = F.normalize(bank_ND[first : first + _BANK].to(device), dim=1)
        for at, part in enumerate(queries):
            found = linear(part, block).topk(min(k, block.shape[0]), dim=1)
            together = torch.cat([best[at], found.values], 1)
            best[at], order = together.topk(min(k, together.shape[1]), dim=1)
            where[at] = torch.cat([where[at], found.indices + first], 1).gather(1, order)
    return torch.cat(best), torch.cat(where)


def knn_accuracies(
    bank: Features, queries: Features, classes: int, ks: Sequence[int], temperature: float, device: torch.device
) -> list[tuple[float, float]]:
    """Return (top-1, top-5) in percent for every k of `ks`. Ties go to the lower class number."""
    return [percent(hits) for hits in knn_hits(bank, queries, classes, ks, temperature, device)]


def knn_hits(
    bank: Features, queries: Features, classes: int, ks: Sequence[int], temperature: float, device: torch.device
) -> list[Tensor]:
    """Return for every k of `ks` whether the label of each query has the most votes, and whether it is among the best
    five: bool [Q, 2] on the CPU. Ties go to the lower class number."""
    similarity_QK, index_QK = nearest(bank.values, queries.values, max(ks), device)
    # Only ratios of votes matter. The nearest neighbour's vote is scaled to 1, so that no temperature overflows.
    votes_QK = ((similarity_QK - similarity_QK[:, :1]) / temperature).exp()
    label_QK = bank.labels.to(device)[index_QK]
    labels = queries.labels.to(device)
    return [topk_hits(_tally(label_QK[:, :k], votes_QK[:, :k], classes), labels).cpu() for k in ks]


def _tally(label_QK: Tensor, votes_QK: Tensor, classes: int) -> Tensor:
    scores = votes_QK.new_zeros(label_QK.shape[0], classes)
    return scores.scatter_add(1, label_QK, votes_QK)


def topk_hits(scores_QC: Tensor, labels_Q: Tensor) -> Tensor:
    """Return for every row whether its label has the best score, and whether it is among the best five, bool [Q, 2].
    Ties go to the lower class number."""
    order = scores_QC.argsort(dim=1, descending=True, stable=True)[:, :5]
    hit = order == labels_Q[:, None]
    return torch.stack([hit[:, 0], hit.any(1)], 1)


def topk_percent(scores_QC: Tensor, labels_Q: Tensor) -> tuple[float, float]:
    """Return (top-1, top-5) accuracy in percent. Top-5 is 100 if there are at most five classes."""
    return percent(topk_hits(scores_QC, labels_Q))


def percent(hits_Q2: Tensor) -> tuple[float, float]:
    """Return the shares of true values in both columns, in percent."""
    top1, top5 = hits_Q2.sum(0).tolist()
    return 100 * top1 / hits_Q2.shape[0], 100 * top5 / hits_Q2.shape[0]


def usable_k(k: int, bank_size: int) -> int:
    """Return k, limited to a tenth of the bank and at least 1."""
    return max(1, min(k, bank_size // 10))


def chosen_k(
    fit: Features, held: Features, classes: int, ks: Sequence[int], temperature: float, device: torch.device
) -> tuple[int, float]:
    """Return the k with the highest top-1 accuracy on held-out features, the smallest of equals, and that accuracy in
    percent. Every k of `ks` is limited by `usable_k`."""
    usable = sorted({usable_k(k, fit.labels.numel()) for k in ks})
    found = knn_accuracies(fit, held, classes, usable, temperature, device)
    place = max(range(len(usable)), key=lambda at: (found[at][0], -at))
    return usable[place], found[place][0]
