"""Loss, k-NN and RankMe during training, or the figures that need no labels: one colour per arm and one thin line per
seed."""

import math

from cnnjepa.ablations.report.figures.style import PALETTE, Picture, canvas, picture
from cnnjepa.ablations.report.figures.text import figure_text, legend_columns
from cnnjepa.ablations.report.reading import ArmTrials, Curves, StudyData
from cnnjepa.ablations.study_folder import TrialKey

_DASHES = ("-", "--", "-.", ":")
_PANELS = (
    ("train", "loss", "loss"),
    ("probe", "knn_top1", "k-NN top-1 on held-out training images, %"),
    ("probe", "rankme", "RankMe"),
)
_WITHOUT_LABELS = (
    ("train", "loss", "loss"),
    ("probe", "heldout_loss", "loss on validation images"),
    ("probe", "rankme", "RankMe"),
    ("probe", "lidar", "LiDAR"),
    ("probe", "alpha_req", "α-ReQ"),
)
_MOST_IN_A_ROW = 3
_MOST_ARMS = 6


def draw_curves(study: StudyData, curves: dict[TrialKey, Curves], name: str) -> Picture | None:
    """Draw the baseline and the first arms after it. Return None if nothing was logged."""
    arms = sorted(study.arms, key=lambda arm: not arm.baseline)[:_MOST_ARMS]
    arms = [arm for arm in study.arms if arm in arms]
    labelled = any(_points(curves, arm, "probe", "knn_top1") for arm in arms)
    known = _PANELS if labelled else _WITHOUT_LABELS
    panels = [panel for panel in known if any(_points(curves, arm, *panel[:2]) for arm in arms)]
    if not panels:
        return None
    columns = min(len(panels), _MOST_IN_A_ROW)
    rows = math.ceil(len(panels) / columns)
    width = 4.2 * columns + 0.3
    with canvas(width, 3.6 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for spare in axes[len(panels) :]:
            spare.set_axis_off()
        axes = axes[: len(panels)]
        for axis, (kind, figure_name, label) in zip(axes, panels, strict=True):
            for number, arm in enumerate(arms):
                for place, (epochs, values) in enumerate(_points(curves, arm, kind, figure_name)):
                    axis.plot(
                        epochs, values, color=PALETTE[number], linestyle=_DASHES[number % len(_DASHES)], linewidth=1,
                        alpha=0.85, marker="." if len(values) < 25 else "", markersize=5,
                        label=figure_text(arm.label) if place == 0 else None,
                    )  # fmt: skip
            axis.set(title=label, xlabel="epoch")
            axis.set_xlim(left=0, right=1.03 * max(arm.config.runtime.epochs for arm in arms))
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=legend_columns(names, width))
        left_out = len(study.arms) - len(arms)
        more = f" Shown are the baseline and the first arms; the page has {left_out} more." if left_out else ""
        return picture(figure, name, f"Training curves, one line per seed.{more}")


def _points(
    curves: dict[TrialKey, Curves], arm: ArmTrials, kind: str, name: str
) -> list[tuple[list[float | None], list[float | None]]]:
    found = []
    for trial in arm.trials:
        columns = getattr(curves.get(trial.record.key), kind, {})
        if any(value is not None for value in columns.get(name, [])):
            found.append((columns["epoch"], columns[name]))
    return found
