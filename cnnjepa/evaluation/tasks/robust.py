"""Task `robust`: accuracy of the fitted linear classifier on corrupted validation images (arXiv 1903.12261).

The strengths of the corruptions are in `cnnjepa/evaluation/corruptions.py`. Accuracies are reported as they are: the
paper divides errors by those of AlexNet, which exist for ImageNet only.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.source import Subset, stratified
from cnnjepa.errors import RunError
from cnnjepa.evaluation.corruptions import SEVERITIES, Corruptions
from cnnjepa.evaluation.intervals import accuracy, mean_over_images
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.evaluation.tasks.linear import Fitted, fit_held_out
from cnnjepa.schemas.evaluation import RobustTask
from cnnjepa.tensor_ops.matmul import linear


class Robust(Task):
    """See `RobustTask`."""

    settings: RobustTask

    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        settings, val = self.settings, subject.pooled("val")
        fitted = fit_held_out(settings, subject, tick)
        count = val.labels.numel()
        rows = stratified(val.labels, min(settings.most_images, count))
        corruptions = Corruptions(subject.section, settings.seed)
        hits = corrupted_hits(fitted, corruptions, subject, rows, tick)
        outcome = robust_outcome(fitted.hits[rows, 0], hits)
        outcome.notes += corruptions.notes
        if rows.numel() < count:
            outcome.notes.append(f"{rows.numel():,} of {count:,} validation images, spread evenly over classes")
        outcome.chosen = {"lr": fitted.lr, "epoch": fitted.epoch, "held_out_top1": fitted.held_out_top1}
        outcome.details["strengths"] = {name: list(values) for name, values in corruptions.strengths.items()}
        return outcome


def corrupted_hits(
    fitted: Fitted, corruptions: Corruptions, subject: Subject, rows: Tensor, tick: Callable[[], None]
) -> dict[str, Tensor]:
    """Return by corruption whether each image is classified correctly, bool [severities, M]. `rows`, int64 [M], are
    rows of the pooled validation features. Every image is read once."""
    labels, places = subject.pooled("val").labels[rows], subject.pooled("val").whole_set[1][rows]
    hits = {name: torch.zeros(SEVERITIES, rows.numel(), dtype=torch.bool) for name in corruptions.names}
    loaded = evaluation_batches(
        Subset(subject.data.val, places), subject.section, subject.encoder.preprocessing.resize, subject.batch_size,
        subject.workers,
    )  # fmt: skip
    with contextlib.closing(loaded) as batches:
        for batch in batches:
            if batch.skipped:
                raise RunError(f"an image that was read before cannot be read any more: {batch.skipped[0]}")
            truth = labels[batch.places]
            for name, severity, pixels in corruptions.variants(batch.pixels, places[batch.places]):
                tick()
                scores = linear(subject.embed(pixels).to(subject.device), fitted.weight, fitted.bias)
                hits[name][severity - 1, batch.places] = scores.argmax(1).cpu() == truth
    return hits


def robust_outcome(clean: Tensor, hits: dict[str, Tensor]) -> Outcome:
    """Return the outcome of clean hits, bool [M], and hits by corruption, bool [severities, M]. All corruptions have
    the same weight.

    The interval of `retained`, a ratio of two means over the same images, linearises the ratio: its values of single
    images have the ratio as their mean.
    """
    of_clean = 100 * clean.double()
    per_image = {name: 100 * seen.double().mean(0) for name, seen in hits.items()}
    corrupted = torch.stack(list(per_image.values())).mean(0)
    values = {"corrupted": corrupted, "clean": of_clean}
    notes = []
    if clean.any():
        ratio = corrupted.mean() / of_clean.mean()
        values["retained"] = 100 * (ratio + (corrupted - ratio * of_clean) / of_clean.mean())
    else:
        notes.append("left out: retained, because no clean image is classified correctly")
    values |= per_image
    figures = {
        name: accuracy(clean.numpy())
        if name == "clean"
        else mean_over_images(found.numpy(), bounded=name != "retained")
        for name, found in values.items()
    }
    accuracies = {name: [100 * float(of_one.double().mean()) for of_one in seen] for name, seen in hits.items()}
    return Outcome(
        figures,
        {name: found.float().numpy() for name, found in values.items()},
        notes=notes,
        details={"accuracies": accuracies},
    )
