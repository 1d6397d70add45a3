"""A picture of a masking config: sample masks, the positions of context and targets, and their numbers of cells."""

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.data.pixels import shown
from cnnjepa.data.source import Subset, spread
from cnnjepa.data.synthetic import LARGEST, SMALLEST, render
from cnnjepa.masks import sample_masks
from cnnjepa.matplotlib_cache import ensure_matplotlib_cache
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.extent import Extent, area, as_text, height_width
from cnnjepa.schemas.masking import MaskingSection

_SAMPLES = 8
_BATCH = 64


def draw_picture(config: PretrainConfig, out: Path, batches: int) -> dict[str, str]:
    """Draw the picture and return its figures by name, for printing. Raises ConfigError for a method without masks of
    cells."""
    masking = masking_of(config)
    context_rate, target_rate, targets = cell_rates(config, batches)
    grid = config.grid
    facts = {
        "grid": f"{as_text(grid)} ({_pixels(config.data.image_size)}, stride {config.encoder.total_stride})",
        "strategy": masking.strategy,
        "target cells per sample": f"{targets.double().mean():.2f} of {area(grid)} over {batches} batches",
        "visible share": f"{config.visible_share:.4f} expected, {context_rate.mean():.4f} counted",
    }
    facts |= masking.facts(grid)
    _draw(config, out, context_rate, target_rate, targets, facts)
    return facts


def _pixels(size: Extent) -> str:
    return f"{size} px" if isinstance(size, int) else f"{as_text(size)} px"


def masking_of(config: PretrainConfig) -> MaskingSection:
    """Return the method's masking section. Raises ConfigError for a method without masks of cells."""
    masking = config.method.masks
    if masking is None or not masking.DRAWS_CELLS:
        raise ConfigError(
            f"method.name={config.method.name}: its training has no masks of cells to draw; cnnjepa and spark have them"
        )
    return masking


def cell_rates(config: PretrainConfig, batches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sample `batches` batches of 64 masks. Returns the context rate [R, C], the target rate [R, C] and the number of
    target cells of every sample."""
    indices = torch.arange(_BATCH)
    context = torch.zeros(height_width(config.grid), dtype=torch.float64)
    target = torch.zeros_like(context)
    counts = []
    for step in range(batches):
        masks = sample_masks(masking_of(config), config.grid, indices, config.runtime.seed, step)
        context += masks.context.double().mean(0)
        target += masks.target.double().mean(0)
        counts.append(masks.target.flatten(1).sum(1))
    return context / batches, target / batches, torch.cat(counts)


def _draw(
    config: PretrainConfig, out: Path, context_rate: Tensor, target_rate: Tensor, targets: Tensor, facts: dict[str, str]
) -> None:
    ensure_matplotlib_cache()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(12, 7.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))  # type: ignore[misc]
    axes = top.subplots(3, _SAMPLES)
    masks = sample_masks(masking_of(config), config.grid, torch.arange(_SAMPLES), config.runtime.seed, 0)
    images = _images(config)
    p = config.encoder.total_stride
    for row, (name, mask) in enumerate((("image", None), ("context", masks.context), ("target", masks.target))):
        for column in range(_SAMPLES):
            axis = axes[row, column]
            image = images[column].permute(1, 2, 0)
            if mask is not None:
                shown = mask[column].repeat_interleave(p, 0).repeat_interleave(p, 1)[..., None]
                image = torch.where(shown, image, torch.full_like(image, 235))
            axis.imshow(image.numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(name)
    top.suptitle(
        ", ".join(f"{name} {value}" for name, value in facts.items() if name in ("strategy", "grid", "sampler"))
    )
    left, middle, right = bottom.subplots(1, 3)
    for axis, rate, name in ((left, context_rate, "context"), (middle, target_rate, "target")):
        heat_map(figure, axis, rate, f"how often a cell is {name}")
    values, counts = targets.unique(return_counts=True)
    right.bar(values.numpy(), (counts / counts.sum()).numpy(), color="#0072B2")
    right.axvline(
        float(targets.double().mean()), color="#D55E00", linestyle="--", label=f"mean {targets.double().mean():.2f}"
    )
    right.set(title="target cells per sample", xlabel="cells", ylabel="fraction of samples")
    right.margins(y=0.18)
    right.legend(loc="upper right", frameon=False)
    figure.savefig(out, dpi=130)
    plt.close(figure)


def heat_map(figure: Any, axis: Any, rate: Tensor, title: str) -> None:
    """Draw a rate [R, C], 0 to 1, with its numbers if they fit."""
    picture = axis.imshow(rate.numpy(), cmap="viridis", vmin=0, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
    if max(rate.shape) <= 10:
        for row, column in itertools.product(range(rate.shape[0]), range(rate.shape[1])):
            value = float(rate[row, column])
            colour = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=axis, shrink=0.85)


def _images(config: PretrainConfig) -> Tensor:
    """Return a few validation images uint8 [n, 3, H, W] of the encoder's input size: resized until they cover it, and
    cropped. If synthetic images cannot be drawn at that size, they are scaled."""
    height, width = height_width(config.data.image_size)
    if config.data.DRAWN or (config.data.PATH and config.data.images_path is None):
        size = max(height, width)
        drawn = render("val", _SAMPLES, min(max(size, SMALLEST), LARGEST))[0]
        if drawn.shape[-1] != size:
            drawn = functional.interpolate(drawn, (size, size), mode="nearest")
        top, left = (size - height) // 2, (size - width) // 2
        return drawn[:, :, top : top + height, left : left + width]
    source = open_sources(config.data)["val"]
    few = Subset(source, spread(source, min(_SAMPLES, source.labels.numel())))
    pixels = torch.cat([b.pixels for b in evaluation_batches(few, config.data, None, _SAMPLES)])
    pixels = shown(pixels)
    return pixels.repeat(_SAMPLES, 1, 1, 1)[:_SAMPLES]
