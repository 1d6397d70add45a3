"""The tables of docs/reproduction.md and docs/labels.md that come from results/. `make docs` writes them between their
markers.

A table stands between `<!-- results: NAME -->` and `<!-- end of results -->`; NAME is a key of `TABLES`.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from cnnjepa.ablations.published import published_time_shares
from cnnjepa.ablations.report.claims import Answered, answered, expectation
from cnnjepa.ablations.report.comparison import METRICS, Comparison, compare
from cnnjepa.ablations.report.label_free import FIGURES, label_free_agreements
from cnnjepa.ablations.report.phrases import interval, signed
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.report.statistics import mean_ratio
from cnnjepa.ablations.step_cost_file import REFERENCE, StepCostFile, read_step_costs, step_cost_path
from cnnjepa.ablations.study_folder import StudyFolder

ROOT = Path(__file__).parent.parent / "results" / "photos"
CLAIMED = ("photos_masking", "photos_depth", "photos_depth_beyond", "photos_kernel", "photos_conv")
_NINE = "photos5000-equal-images"
LABEL_FREE = ("photos5000-label-free", "photos5000-equal-images")
NAMES = {
    "cnnjepa": "CNN-JEPA", "lejepa": "LeJEPA", "supervised": "supervised", "vicreg": "VICReg", "simclr": "SimCLR",
    "spark": "SparK", "byol": "BYOL", "random_init": "untrained", "ijepa": "I-JEPA (transformer)",
}  # fmt: skip


@cache
def _held_out(study: str) -> Comparison:
    data = read_study(StudyFolder(ROOT, study))
    return compare(data, data.datasets[0], "held_out")


@cache
def _costs() -> StepCostFile:
    return read_step_costs(step_cost_path(ROOT))


def claims() -> str:
    """The paper's claims with what was found here, one row per claim."""
    rows = []
    for comparison in map(_held_out, CLAIMED):
        found = answered(comparison)
        for claim in comparison.study.study.claims:
            rows.append(_claim([one for one in found if one.claim is claim]))
    head = ("the paper's claim", "its differences", "test", *(f"here, {name}" for name in METRICS.values()), "n")
    return _table((*head, "resolution", "answer here"), rows)


def _claim(found: list[Answered]) -> list[str]:
    claim = found[0].claim
    theirs = ", ".join(_points(one.published) for one in found)
    here = [f"{signed(d.mean)} {interval(d.low, d.high, True)}" for d in (one.difference for one in found)]
    resolved = ", ".join("–" if one.resolved is None else f"{one.resolved:.1f}" for one in found)
    answers = [f"**{one.answer}**" if one.answer == "holds" else one.answer for one in found]
    each = [f"{METRICS[one.metric].removesuffix(' top-1')}: {said}" for one, said in zip(found, answers, strict=True)]
    answer = answers[0] if len(set(answers)) == 1 else "; ".join(each)
    n = ", ".join(dict.fromkeys(str(one.difference.n) for one in found))
    return [claim.says.rstrip("."), theirs, expectation(claim), *here, n, resolved, answer]


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "−")


def step_claims() -> str:
    """The paper's claims about the cost of a training step, with what was measured here."""
    rows = []
    for method, published in published_time_shares().items():
        if method in _costs().methods:
            share, low, high = mean_ratio(_costs().shares(method))
            assert low is not None and high is not None  # several rounds were timed
            answer = "**holds**" if high < 1 else "does not hold" if low > 1 else "inconclusive"
            rounds = str(len(_costs().methods[method].seconds))
            here = f"{share:.2f} {interval(low, high)}"
            rows.append([f"cheaper than {NAMES[method]}'s", f"{published:.2f} (hours)", here, rounds, answer])
    return _table(("the paper's claim about a step of CNN-JEPA", "its ratio", "here, time ratio", "n", "answer"), rows)


def methods() -> str:
    """Accuracy of every method, the highest linear figure first, and the relative cost of a step."""
    rows = []
    for row in sorted(_held_out(_NINE).rows, key=lambda row: -row.estimates["linear_top1"].mean):
        linear, knn = (row.estimates[metric] for metric in METRICS)
        method, share = row.arm.label, ""
        if method in _costs().methods and method != REFERENCE:
            ratio, low, high = mean_ratio(_costs().shares(method))
            share = f"{ratio:.2f} {interval(low, high)}"
        accuracies = [f"{one.mean:.1f} ± {one.sd:.1f}" for one in (linear, knn)]
        rows.append([NAMES[method], *accuracies, str(len(row.counted)), share])
    return _table(("", *METRICS.values(), "n", "time per step, CNN-JEPA / method"), rows)


def label_free() -> str:
    """Agreement of the figures without labels with both probes, per study."""
    rows = []
    for name in LABEL_FREE:
        data = read_study(StudyFolder(ROOT, name))
        found = label_free_agreements(data, data.datasets[0])
        for figure in FIGURES:
            of_figure = {one.metric: one for one in found if one.figure == figure}
            if not of_figure:
                continue
            taus = [f"{signed(one.tau)} {interval(one.low, one.high, True)}" for one in of_figure.values()]
            first = next(iter(of_figure.values()))
            counts = [str(first.trials), str(first.arms), str(first.left_out)]
            rows.append([f"`{name}`", figure.label, *taus, *counts])
    return _table(("study", "figure", *(f"τ with {name}" for name in METRICS.values()), "n", "arms", "left out"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "claims": claims, "step claims": step_claims, "methods": methods, "label free": label_free,
}  # fmt: skip
_PLACE = re.compile(r"(<!-- results: (?P<name>[^>]+?) -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return the page with every table between markers made again. Raises KeyError for an unknown table."""
    return _PLACE.sub(lambda found: found[1] + TABLES[found["name"]](), text)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
