"""Checks of whether an augmentation keeps the contract of `Augmentation.apply`, on random images."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.data.augmentation import Augmentation, ImageDraws, augmentation_of, broken_promise
from cnnjepa.randomness import generator
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.extension import extension_of
from cnnjepa.schemas.extent import height_width
from cnnjepa.schemas.views import View

_IMAGES = 4
_CPU = torch.device("cpu")
# A batched operation may sum in another order than the same operation on one image.
_TOLERANCE = 1e-5


class Checked(NamedTuple):
    """One result of a check. `ok` is None if there is nothing to judge."""

    name: str
    value: str
    ok: bool | None


def refuse_unfit_augmentations(views: tuple[View, ...], channels: int = 3) -> None:
    """Raise ConfigError for a user's augmentation that violates its contract on images of `channels` channels."""
    for view in dict.fromkeys(views):
        if extension_of(view.augmentation):
            for checked in check_augmentation(view, channels):
                if checked.ok is False:
                    raise ConfigError(f"augmentation {view.augmentation.name}: {checked.name}: {checked.value}")


def check_augmentation(view: View, channels: int = 3) -> Iterator[Checked]:
    """Check the augmentation of a view on four random images of the view's size. The first violation ends the checks.
    Raises ConfigError for a class that is not an Augmentation."""
    made = augmentation_of(view.augmentation)
    if made is None:
        yield Checked("augmentation", "crop and flip only", None)
        return
    shape = (_IMAGES, channels, *height_width(view.size))
    pixels = torch.rand(shape, generator=generator(0, "augmentation_check"))
    for check in (_keeps_form, _repeats, _is_of_each_image):
        checked = check(made, pixels)
        yield checked
        if not checked.ok:
            return
    yield _differs(made, pixels)


def _applied(made: Augmentation, pixels: Tensor, epoch: int = 0, first: int = 0) -> Tensor:
    indices = torch.arange(first, first + pixels.shape[0])
    return made.apply(pixels.clone(), ImageDraws(indices, 0, epoch, 0, _CPU))


def _keeps_form(made: Augmentation, pixels: Tensor) -> Checked:
    name = "shape, type and values"
    try:
        changed = _applied(made, pixels)
    except Exception as error:  # the user's code may raise anything; --debug shows where
        return Checked(name, f"apply fails: {type(error).__name__}: {error}", False)
    if wrong := broken_promise(changed, pixels):
        return Checked(name, wrong, False)
    if not changed.isfinite().all():
        return Checked(name, "some values are not finite", False)
    return Checked(name, f"float32 {list(changed.shape)}, values {changed.min():.2f} to {changed.max():.2f}", True)


def _repeats(made: Augmentation, pixels: Tensor) -> Checked:
    """Check that the result does not depend on torch's generators or on earlier calls."""
    first = _applied(made, pixels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = _applied(made, pixels)
    if torch.equal(first, again):
        return Checked("deterministic", "two calls give the same pixels", True)
    share = 100 * float((first != again).float().mean())
    why = "draw from the given draws (`uniforms`, `one_by_one`), not from a generator, and keep no state"
    return Checked("deterministic", f"{share:.0f} % of the pixels differ between two calls; {why}", False)


def _is_of_each_image(made: Augmentation, pixels: Tensor) -> Checked:
    """Check that an image's result is the same alone as in a batch."""
    name = "each image by itself"
    whole = _applied(made, pixels)
    for place in range(_IMAGES):
        alone = _applied(made, pixels[place : place + 1], first=place)
        error = float((alone[0] - whole[place]).abs().max())
        if error > _TOLERANCE:
            why = "batches differ between numbers of processes, so use no mean over the batch and no other image"
            return Checked(
                name, f"image {place} alone differs by {error:.2g} from image {place} in a batch; {why}", False
            )
    return Checked(name, f"{_IMAGES} images alone are as in a batch", True)


def _differs(made: Augmentation, pixels: Tensor) -> Checked:
    """Report how many of the images change, and how many of them differ from epoch to epoch."""
    epochs = [_applied(made, pixels, epoch) for epoch in range(8)]
    share = sum(float((one != pixels).flatten(1).any(1).float().mean()) for one in epochs) / len(epochs)
    varies = any(not torch.equal(epochs[0], one) for one in epochs[1:])
    how = "differently in each epoch" if varies else "the same in every epoch"
    return Checked("effect", f"changes {100 * share:.0f} % of the images, {how}", None)
