"""Positions of context and targets, for every masking that a study uses."""

from cnnjepa.ablations.report.figures.mask_samples import cell_rates, heat_map, masking_of
from cnnjepa.ablations.report.figures.style import Picture, canvas, picture
from cnnjepa.ablations.report.figures.text import figure_text
from cnnjepa.ablations.report.reading import StudyData
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.extent import as_text

_BATCHES = 50  # of 64 samples: the error of a rate is about 0.9 points, less than its colour shows
_MOST = 6


def maskings(study: StudyData) -> dict[str, PretrainConfig]:
    """Return first arm's label → config, for every masking of cells on every grid that the study uses."""
    found: dict[str, tuple[str, PretrainConfig]] = {}
    for arm in study.arms:
        masking = arm.config.method.masks
        if masking is not None and masking.DRAWS_CELLS:
            key = f"{as_text(arm.config.grid)} {masking.model_dump_json()}"
            found.setdefault(key, (arm.label, arm.config))
    return dict(found.values())


def draw_masks(study: StudyData, name: str) -> Picture:
    """Draw one column per masking: how often a cell is context, and how often target."""
    shown = dict(list(maskings(study).items())[:_MOST])
    left_out = len(maskings(study)) - len(shown)
    # The two panels of a single masking form a row; several maskings form columns.
    rows, columns = (1, 2) if len(shown) == 1 else (2, len(shown))
    with canvas(2.6 * columns + 0.6, 2.7 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
        for place, (label, config) in enumerate(shown.items()):
            context, target, _ = cell_rates(config, _BATCHES)
            strategy = masking_of(config).strategy
            head = strategy if len(shown) == 1 or strategy == label else f"{figure_text(label, 30)}\n{strategy}"
            for row, (rate, word) in enumerate(((context, "context"), (target, "target"))):
                axis = axes[place + row * len(shown)]
                axis.grid(False)
                heat_map(figure, axis, rate, f"{head if row == 0 else ''}\n{word} {float(rate.mean()):.0%}".strip())
        more = f" {left_out} more maskings are not drawn." if left_out else ""
        return picture(
            figure, name, f"How often each cell is context and target, over {64 * _BATCHES:,} samples.{more}"
        )
