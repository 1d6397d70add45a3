"""Results of a search: its trials as a table, the best settings as a preset file, importances and history."""

import csv
import io
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.escape import csv_value
from cnnjepa.ablations.search.objective import objective_of
from cnnjepa.ablations.search.points import changes_of
from cnnjepa.ablations.search.storage import HASH, HOW, PROBE, REPEATED, choices_of
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.commands import command
from cnnjepa.matplotlib_cache import ensure_matplotlib_cache
from cnnjepa.schemas.overrides import full_paths, merge, nested
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.yaml_text import write_yaml
from cnnjepa.storage.atomic_files import write_atomically

# PED-ANOVA compares the best tenth of the completed trials with all of them. With fewer trials than this, that tenth is
# a single trial.
_LEAST_FOR_IMPORTANCES = 20


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that reached their end, best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    return sorted(trials, key=lambda trial: (sign * float(trial.value or 0.0), trial.number))


def importances(study: optuna.Study) -> dict[str, float] | None:
    """Return setting (full config path, or named arms' name) → fraction of importance (PED-ANOVA, arXiv 2304.10255),
    largest first. Return None if there are too few trials."""
    trials = completed(study)
    if importances_need(study) or len({trial.value for trial in trials}) == 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(optuna.importance.get_param_importances(study))


def importances_need(study: optuna.Study) -> int:
    """Return how many more trials must reach their end before importances are meaningful. Pruned trials do not
    count."""
    return max(0, _LEAST_FOR_IMPORTANCES - len(completed(study)))


def write_best(study: optuna.Study, space: SearchSpace, folder: Path, data: Path | None = None) -> Path | None:
    """Write `best.yaml`, which `cnnjepa train --config` reads. Return None before the first completed trial. `data` is
    the path of the images that the search was given; the command in the file names it."""
    trials = completed(study)
    if not trials:
        return None
    best, images, objective = trials[0], [] if data is None else ["--data", data], objective_of(space)
    tree: dict[str, Any] = {"extends": space.preset}
    base = full_paths(space.set, "set:")
    for setting, value in {**base, **changes_of(choices_of(best.params, space), space)}.items():
        tree = merge(tree, nested(setting, value))
    head = [
        f"# The best of {len(trials)} completed trials of the search {space.name} (trial {best.number}).",
        f"# {objective.label} on {objective.images}: {objective.text(float(best.value or 0.0))}, one seed.",
        "# Chosen as the best of many, so the figure is optimistic."
        + ("" if objective.images.startswith("validation") else " Validation images were not used."),
        f"# Run: {str(best.user_attrs.get(HASH, 'unknown'))[:12]}",
        f"# Use: {command('cnnjepa', 'train', '--config', folder / 'best.yaml', *images)}",
    ]
    text = "\n".join(head) + "\n" + write_yaml(tree)
    path = folder / "best.yaml"
    write_atomically(path, text.encode())
    return path


def write_trials(study: optuna.Study, space: SearchSpace, folder: StudyFolder) -> Path:
    """Write `trials.csv`, with one row per ended trial: how it ended, its settings, the figure of every intermediate
    probe, both final accuracies (top-1 in percent, held-out training images), the objective if it is another figure,
    and the run's folder in the pool."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and trial.params]
    trials = [trial for trial in ended if trial.user_attrs.get(HOW) != REPEATED]
    epochs = sorted({epoch for trial in trials for epoch in trial.intermediate_values})
    figures, pool, objective = ("linear_top1", "knn_top1"), Pool(folder.root), objective_of(space)
    further = [] if space.objective in ("knn", "linear") else [objective.label]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    looked = (csv_value(f"{objective.online_label} epoch {epoch}") for epoch in epochs)
    table.writerow(["trial", "ended", *map(csv_value, space.space), *looked, *figures, *map(csv_value, further), "run"])
    for trial in trials:
        choices, looks = choices_of(trial.params, space), trial.intermediate_values
        how, run = (trial.user_attrs.get(name, "") for name in (HOW, HASH))
        probed_as = trial.user_attrs.get(PROBE)  # absent in searches of earlier versions
        result = pool.folder(run).read_result(probed_as) if run and trial.state == TrialState.COMPLETE else None
        selection = None if result is None else result.first_set.selection
        found = {} if selection is None else selection.model_dump()
        settings = (csv_value(choices.get(key, "")) for key in space.space)
        at_end = [found.get(name, "") for name in figures]
        at_end += [trial.value if trial.state == TrialState.COMPLETE else ""] if further else []
        table.writerow([trial.number, how or "lost", *settings, *(looks.get(e, "") for e in epochs), *at_end, run])
    path = folder.path / "trials.csv"
    write_atomically(path, text.getvalue().encode())
    return path


def draw(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw `history.png` and, with enough trials, `importances.png`."""
    ensure_matplotlib_cache()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as pictures

    from cnnjepa.ablations.report.figures.text import FONTS, figure_text

    drawn = []
    # Optuna changes the style permanently. Names of arms are not formulas.
    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False, "font.family": FONTS}):
        warnings.simplefilter("ignore")  # Optuna marks these pictures as experimental
        plots: dict[str, Any] = {"history": pictures.plot_optimization_history}
        if importances(study):
            plots["importances"] = pictures.plot_param_importances
        for name, plot in plots.items():
            if not completed(study):
                continue
            axes = plot(study)
            axes.set_title(f"{study.study_name}: {name}")
            if name == "importances":
                axes.set_yticks(axes.get_yticks(), [figure_text(label.get_text()) for label in axes.get_yticklabels()])
            axes.figure.set_size_inches(8, 4.5)
            axes.figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
            plt.close(axes.figure)
            drawn.append(folder / f"{name}.png")
    return drawn
