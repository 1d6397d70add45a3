"""Accuracy of the nearest class mean, over all images and class by class."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric

_BLOCK = 8192  # rows at a time


class ClassMeans(ProbeMetric):
    """Every validation image gets the class whose mean training feature has the largest cosine similarity with its own
    feature (features are scaled to unit length first). There is nothing to choose, so no protocol is involved."""

    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        """Return accuracies in percent: of all images, the mean over classes, and of the worst class. Classes without
        training or validation images are left out."""
        count = len(features.class_names)
        sums = torch.zeros(count, features.train.shape[1], dtype=torch.float64)
        for rows, labels in zip(features.train.split(_BLOCK), features.train_labels.split(_BLOCK), strict=True):
            sums.index_add_(0, labels, F.normalize(rows, dim=1).double())
        known = torch.bincount(features.train_labels, minlength=count) > 0
        hits, images = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        for rows, labels in zip(features.val.split(_BLOCK), features.val_labels.split(_BLOCK), strict=True):
            hits += torch.bincount(labels[_nearest(rows, sums, known) == labels], minlength=count)
            images += torch.bincount(labels, minlength=count)
        share = 100 * hits[images > 0] / images[images > 0]
        return {
            "class_mean_top1": 100 * float(hits.sum()) / float(images.sum()),
            "class_mean_balanced": float(share.mean()),
            "class_mean_worst": float(share.min()),
        }


def _nearest(rows_ND: Tensor, sums_CD: Tensor, known_C: Tensor) -> Tensor:
    """Return the class (int64 [N]) of the nearest mean; the direction of a mean is that of the sum."""
    similarity = rows_ND.double() @ F.normalize(sums_CD, dim=1).T
    return similarity.masked_fill(~known_C, -torch.inf).argmax(1)
