"""Features of tests: clouds of classes.

Shapes: N bank features, Q queries, D channels, C classes.
"""

import math

import numpy as np
import torch

from cnnjepa.probes.features import Features

CPU = torch.device("cpu")


def clouds(
    count: int, classes: int = 8, dim: int = 12, seed: int = 0, noise: float = 1.5, dtype: torch.dtype = torch.float32
) -> Features:
    """Overlapping Gaussian classes, the centres of which are the same for every seed; images in class order mixed."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=draw)
    values = centres[labels] + noise * torch.randn(count, dim, generator=draw, dtype=torch.float64)
    return Features(values.to(dtype), labels)


def brute_force(bank: Features, queries: Features, classes: int, k: int, temperature: float) -> tuple[float, float]:
    """(top-1, top-5) in percent by sorting everything, one query after the other, in float64."""
    rows = bank.values.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    hits1 = hits5 = 0
    for query, label in zip(queries.values.double().numpy(), queries.labels.tolist(), strict=True):
        similarity = rows @ (query / np.linalg.norm(query))
        nearest = np.argsort(-similarity, kind="stable")[:k]
        votes = np.zeros(classes)
        for place in nearest:  # shifted by the largest: the same order of classes, no overflow
            votes[int(bank.labels[place])] += math.exp((similarity[place] - similarity.max()) / temperature)
        ranking = sorted(range(classes), key=lambda c: (-votes[c], c))
        hits1 += ranking[0] == label
        hits5 += label in ranking[:5]
    return 100 * hits1 / len(queries.labels), 100 * hits5 / len(queries.labels)
