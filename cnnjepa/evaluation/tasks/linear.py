"""Task `linear`: the linear probe (docs/sources.md#probe-linear)."""

from collections.abc import Callable

from torch import Tensor

from cnnjepa.evaluation.intervals import accuracy
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.probes.evaluate import split_rows
from cnnjepa.probes.features import Features
from cnnjepa.probes.linear import Classifiers, linear_curve
from cnnjepa.schemas.evaluation import HeldOutTask, LinearFit, LinearTask


class Linear(Task):
    """See `LinearTask`."""

    settings: LinearTask

    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        settings = self.settings
        if settings.protocol == "held_out":
            fitted = fit_held_out(settings, subject, tick)
            chosen = {"lr": fitted.lr, "epoch": fitted.epoch, "held_out_top1": fitted.held_out_top1}
            return hits_outcome(fitted.hits, subject.classes, chosen)
        best = _Best()
        linear_curve(
            subject.pooled("train"), subject.pooled("val"), subject.classes, [settings.lr], settings.epochs,
            settings.batch_size, subject.device, tick=tick, observe=best.observe,
        )  # fmt: skip
        return hits_outcome(best.hits, subject.classes, {"lr": settings.lr, "epoch": best.epoch + 1})


class Fitted:
    """A linear classifier that was fitted on all training images, with settings that were chosen on a part of them."""

    weight: Tensor
    """[classes, C] on the device."""
    bias: Tensor
    """[classes] on the device."""
    hits: Tensor
    """bool [M, 2], top-1 and top-5 hits of the validation images."""

    def __init__(self, lr: float, epoch: int, held_out_top1: float) -> None:
        self.lr, self.epoch, self.held_out_top1 = lr, epoch, held_out_top1

    def observe(self, epoch: int, classifiers: Classifiers) -> None:
        """Keep the classifier."""
        self.weight, self.bias = classifiers.weight.clone(), classifiers.bias.clone()
        (self.hits,) = classifiers.hits


class _Best:
    """The hits of the epoch with the highest top-1 accuracy, the earliest of equals."""

    epoch, hits = -1, Tensor()

    def observe(self, epoch: int, classifiers: Classifiers) -> None:
        (hits,) = classifiers.hits
        if self.epoch < 0 or hits[:, 0].sum() > self.hits[:, 0].sum():
            self.epoch, self.hits = epoch, hits


def fit_held_out(settings: LinearFit, subject: Subject, tick: Callable[[], None]) -> Fitted:
    """Choose epoch and learning rate on held-out training images, fit on all of them, and judge on the validation
    images once."""
    train = subject.pooled("train")
    fit, held = held_out_parts(train, settings)
    curve = linear_curve(
        fit, held, subject.classes, settings.lrs, settings.epochs, settings.batch_size, subject.device, tick=tick
    )
    epoch, rate = curve.best()
    fitted = Fitted(settings.lrs[rate], epoch + 1, curve.accuracies[epoch][rate][0])
    linear_curve(
        train, subject.pooled("val"), subject.classes, [fitted.lr], fitted.epoch, settings.batch_size, subject.device,
        last_only=True, tick=tick, observe=fitted.observe,
    )  # fmt: skip
    return fitted


def held_out_parts(train: Features, settings: HeldOutTask) -> tuple[Features, Features]:
    """Return (fitting, held-out) features."""
    fit, held = split_rows(train, settings)
    return train.take(fit), train.take(held)


def hits_outcome(hits: Tensor, classes: int, chosen: dict[str, float]) -> Outcome:
    """Return the outcome of a classifier with these top-1 and top-5 hits, bool [M, 2]. There is no top-5 accuracy for
    five classes or fewer, where it would always be 100 %."""
    names = ["top1", "top5"][: 2 if classes > 5 else 1]
    values = {name: hits[:, place].numpy() for place, name in enumerate(names)}
    return Outcome(
        {name: accuracy(of_images) for name, of_images in values.items()},
        {name: 100 * of_images.astype("float32") for name, of_images in values.items()},
        chosen,
    )
