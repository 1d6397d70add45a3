"""Features of a chosen run: a map of the validation images by class, and each image's nearest neighbours."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from cnnjepa.ablations.report.figures.style import MARKERS, PALETTE, Picture, canvas, picture
from cnnjepa.ablations.report.figures.text import figure_text
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.data.pixels import shown
from cnnjepa.data.source import Subset, spread
from cnnjepa.errors import RunError
from cnnjepa.pretrained import load_encoder
from cnnjepa.probes.features import encoder_embed
from cnnjepa.probes.knn import nearest
from cnnjepa.schemas import PretrainConfig

_MOST_IMAGES = 1_000  # enough for a map; photographs in a folder are decoded one by one
_MOST_CLASSES = len(PALETTE)  # more colours cannot be distinguished
_QUERIES, _NEIGHBOURS = 8, 7
_WIDE, _HIGH = 1.12, 1.34  # a cell of the gallery, in image sides: room for a gap and two lines of text


@dataclass(frozen=True)
class Seen:
    """Some validation images with their features from a run's encoder."""

    pixels: Tensor
    """uint8 [N, 3, H, W]."""
    features: Tensor
    """float32 [N, D]."""
    labels: Tensor
    """int64 [N]."""
    class_names: list[str]


def see(run: Path, config: PretrainConfig) -> Seen:
    """Load the run's probed encoder and at most 1,000 validation images, evenly over classes. Raises ConfigError or
    RunError when the checkpoint or the images are missing."""
    encoder = load_encoder(run, config.probed_encoder)
    source = open_sources(config.data)["val"]
    count = min(_MOST_IMAGES, source.labels.numel())
    few = Subset(source, spread(source, count))
    embed = encoder_embed(encoder, config, torch.device("cpu"))
    pixels, features, places = [], [], []
    for batch in evaluation_batches(few, config.data, config.probe.resize, config.probe.feature_batch_size):
        if batch.places.numel():
            pixels.append(shown(batch.pixels))
            features.append(embed(batch.pixels))
            places.append(batch.places)
    if not places:
        raise RunError("no validation image can be read")
    values = torch.cat(features)
    if not values.isfinite().all():
        raise RunError("the features are not finite")
    return Seen(torch.cat(pixels), values, few.labels[torch.cat(places)], list(source.class_names))


def principal_plane(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projection onto the two directions of largest variance: (coordinates float64 [N, 2], their fractions
    of the variance [2]).

    The sign of a singular vector is arbitrary. Each direction's sign is chosen so that its largest loading is positive.
    """
    centred = features_ND.double() - features_ND.double().mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    two = directions[:2]
    largest = two.gather(1, two.abs().argmax(1, keepdim=True))
    two = two * largest.sign().where(largest != 0, torch.ones_like(largest))
    total = singular.square().sum().clamp(min=1e-300)
    return centred @ two.T, singular[:2].square() / total


def draw_map(seen: Seen, run_label: str, name: str) -> Picture | None:
    """Draw the validation features on their principal plane, one colour per class. Return None with fewer than three
    images or dimensions."""
    if min(seen.features.shape) < 3:
        return None
    at, share = principal_plane(seen.features)
    classes = seen.labels.unique().tolist()
    shown = classes[:_MOST_CLASSES]
    with canvas(7.4, 5) as figure:
        axis = figure.subplots()
        rest = ~torch.isin(seen.labels, torch.tensor(shown))
        if rest.any():
            axis.scatter(
                at[rest, 0], at[rest, 1], s=7, color="#D9D9D9", label=f"{len(classes) - len(shown)} other classes"
            )
        for number, label in enumerate(shown):
            points = at[seen.labels == label]
            axis.scatter(
                points[:, 0], points[:, 1], s=16, color=PALETTE[number], marker=MARKERS[number], alpha=0.75,
                linewidth=0, label=figure_text(seen.class_names[label]),
            )  # fmt: skip
        axis.set(
            xlabel=f"first principal component, {share[0]:.0%} of the variance",
            ylabel=f"second, {share[1]:.0%}",
        )
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, markerscale=1.6)
        caption = (
            f"{len(seen.labels):,} validation images by the features of {run_label}, on the plane of largest variance "
            f"(PCA; it shows {share.sum():.0%} of the variance, so classes that overlap here may be separate in other "
            "dimensions)."
        )
        return picture(figure, name, caption)


def draw_gallery(seen: Seen, run_label: str, name: str) -> Picture | None:
    """Draw one row per query image, one query of each of the first classes, with its nearest other validation images by
    cosine similarity."""
    classes = seen.labels.unique()[:_QUERIES].tolist()
    if len(seen.labels) < 3:
        return None
    queries = torch.tensor([int((seen.labels == label).nonzero()[0]) for label in classes])
    count = min(_NEIGHBOURS, len(seen.labels) - 1)
    similarity, index = nearest(seen.features, seen.features[queries], count + 1, torch.device("cpu"))
    with canvas(1.2 * (count + 1) + 1.2, 1.5 * len(classes) + 0.2) as figure:
        axis = figure.subplots()
        for row, (query, label) in enumerate(zip(queries.tolist(), classes, strict=True)):
            others = [(int(i), float(s)) for i, s in zip(index[row], similarity[row], strict=True) if int(i) != query]
            _tile(axis, seen.pixels[query], (0, row), figure_text(seen.class_names[label]), "#000000")
            for column, (place, cosine) in enumerate(others[:count], start=1):
                same = int(seen.labels[place]) == label
                text = (
                    f"{cosine:.2f}"
                    if same
                    else f"{cosine:.2f}, {figure_text(seen.class_names[int(seen.labels[place])])}"
                )
                colour = PALETTE[2] if same else PALETTE[1]
                _tile(axis, seen.pixels[place], (column, row), text, colour, dashed=not same)
        axis.set(xlim=(-0.02, (count + 1) * _WIDE), ylim=(len(classes) * _HIGH, -0.02), aspect="equal")
        axis.axis("off")
        caption = (
            f"Nearest validation images by cosine similarity of the features of {run_label}; green, solid frame: the "
            "query's class; orange, dashed: another, named."
        )
        return picture(figure, name, caption)


def _tile(axis: Any, pixels: Tensor, at: tuple[int, int], text: str, colour: str, dashed: bool = False) -> None:
    """Draw one image with a frame and at most two lines of text below it, in a cell of the gallery."""
    left, top = at[0] * _WIDE, at[1] * _HIGH
    # The longer side fills the cell.
    height, width = (side / max(pixels.shape[1:]) for side in pixels.shape[1:])
    x, y = left + (1 - width) / 2, top + (1 - height) / 2
    axis.imshow(np.moveaxis(pixels.numpy(), 0, 2), extent=(x, x + width, y + height, y), interpolation="nearest")
    style = "--" if dashed else "-"
    axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.8, linestyle=style))
    lines = textwrap.wrap(text, 19, max_lines=2, placeholder=" …")
    axis.text(left, top + 1.05, "\n".join(lines), fontsize=6.5, color=colour, va="top", linespacing=1.05)
