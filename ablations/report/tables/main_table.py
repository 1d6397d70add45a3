"""The main table: method x encoder x data set, over all studies, and the published table in full next to it.

The row of a method, encoder and data set is the study's baseline arm, or an arm that differs from it only in these.
Each study's best arm would be the luckiest of many, so it is not used.
"""

from collections.abc import Sequence

from cnnjepa.ablations.report.comparison import Comparison, Row
from cnnjepa.ablations.report.phrases import PROTOCOL_MEANING, SINGLE
from cnnjepa.ablations.report.published_rows import (
    DATASET_NAMES,
    ENCODER_PARAMS,
    MatchedRow,
    PublishedRow,
    PublishedTable,
    matched_rows,
    published_tables,
)
from cnnjepa.ablations.report.tables.accuracy_table import TOP5, estimate_cell, published_cells, runs_cell, tells_top5
from cnnjepa.ablations.report.tables.cost_table import cost_cells, cost_columns
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number_cell, text_cell
from cnnjepa.ablations.study_folder import TrialKey
from cnnjepa.names import file_names
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.numbers import quantity
from cnnjepa.schemas.overrides import flat
from cnnjepa.schemas.probe import Protocol

_ESTIMATE = ("mean", "sd", "low", "high", "interval")
_ACCURACIES = {
    "linear_top1": "linear top-1", "linear_top5": "linear top-5", "knn_top1": "k-NN top-1", "knn_top5": "k-NN top-5",
}  # fmt: skip
_STANDS_FOR = ("encoder.", "data.", "method.name")


