"""Accuracy of the nearest class mean, over all images and class by class."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric
from cnnjepa.schemas.metric import ClassMeansConfig

_BLOCK = 8192  # rows at a time


class ClassMeans(ProbeMetric):
    """Every validation image gets the class whose mean training feature is nearest to its own feature: by cosine
    similarity if features are scaled to unit length, else by Euclidean distance. There is nothing to choose, so no
    protocol is involved."""

    config: ClassMeansConfig

    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        """Return accuracies in percent: of all images, the mean over classes, and of the worst class. Classes without
        training or validation images are left out."""
        count = len(features.class_names)
        centre_D = self._centre(features.train)
        sums = torch.zeros(count, features.train.shape[1], dtype=torch.float64)
        for rows, labels in zip(features.train.split(_BLOCK), features.train_labels.split(_BLOCK), strict=True):
            sums.index_add_(0, labels, self._normalised(rows, centre_D).double())
        images_C = torch.bincount(features.train_labels, minlength=count)
        hits, images = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        for rows, labels in zip(features.val.split(_BLOCK), features.val_labels.split(_BLOCK), strict=True):
            nearest = self._nearest(self._normalised(rows, centre_D), sums, images_C)
            hits += torch.bincount(labels[nearest == labels], minlength=count)
            images += torch.bincount(labels, minlength=count)
        share = 100 * hits[images > 0] / images[images > 0]
        return {
            "class_mean_top1": 100 * float(hits.sum()) / float(images.sum()),
            "class_mean_balanced": float(share.mean()),
            "class_mean_worst": float(share.min()),
        }

    def _centre(self, train_ND: Tensor) -> Tensor | None:
        """Return the mean training feature, float64 [D]; None if it is not subtracted."""
        if self.config.normalisation != "centred_l2":
            return None
        total = torch.zeros(train_ND.shape[1], dtype=torch.float64)
        for rows in train_ND.split(_BLOCK):
            total += rows.double().sum(0)
        return total / len(train_ND)

    def _normalised(self, rows_ND: Tensor, centre_D: Tensor | None) -> Tensor:
        if self.config.normalisation == "none":
            return rows_ND
        return F.normalize(rows_ND if centre_D is None else rows_ND.double() - centre_D, dim=1)

    def _nearest(self, rows_ND: Tensor, sums_CD: Tensor, images_C: Tensor) -> Tensor:
        """Return the class (int64 [N]) of the nearest mean. The direction of a mean is that of the sum."""
        rows_ND = rows_ND.double()
        if self.config.normalisation == "none":
            closeness = -torch.cdist(rows_ND, sums_CD / images_C.clamp(min=1)[:, None])
        else:
            closeness = rows_ND @ F.normalize(sums_CD, dim=1).T
        return closeness.masked_fill(images_C == 0, -torch.inf).argmax(1)
