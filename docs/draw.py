"""Draws the pictures of the documentation into docs/pictures: `python docs/draw.py RUN`.

RUN is the folder of a finished run of the preset `demo` (`make demo` writes runs/demo). Images are synthetic, so the
pictures may be passed on. The figure of a study is the report's, from results/photos.
Shapes: B images, S pixels per side, G cells per side. Images and grids may also be rectangles.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import center_crop

from cnnjepa.ablations.report.comparison import compare
from cnnjepa.ablations.report.figures.accuracy_by_arm import draw_arms
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.data.batches import Normalizer
from cnnjepa.data.synthetic import render
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.methods import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.schemas import PretrainConfig, load_config, read_config
from cnnjepa.schemas.extent import height_width
from cnnjepa.training.checkpoint import read_checkpoint

PICTURES = Path(__file__).parent / "pictures"
RESULTS = Path(__file__).parent.parent / "results" / "photos"
HIDDEN = 235  # grey level of a hidden pixel
BLUE, ORANGE = "#0072B2", "#D55E00"  # distinguishable for colour-blind readers
STRATEGIES = ("random", "block", "multi_block", "mixed")
STEPS = (0, 1, 4, 7)  # the masks drawn: with seed 0, `mixed` takes blocks in the first two and cells in the others


def main(run: Path, out: Path = PICTURES) -> list[Path]:
    """Draw every picture; return the files written."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = {"prediction.png": draw_prediction(run), "masks.png": draw_masks(), "packing.svg": draw_packing()}
    written = []
    plt.rcParams["svg.hashsalt"] = "cnnjepa"
    for name, figure in pictures.items():
        metadata = {"Date": None} if name.endswith(".svg") else {"Software": None}
        figure.savefig(out / name, dpi=110, metadata=metadata)
        plt.close(figure)
        written.append(out / name)
    (out / "study.png").write_bytes(draw_study())
    return [*written, out / "study.png"]


def draw_study(name: str = "photos_ratio") -> bytes:
    """Return the report's figure of a study in results/photos, as PNG."""
    study = read_study(StudyFolder(RESULTS, name))
    drawn = draw_arms(compare(study, study.datasets[0], "held_out"), name)
    assert drawn is not None, "the study has finished trials"
    return drawn.png


def draw_prediction(run: Path, images: int = 3) -> Any:
    """Draw image, context, target features, predicted features and prediction error, one image per row."""
    config, method = read_config(run / "config.yaml"), trained_method(run)
    pixels = drawn(config, images)
    masks = sample_masks(method.masking, config.grid, torch.arange(images), config.runtime.seed, 0)
    target, prediction = features(method, Normalizer(config.data, torch.device("cpu"))(pixels), masks)
    error = 1 - (target * prediction).sum(1)
    target_rgb, prediction_rgb = colours(target, prediction)
    figure, axes = plt.subplots(images, 5, figsize=(10, 1.85 * images + 0.3), layout="constrained")
    titles = ("image", "context", "target features", "prediction", "prediction error")
    for row in range(images):
        context, hidden = masks.context[row], masks.target[row]
        shown = (
            pixels[row].permute(1, 2, 0),
            covered(pixels[row], context, config.encoder.total_stride),
            target_rgb[row],
            torch.where(hidden[..., None], prediction_rgb[row], 1.0),
        )
        for axis, picture in zip(axes[row], shown, strict=False):
            axis.imshow(picture.numpy(), interpolation="nearest")
        heat = axes[row, 4].imshow(torch.where(hidden, error[row], torch.nan).numpy(), cmap="viridis", vmin=0, vmax=0.5)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.colorbar(heat, ax=axes[:, 4], label="1 − cosine similarity", shrink=0.8)
    return figure


def drawn(config: PretrainConfig, count: int) -> Tensor:
    """Validation images of a synthetic set, at the size of the config's crops."""
    size = height_width(config.data.image_size)
    pixels: Tensor = center_crop(render("val", count, max(size))[0], list(size))
    return pixels


def trained_method(run: Path) -> CNNJEPA:
    """The method of a run, with its trained weights, in evaluation mode."""
    method = build_method(read_config(run / "config.yaml"))
    assert isinstance(method, CNNJEPA), "only runs of cnnjepa predict features"
    method.load_state_dict(read_checkpoint(run / "checkpoints" / "last.pt")["method"])
    return method.eval()


