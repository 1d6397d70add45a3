"""LiDAR and the loss on held-out images: figures that need no labels, but several views or the whole method.

All views and masks are drawn with one fixed seed, so that a figure is a function of weights and images, and trials with
different seeds are judged on the same draws.
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Normalizer, Order, TrainingBatch, training_batches
from cnnjepa.data.resident import subset
from cnnjepa.data.source import ImageSource
from cnnjepa.methods import Method, StepDraw
from cnnjepa.methods.collectives import this_process_alone, world
from cnnjepa.probes.diagnostics import lidar
from cnnjepa.probes.features import Embed
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import PretrainConfig, View
from cnnjepa.schemas.augmentation import AugmentationConfig
from cnnjepa.schemas.extension import is_named
from cnnjepa.schemas.extent import height_width
from cnnjepa.schemas.views import PLAIN

IMAGES = 1000
"""Maximum number of images at the end of a run. Source: the number of images in LiDAR's paper."""
ONLINE_IMAGES = 128
"""Maximum number of images in an online probe. Source: ours, for its cost."""
VIEWS = 10
"""Views of an image in LiDAR. Source: ours, for its cost; the paper has about 50. LiDAR uses at most a tenth of the
images of which features are extracted, so that it at most doubles that cost."""

_BATCH = 64  # images per batch of the loss; LiDAR's views of a quarter of them go through the encoder together
_SEED = 0


def lidar_of(
    embed: Embed,
    config: PretrainConfig,
    images: ImageSource,
    device: torch.device,
    count: int,
    tick: Callable[[], None] = lambda: None,
) -> float | None:
    """Return LiDAR of the features of `VIEWS` crops (scale 0.2 to 1, aspect 3/4 to 4/3 of the image size's, half of
    them flipped, whatever the run's own augmentation) of at most `count` images, and at least two. None for a set of
    one image, and if a feature is not finite."""
    height, width = height_width(config.data.image_size)
    around = (3 / 4 * (width / height), 4 / 3 * (width / height))
    crop = View(PLAIN, config.data.image_size, AugmentationConfig(crop_ratio=around))
    found = []
    for batch in _batches(images, config, (crop,) * VIEWS, device, max(2, count), _BATCH // 4):
        tick()
        found.append(embed(torch.cat(batch.views)).unflatten(0, (VIEWS, -1)).transpose(0, 1))
    values_NQD = torch.cat(found)
    if values_NQD.shape[0] < 2 or not values_NQD.isfinite().all():
        return None
    return lidar(values_NQD)


@torch.no_grad()
def heldout_loss(
    method: Method,
    config: PretrainConfig,
    images: ImageSource,
    device: torch.device,
    count: int,
    tick: Callable[[], None] = lambda: None,
) -> float | None:
    """Return the loss of the method on at most `count` images, averaged over its terms: in evaluation mode and float32,
    with the views and masks of the config. Modes and buffers of the method are unchanged afterwards.

    Returns None where there is no such loss: for methods that learn from labels or do not train, for one image if the
    method compares images, and if the loss is not finite. A method of one's own on several processes has none either,
    because its loss may wait for the other processes, which wait for this one.
    """
    kind = config.method
    if kind.LEARNS_FROM_LABELS or not kind.TRAINS or (is_named(kind.name) and world()[1] > 1):
        return None
    if kind.COMPARES_IMAGES and images.labels.numel() < 2:
        return None
    normalize = Normalizer(config.data, device, config.runtime.channels_last)
    total, terms = 0.0, 0.0
    with _in_evaluation(method), this_process_alone(), layer_randomness(device), _eagerly(config):
        for step, batch in enumerate(_batches(images, config, config.views, device, count, _BATCH)):
            tick()
            views = tuple(normalize(view.to(device)) for view in batch.views)
            draw = StepDraw(config.grid, torch.arange(views[0].shape[0]), _SEED, step)
            seed_layers(_SEED, "heldout_loss", step)
            with torch.autocast(device.type, enabled=False):
                loss = method(*method.inputs(views, batch.labels.to(device), draw))
            total, terms = total + float(loss.total), terms + float(loss.weight)
    value = total / terms if terms else math.nan
    return value if math.isfinite(value) else None


def _batches(
    images: ImageSource, config: PretrainConfig, views: tuple[View, ...], device: torch.device, count: int, most: int
) -> Iterator[TrainingBatch]:
    """Yield the views of at most `count` images, evenly spread over the order of the set, in batches of equal size (at
    most `most`). The images beyond a multiple of that size are left out."""
    whole = images.labels.numel()
    few = min(count, whole)
    some = subset(images, torch.arange(few) * whole // few)
    steps = math.ceil(few / most)
    order = Order(few, few // steps, 0, 1, _SEED)
    data = DataSet(some, some, "", "")
    loaded = training_batches(data, config.data, order, 0, steps, config.runtime.workers, device, views)
    with contextlib.closing(loaded) as batches:
        yield from batches


@contextlib.contextmanager
def _in_evaluation(method: nn.Module) -> Iterator[None]:
    """Put the method into evaluation mode, and restore every module's mode and every buffer (a queue of negatives, for
    example) at the end."""
    modes = [(module, module.training) for module in method.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in method.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    method.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer, before in buffers:
            setattr(module, name, buffer.copy_(before))


def _eagerly(config: PretrainConfig) -> contextlib.AbstractContextManager[object]:
    """Do not compile for batches of another size and mode than those of training."""
    return torch.compiler.set_stance("force_eager") if config.runtime.compile else contextlib.nullcontext()
