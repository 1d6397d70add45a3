"""The source of every number: each trial with its seed, hashes, commit and state."""

import os
from pathlib import Path

from cnnjepa.ablations.report.label_free import FIGURES, Figure
from cnnjepa.ablations.report.reading import PROBE_AGAIN, ReportedTrial, StudyData
from cnnjepa.ablations.report.tables.metrics_table import metric_names
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number_cell, text_cell
from cnnjepa.schemas.probe import Protocol


def runs_table(study: StudyData, name: str, report: Path) -> Table:
    """Return a table with one row per trial. `report` is the folder of the report; run folders are named relative to
    it."""
    columns = [
        Column("run", "run", numeric=False),
        Column("arm", "arm", numeric=False),
        Column("seed", "seed"),
        Column("state", "state", numeric=False),
    ]
    protocols: list[Protocol] = ["held_out", "published"]
    for protocol in protocols:
        columns += [Column(f"{protocol}_linear_top1", f"linear ({protocol})", latex=False)]
        columns += [Column(f"{protocol}_knn_top1", f"k-NN ({protocol})", latex=False)]
    columns += [
        *(Column(figure.key, figure.label, latex=False) for figure in _figures(study)),
        *(Column(metric, metric, latex=False) for metric in metric_names(study)),
        Column("config_hash", "config hash", numeric=False, latex=False),
        Column("probe_hash", "probe hash", numeric=False, latex=False),
        Column("commit", "commit", numeric=False),
        Column("folder", "folder", numeric=False, latex=False),
    ]
    return Table(
        name,
        f"{study.name}: trials, in the order in which they run",
        tuple(columns),
        tuple(_row(trial, protocols, _figures(study), metric_names(study), report) for trial in _in_order(study)),
        (
            "A run is named by the beginning of its config hash; the probe hash identifies the probe settings. Only "
            "finished trials are averaged. A + after a commit marks uncommitted changes.",
        ),
    )


def _in_order(study: StudyData) -> list[ReportedTrial]:
    seeds = list(study.study.seeds)
    place = {seed: n for n, seed in enumerate(seeds)}
    return sorted(study.trials, key=lambda trial: place.get(trial.record.seed, len(seeds)))


def state_in_words(trial: ReportedTrial) -> str:
    """Return the state; for a trial in progress, also the fraction that is trained."""
    state = trial.status.state
    if trial.status.problem == PROBE_AGAIN:
        return "to be probed again"
    if state in ("begun", "running"):
        return f"{state}, {100 * trial.status.progress:.0f} % trained"
    return "not run yet" if state == "waiting" else state


def _figures(study: StudyData) -> list[Figure]:
    """Return RankMe, and the further figures without labels that some trial has."""
    found = [trial.result.diagnostics for trial in study.trials if trial.result and trial.result.diagnostics]
    newer = ("lidar", "alpha_req", "heldout_loss")
    return [
        figure
        for figure in FIGURES
        if figure.key == "rankme" or (figure.key in newer and any(figure.read(one) is not None for one in found))
    ]


def _row(
    trial: ReportedTrial, protocols: list[Protocol], figures: list[Figure], metrics: list[str], report: Path
) -> tuple[Cell, ...]:
    record, result = trial.record, trial.status.result
    state = state_in_words(trial)
    tone = "" if trial.status.state == "finished" else "bad"
    evidence = (result.diagnostics.collapse_evidence or "") if result and result.diagnostics else ""
    cells = [
        Cell(trial.short, {"": trial.short}, trial.short, runs=(trial.page,)),
        text_cell(record.arm),
        Cell(str(record.seed), {"": record.seed}, record.seed),
        Cell(state, {"": state}, state, tone, trial.status.problem or evidence),  # type: ignore[arg-type]
    ]
    for protocol in protocols:
        accuracies = trial.figures(protocol)
        cells += [
            number_cell(accuracies.linear_top1 if accuracies else None, 2),
            number_cell(accuracies.knn_top1 if accuracies else None, 2),
        ]
    health = result.diagnostics if result else None
    cells += [number_cell(figure.read(health) if health else None, figure.digits) for figure in figures]
    for metric in metrics:
        value = result.metrics.get(metric) if result else None
        cells.append(Cell("–" if value is None else f"{value:.4g}", {"": value}, value))
    folder = Path(os.path.relpath(trial.folder, report)).as_posix()
    commit = trial.commit
    cells += [
        _shortened(record.pretrain_hash, 12),
        _shortened(record.probe_hash, 8),
        _shortened(commit, 10),
        Cell(folder, {"": folder}, folder, "quiet"),
    ]
    return tuple(cells)


def _shortened(name: str, letters: int) -> Cell:
    """Return the beginning of a hash; the CSV and the tooltip have all of it. A commit keeps its + for uncommitted
    changes."""
    if not name:
        return Cell("–", {"": ""})
    return Cell(f"{name[:letters]}…{'+' if name.endswith('+') else ''}", {"": name}, name, "quiet", name)