@torch.no_grad()
def features(method: CNNJEPA, images_B3SS: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
    """(target, predicted) features of unit length, each [B, C, G, G]."""
    context = method.context_encoder(images_B3SS, masks.context)
    filled = torch.where(masks.context[:, None], context, method.token[:, None, None])
    return F.normalize(method.target_encoder(images_B3SS), dim=1), F.normalize(method.predictor(filled), dim=1)


def colours(target_BCGG: Tensor, prediction_BCGG: Tensor) -> tuple[Tensor, Tensor]:
    """Both feature maps as colours [B, G, G, 3]: their coordinates along the three directions of largest variance of
    the target features."""
    rows = target_BCGG.permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = rows.mean(0)
    directions = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:3]
    places = (rows - mean) @ directions.T
    low, high = places.quantile(0.02, 0), places.quantile(0.98, 0)
    maps = [
        ((((m.permute(0, 2, 3, 1).double() - mean) @ directions.T) - low) / (high - low)).clamp(0, 1)
        for m in (target_BCGG, prediction_BCGG)
    ]
    return maps[0].float(), maps[1].float()


def covered(pixels_3SS: Tensor, mask_GG: Tensor, stride: int) -> Tensor:
    """The image [S, S, 3] with the cells outside the mask in grey."""
    shown = mask_GG.repeat_interleave(stride, 0).repeat_interleave(stride, 1)[..., None]
    return torch.where(shown, pixels_3SS.permute(1, 2, 0), HIDDEN)


def draw_masks() -> Any:
    """Draw the context of a few images for every masking strategy, and how often a cell is a target."""
    samples = len(STEPS)
    figure, axes = plt.subplots(
        len(STRATEGIES), samples + 1, figsize=(8.6, 1.75 * len(STRATEGIES)), layout="constrained"
    )
    for row, strategy in enumerate(STRATEGIES):
        config = load_config("demo", overrides=[f"masking.strategy={strategy}"])
        pixels = drawn(config, samples)
        for column, step in enumerate(STEPS):
            masks = masks_of(config, samples, step)
            picture = covered(pixels[column], masks.context[column], config.encoder.total_stride)
            axes[row, column].imshow(picture.numpy(), interpolation="nearest")
        rate = torch.stack([masks_of(config, 64, step).target.double().mean(0) for step in range(50)]).mean(0)
        heat = axes[row, -1].imshow(rate.numpy(), cmap="viridis", vmin=0, vmax=1)
        axes[row, 0].set_ylabel(strategy)
    axes[0, -1].set_title("how often a cell\nis a target", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.colorbar(heat, ax=axes[:, -1], shrink=0.6)
    return figure


def masks_of(config: PretrainConfig, samples: int, step: int) -> Masks:
    """Masks of one step's batch."""
    return sample_masks(config.method.masking, config.grid, torch.arange(samples), config.runtime.seed, step)  # type: ignore[union-attr]


def draw_packing() -> Any:
    """Draw how the visible cells of a feature map are packed, and the halo that a 3x3 kernel reads."""
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1]], dtype=torch.bool)
    figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axis.set(xlim=(-0.3, 11.5), ylim=(4.9, -0.9), aspect="equal")
    axis.axis("off")
    number = 0
    for row in range(4):
        for column in range(4):
            visible = bool(mask[row, column])
            cell(axis, column, row, visible, str(number) if visible else "")
            if visible:
                cell(axis, 5.4 + 1.5 * (number % 4), 0.6 + 1.7 * (number // 4), True, str(number))
                number += 1
    rim = {"fill": False, "edgecolor": ORANGE, "linewidth": 2, "linestyle": "--"}
    axis.add_patch(Rectangle((1 - 0.2, 1 - 0.2), 1.4, 1.4, **rim))
    axis.add_patch(Rectangle((5.4 + 1.5 * 2 - 0.2, 0.6 - 0.2), 1.4, 1.4, **rim))
    axis.text(2, -0.35, "one image, 4x4 cells", ha="center")
    axis.text(8.2, -0.35, "visible cells packed: [n, C, p, p]", ha="center")
    axis.text(
        8.2, 4.5, "dashed: the halo of cell 2, gathered from visible neighbours,\nzero where the neighbour is hidden",
        ha="center", color=ORANGE, fontsize=9,
    )  # fmt: skip
    return figure


def cell(axis: Any, x: float, y: float, visible: bool, text: str) -> None:
    """Draw one cell with its upper left corner at (x, y)."""
    axis.add_patch(Rectangle((x, y), 1, 1, facecolor=BLUE if visible else "#e6e6e6", edgecolor="white", linewidth=1.5))
    axis.text(x + 0.5, y + 0.5, text, ha="center", va="center", color="white")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path in main(Path(sys.argv[1])):
        print(f"wrote {path}", file=sys.stderr)