def main_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Return one table per data set and protocol. Linear and k-NN of a row come from the same runs."""
    places = dict.fromkeys((c.dataset, c.protocol) for c in comparisons if not c.empty)
    names = file_names(dict.fromkeys(dataset for dataset, _ in places))
    tables = []
    for dataset, protocol in places:
        here = [c for c in comparisons if (c.dataset, c.protocol) == (dataset, protocol)]
        rows = list({_runs(row): (c, row) for c in reversed(here) for row in _main_rows(c)}.values())[::-1]
        if rows:
            tables.append(_table(names[dataset], dataset, protocol, rows))
    return tables


def _runs(row: Row) -> tuple[TrialKey, ...]:
    return tuple(sorted(trial.record.key for trial in row.counted.values()))


def _main_rows(comparison: Comparison) -> list[Row]:
    base = next((arm for arm in comparison.study.arms if arm.baseline), None)
    if base is None:
        return []
    return [row for row in comparison.rows if row.counted and _stands_for_itself(row.arm.config, base.config)]


def _stands_for_itself(config: PretrainConfig, base: PretrainConfig) -> bool:
    ours, theirs = (flat(one.model_dump(mode="json", exclude={"runtime": {"seed"}})) for one in (config, base))
    different = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
    if "method.name" in different:
        return True
    return all(path.startswith(_STANDS_FOR) for path in different)


def _table(name: str, dataset: str, protocol: Protocol, rows: list[tuple[Comparison, Row]]) -> Table:
    shown = [key for key in _ACCURACIES if key not in TOP5 or tells_top5(row for _, row in rows)]
    columns = [
        Column("method", "method", numeric=False),
        Column("encoder", "encoder", numeric=False),
        Column("study", "study, arm", numeric=False),
        Column("n", "n"),
        *[
            Column(key, f"{label}, %", _ESTIMATE)
            for key, label in _ACCURACIES.items()
            if key in shown
        ],
    ]  # fmt: skip
    sets = [comparison.published_set for comparison, _ in rows if protocol == "published"]
    published_on = next((name for name in sets if name), None)
    if published_on:
        columns += [
            Column(f"{key}_{ending}", f"{label} {header}")
            for key, label in (("linear_top1", "linear"), ("knn_top1", "k-NN"))
            for ending, header in (("published", "published"), ("minus_published", "ours − published"))
        ]
    columns += [
        *cost_columns(latex=False),
        Column("runs", "runs (seed:hash)", numeric=False, latex=False),
    ]
    notes = [
        "One row per method, encoder and study: the study's baseline arm and the arms that differ from it only in "
        "method, encoder or images. A study's best arm is not used, because the best of many is also the luckiest. ± "
        "is the standard deviation over seeds; the 95 % interval is below it. Parameters and FLOPs are computed; the "
        "other costs are measured on the hardware of each run.",
    ]
    if any(e.kind == "wilson" for _, row in rows for e in row.estimates.values()):
        notes.append(f"{SINGLE} One seed.")
    if published_on:
        notes.append(
            f"Published: the paper's main table and the authors' log on {DATASET_NAMES[published_on]}, by method and "
            "encoder. A * marks other settings: the difference does not compare like with like."
        )
    caption = f"Methods and encoders on {dataset}, protocol {protocol} ({PROTOCOL_MEANING[protocol]})"
    return Table(
        f"main_{name}_{protocol}",
        caption,
        tuple(columns),
        tuple(_row(*pair, shown, published_on) for pair in rows),
        tuple(notes),
    )


def _row(comparison: Comparison, row: Row, shown: list[str], published_on: str | None) -> tuple[Cell, ...]:
    result = next(trial.result for trial in row.counted.values() if trial.result)
    runs = tuple(trial.page for trial in row.counted.values())
    return (
        text_cell(result.method),
        text_cell(result.encoder),
        text_cell(f"{comparison.study.name}, {row.arm.label}"),
        Cell(str(len(row.counted)), {"": len(row.counted)}, len(row.counted)),
        *[estimate_cell(row.estimates.get(key), runs, row.values.get(key)) for key in shown],
        *(_published_cells(comparison, row, published_on) if published_on else []),
        *cost_cells(row.counted.values()),
        runs_cell(row),
    )


def _published_cells(comparison: Comparison, row: Row, published_on: str) -> list[Cell]:
    if comparison.published_set != published_on:  # other images in a folder of the same name
        return [Cell("–")] * 4
    rows = tuple(published for _, published in _main_rows_published(published_on))
    table = PublishedTable(source="paper", rows=rows)
    found: MatchedRow | None = matched_rows(table, {row.arm.label: row.arm.config}, published_on).get(row.arm.label)
    return [cell for metric in ("linear_top1", "knn_top1") for cell in published_cells(found, row, metric)]


def _main_rows_published(dataset: str) -> list[tuple[str, PublishedRow]]:
    """Return (table, row) of the paper's main table and of the authors' log, on one data set."""
    tables = published_tables()
    log = [row.model_copy(update={"arm": {"method": "cnnjepa", **row.arm}}) for row in tables["main_authors_log"].rows]
    rows = [("paper", row) for row in tables["main"].rows] + [("authors' log", row) for row in log]
    return [(source, row) for source, row in rows if row.dataset == dataset]


def published_table(dataset: str) -> Table:
    """Return the paper's main table for one data set, with the encoders that only the authors' log has."""
    tables, rows = published_tables(), _main_rows_published(dataset)
    return Table(
        f"published_{dataset}",
        f"Published on {DATASET_NAMES[dataset]}, protocol published; one seed each, without intervals",
        (
            Column("method", "method", numeric=False),
            Column("encoder", "encoder", numeric=False),
            Column("linear_top1", "linear top-1, %"),
            Column("knn_top1", "k-NN top-1, %"),
            Column("gpu_hours", "A100-hours"),
            Column("encoder_params", "encoder parameters"),
            Column("source", "source", numeric=False, latex=False),
            Column("note", "note", numeric=False, latex=False),
        ),
        tuple(
            (
                text_cell(str(row.arm["method"])),
                text_cell(row.encoder),
                number_cell(row.linear_top1, 2),
                number_cell(row.knn_top1, 2),
                number_cell(row.gpu_hours, 2),
                Cell(
                    quantity(ENCODER_PARAMS[row.encoder]),
                    {"": ENCODER_PARAMS[row.encoder]},
                    ENCODER_PARAMS[row.encoder],
                ),
                text_cell(source),
                Cell(row.note or "–", {"": row.note}, row.note or None, "quiet"),
            )
            for source, row in rows
        ),
        (
            f"Source: {tables['main'].source_in_words}; and {tables['main_authors_log'].source_in_words}. Parameters "
            "are the networks' known counts without a classifier, not from the paper.",
        ),
    )
