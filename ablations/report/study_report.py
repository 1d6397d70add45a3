"""Statistics, tables and pictures of one study, made once for all reports that show them."""

from dataclasses import dataclass, field

from cnnjepa.ablations.report.comparison import Comparison, compare
from cnnjepa.ablations.report.figures import accuracy_along_axis, accuracy_by_arm, cost, curves, features, masks
from cnnjepa.ablations.report.figures.style import Picture
from cnnjepa.ablations.report.label_free import label_free_agreements
from cnnjepa.ablations.report.reading import PROTOCOLS, Curves, ReportedTrial, StudyData, below_root
from cnnjepa.ablations.report.summary import Sentence, study_summary
from cnnjepa.ablations.report.tables.accuracy_table import accuracy_table
from cnnjepa.ablations.report.tables.agreement_table import agreement_table
from cnnjepa.ablations.report.tables.claims_table import claims_table
from cnnjepa.ablations.report.tables.cost_table import cost_table
from cnnjepa.ablations.report.tables.diagnostics_table import diagnostics_table
from cnnjepa.ablations.report.tables.metrics_table import metrics_table
from cnnjepa.ablations.report.tables.table import Table
from cnnjepa.ablations.study_folder import TrialKey
from cnnjepa.names import file_names
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.numbers import counted
from cnnjepa.schemas.probe import Protocol


@dataclass
class StudyReport:
    """A study with its statistics, tables and pictures."""

    study: StudyData
    comparisons: list[Comparison]
    """Held-out protocol first. Comparisons without any figure are absent."""
    sentences: list[Sentence]
    tables: list[Table]
    """All tables but the table of runs, which names the run folders relative to the report's folder."""
    curves: dict[TrialKey, Curves]
    pictures: list[Picture] = field(default_factory=list)
    gallery: Picture | None = None
    """Images of the data set, kept apart from the other pictures because of their licence."""
    gallery_is_free: bool = False
    """True if anyone may have the gallery's images: synthetic ones."""
    remarks: list[str] = field(default_factory=list)
    """One sentence per omitted part, with the reason."""


def study_report(study: StudyData, chosen: ReportedTrial | None) -> StudyReport:
    """Return everything but the page. `chosen` is the trial whose features are drawn; None if there is no such
    trial."""
    found = [compare(study, dataset, protocol) for dataset in study.datasets for protocol in PROTOCOLS]
    comparisons = [comparison for comparison in found if not comparison.empty]
    judged = one_a_place(comparisons, "held_out")
    claims = claims_table(judged, file_name(study, "claims"), f"{study.name}: claims and their results")
    tables = [claims] if claims else []
    tables += [accuracy_table(c, file_name(study, "accuracy", c.protocol, dataset=c.dataset)) for c in comparisons]
    tables += [
        table
        for dataset in study.datasets
        if (table := cost_table(study, dataset, file_name(study, "cost", dataset=dataset)))
    ]
    tables += [
        table
        for dataset in study.datasets
        if (table := metrics_table(study, dataset, file_name(study, "metrics", dataset=dataset)))
    ]
    tables += [table for table in [diagnostics_table(study, file_name(study, "diagnostics"))] if table]
    agreeing = {dataset: label_free_agreements(study, dataset) for dataset in study.datasets}
    tables += [
        table
        for dataset, agreements in agreeing.items()
        if (table := agreement_table(agreements, study.name, dataset, file_name(study, "label_free", dataset=dataset)))
    ]
    logs = {trial.record.key: trial.curves for trial in study.trials}
    made = StudyReport(study, comparisons, study_summary(study, found, agreeing), tables, logs)
    if not comparisons:
        unlabelled = any(trial.result and trial.result.probes is None for trial in study.trials)
        made.remarks.append(
            "The images have no labels, so there are no accuracies; arms are shown by diagnostics of their features."
            if unlabelled
            else "No trial has finished yet, so there are no accuracies and no costs."
        )
    _draw(made)
    _draw_features(made, chosen)
    return made


def file_name(study: StudyData, what: str, *parts: str, dataset: str | None = None) -> str:
    """Return a name such as `predictor_accuracy_held_out`. The data set follows `what` if the study has several."""
    images = [file_names(study.datasets)[dataset]] if dataset is not None and len(study.datasets) > 1 else []
    return "_".join([study.name, what, *images, *parts])


