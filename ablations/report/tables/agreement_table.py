"""The table of figures that need no labels, compared with the probes."""

from cnnjepa.ablations.report.comparison import METRICS
from cnnjepa.ablations.report.label_free import FIGURES, FigureAgreement, Reading, reading
from cnnjepa.ablations.report.phrases import interval, signed
from cnnjepa.ablations.report.statistics import LEAST_FOR_BOOTSTRAP
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, text_cell

_BETTER = {"alpha_req": "near 1", "heldout_loss": "low"}
_SHORT = {"linear_top1": "linear", "knn_top1": "k-NN"}
_WORDS: dict[Reading, str] = {
    "trusted": "can be trusted here",
    "tendency": "a tendency only",
    "not shown": "no agreement shown",
    "reversed": "orders in reverse",
    "too few arms": "too few arms",
    "all equal": "all values are equal",
}


def agreement_table(found: list[FigureAgreement], study: str, dataset: str, name: str) -> Table | None:
    """Return a table with one row per figure: Kendall's τ with both accuracies, and whether the figure can be trusted;
    None without agreements."""
    if not found:
        return None
    columns = [Column("figure", "figure", numeric=False), Column("better", "better is", numeric=False)]
    for metric, short in _SHORT.items():
        columns += [
            Column(f"{metric}_tau", f"τ with {short}", ("", "low", "high")),
            Column(f"{metric}_reading", f"in place of {short}", numeric=False),
        ]
    columns += [Column("trials", "trials"), Column("arms", "arms"), Column("left_out", "left out")]
    notes = (
        "Kendall's τ-b over all finished trials that have the figure and the accuracy: 1 means the same order, −1 the "
        "reverse, and a figure picks the better of two trials in (1 + τ)/2 of all pairs. The 95 % interval comes from "
        f"drawing whole arms with replacement, from {LEAST_FOR_BOOTSTRAP} arms on. “Can be trusted here”: the whole "
        "interval is above ½; “a tendency only”: above 0. Left out: trials of earlier versions without the figure.",
        "Losses of different methods, masks or views are not comparable; their order means little where a study varies "
        "these.",
    )
    title = f"{study}: agreement of figures without labels with the probes, on {dataset}"
    rows = tuple(row for figure in FIGURES if (row := _row([one for one in found if one.figure == figure])))
    return Table(name, title, tuple(columns), rows, notes)


def _row(of_figure: list[FigureAgreement]) -> tuple[Cell, ...] | None:
    if not of_figure:
        return None
    first = of_figure[0]
    cells = [text_cell(first.figure.label), text_cell(_BETTER.get(first.figure.key, "high"))]
    for one in of_figure:
        said = _WORDS[reading(one)]
        values = {"": one.tau, "low": one.low, "high": one.high}
        between = interval(one.low, one.high, True) if one.low is not None else ""
        cells += [Cell(signed(one.tau), values, one.tau, below=between), Cell(said, {"": said}, said)]
    return (*cells, *(Cell(str(count), {"": count}, count) for count in (first.trials, first.arms, first.left_out)))


def agreement_sentences(found: list[FigureAgreement], dataset: str) -> list[str]:
    """Return one sentence per accuracy: which figures can be trusted in its place on this study, and which cannot."""
    said = []
    for metric, label in METRICS.items():
        ours = [one for one in found if one.metric == metric]
        groups: dict[Reading, list[str]] = {}
        for one in ours:
            between = f" {interval(one.low, one.high, True)}" if one.low is not None else ""
            groups.setdefault(reading(one), []).append(f"{one.figure.label} (τ = {signed(one.tau)}{between})")
        parts = [
            f"{words}: {', '.join(groups[kind])}"
            for kind, words in (
                ("trusted", "Can be trusted to order these trials"),
                ("tendency", "Agree only in tendency"),
                ("not shown", "Cannot be trusted here, because no agreement is shown"),
                ("reversed", "Cannot be trusted here, because the order is reversed"),
                ("too few arms", f"Cannot be judged with fewer than {LEAST_FOR_BOOTSTRAP} arms"),
            )
            if kind in groups
        ]
        if parts:
            trials = max(one.trials for one in ours)
            said.append(
                f"Figures without labels in the place of {label} on {dataset}, {trials} trials. {'. '.join(parts)}."
            )
    return said