def _draw(made: StudyReport) -> None:
    study = made.study
    drawn: list[Picture | None] = []
    for comparison in made.comparisons:
        place = {"dataset": comparison.dataset}
        drawn.append(accuracy_by_arm.draw_arms(comparison, file_name(study, "arms", comparison.protocol, **place)))
        for axis, short in accuracy_along_axis.short_names(comparison).items():
            picture = accuracy_along_axis.draw_axis(
                comparison, axis, file_name(study, f"along_{short}", comparison.protocol, **place)
            )
            if picture is None:
                made.remarks.append(
                    f"No figure along {axis} ({comparison.protocol}): fewer than two values have finished, or there "
                    "are more lines than can be distinguished."
                )
            drawn.append(picture)
    if made.comparisons:
        drawn.append(cost.draw_cost(one_a_place(made.comparisons, "published"), file_name(study, "cost_accuracy")))
    drawn.append(curves.draw_curves(study, made.curves, file_name(study, "curves")))
    if masks.maskings(study):
        drawn.append(masks.draw_masks(study, file_name(study, "masks")))
    made.pictures += [picture for picture in drawn if picture]
    problems = {t.short: made.curves[t.record.key].problem for t in study.trials if t.status.state != "waiting"}
    damaged = [(run, problem) for run, problem in problems.items() if problem]
    if damaged:
        what = "; ".join(f"{run}: {problem}" for run, problem in damaged[:5])
        made.remarks.append(f"Curves with gaps, {counted(len(damaged), 'trial')}: {what}.")


def one_a_place(comparisons: list[Comparison], protocol: Protocol) -> list[Comparison]:
    """Return one comparison per study and data set: under `protocol` where it was probed, else under the other one.
    Verdicts use `held_out`; comparisons with the published numbers use `published`."""
    by_place: dict[tuple[str, str], Comparison] = {}
    for comparison in comparisons:
        place = comparison.study.name, comparison.dataset
        if place not in by_place or comparison.protocol == protocol:
            by_place[place] = comparison
    return list(by_place.values())


def best_trial(study: StudyData) -> ReportedTrial | None:
    """Return the finished trial on the first data set with the highest linear accuracy on the held-out tenth of the
    training set, which is independent of the validation set. If some trials lack it, the highest validation accuracy
    decides."""
    finished = [trial for trial in study.trials if trial.result and trial.record.dataset == study.datasets[0]]
    selections = [trial.result.first_set.selection for trial in finished if trial.result]
    chosen_on = [selection.linear_top1 for selection in selections if selection]
    if finished and len(chosen_on) == len(finished):
        return finished[chosen_on.index(max(chosen_on))]
    for protocol in PROTOCOLS:
        ranked = [(figures.linear_top1 or 0.0, trial) for trial in finished if (figures := trial.figures(protocol))]
        if ranked:
            return max(ranked, key=lambda pair: pair[0])[1]
    return None


def _draw_features(made: StudyReport, chosen: ReportedTrial | None) -> None:
    if chosen is None:
        made.remarks.append("No map of features and no gallery: no trial has finished.")
        return
    label = f"{chosen.record.arm}, seed {chosen.record.seed} ({chosen.short})"
    if not chosen.folder.is_dir():
        made.remarks.append(f"No map of features and no gallery of {label}: the study was archived without weights.")
        return
    try:
        seen = features.see(chosen.folder, chosen.record.config)
    except (ConfigError, RuntimeError, OSError) as error:  # torch raises RuntimeError for weights of another shape
        why = below_root(str(error), chosen.folder.parents[2])
        made.remarks.append(f"No map of features and no gallery of {label}: {why}")
        return
    drawn = features.draw_map(seen, label, file_name(made.study, "features"))
    made.gallery = features.draw_gallery(seen, label, file_name(made.study, "neighbours"))
    made.gallery_is_free = chosen.record.config.data.DRAWN
    if drawn:
        made.pictures.append(drawn)
    if drawn is None or made.gallery is None:
        made.remarks.append(f"No map of features or no gallery of {label}: too few validation images.")
    if made.gallery and not made.gallery_is_free:
        made.remarks.append(
            f"The gallery of nearest neighbours of {label} holds images of {chosen.record.dataset}, whose terms may "
            f"forbid redistribution: it is the file gallery/{made.gallery.name}.png, and not part of this page."
        )
