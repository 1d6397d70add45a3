"""Reading of a study's folder: every arm with every seed, including missing and damaged trials."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cnnjepa.ablations.pool import Pool, TrialStatus, own_probe
from cnnjepa.ablations.study_folder import (
    StudyFolder,
    TrialKey,
    TrialRecord,
    refuse_no_studies,
    status_of,
    study_names,
)
from cnnjepa.schemas import ConfigError, PretrainConfig, ProbeFigures, TrialResult
from cnnjepa.schemas.numbers import counted
from cnnjepa.schemas.probe import Protocol
from cnnjepa.schemas.study import Study

PROBE_AGAIN = "its result belongs to other probe settings; running the study again probes it without training"
"""The problem of a trained trial that counts as begun only because its result belongs to other probe settings."""

PROTOCOLS: tuple[Protocol, ...] = ("held_out", "published")


PROBE_CURVES = ("knn_top1", "heldout_loss", "rankme", "lidar", "alpha_req")
"""Figures of online probes that are drawn."""


@dataclass
class Curves:
    """The content of metrics.jsonl as columns; None where a line lacks the figure."""

    train: dict[str, list[float | None]] = field(default_factory=dict)
    probe: dict[str, list[float | None]] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class ReportedTrial:
    """One arm with one seed, and its status."""

    record: TrialRecord
    status: TrialStatus
    folder: Path
    """Path of its run folder, which an archived trial does not have."""
    curves: Curves
    """The figures that it logged."""

    @property
    def result(self) -> TrialResult | None:
        """The trial's result if it finished. Only results of finished trials are ever averaged."""
        return self.status.result if self.status.state == "finished" else None

    @property
    def short(self) -> str:
        """The hash's first characters, which name its run in tables."""
        return self.record.pretrain_hash[:12]

    @property
    def page(self) -> str:
        """The trial's name in the page's address. Trials of one run that are probed differently have separate pages."""
        return f"{self.short}-{self.record.probe_hash[:8]}"

    @property
    def commit(self) -> str:
        """Commit of the program that trained the trial; if the result does not name it, of the program that wrote the
        result."""
        if self.status.result is None:
            return ""
        software = self.status.result.software
        return software.get("trained_at") or software.get("commit", "unknown")

    def figures(self, protocol: Protocol) -> ProbeFigures | None:
        """Return both top-1 figures of a finished trial under one protocol. Return None when either is missing, so that
        linear and k-NN of a row always come from the same trials."""
        figures: ProbeFigures | None = getattr(self.result.first_set.probes, protocol) if self.result else None
        return None if figures is None or None in (figures.linear_top1, figures.knn_top1) else figures


@dataclass(frozen=True)
class ArmTrials:
    """An arm with its trials, one per seed."""

    label: str
    baseline: bool
    choices: dict[str, Any]
    trials: tuple[ReportedTrial, ...]

    @property
    def config(self) -> PretrainConfig:
        """The config of the arm's first seed."""
        return self.trials[0].record.config

    def counted(self, protocol: Protocol) -> dict[int, ReportedTrial]:
        """Return seed → trial whose figures under this protocol enter the averages."""
        return {trial.record.seed: trial for trial in self.trials if trial.figures(protocol)}

    def in_state(self, *states: str) -> list[ReportedTrial]:
        """Return the arm's trials in these states."""
        return [trial for trial in self.trials if trial.status.state in states]


@dataclass(frozen=True)
class StudyData:
    """A study with the current status of its trials."""

    name: str
    study: Study
    arms: tuple[ArmTrials, ...]
    warnings: tuple[str, ...]
    """One warning per trial that could not be read, with its name."""

    @property
    def trials(self) -> list[ReportedTrial]:
        """All trials, arm by arm."""
        return [trial for arm in self.arms for trial in arm.trials]

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets. Arms on different data sets never share a table."""
        return list(dict.fromkeys(arm.trials[0].record.dataset for arm in self.arms))

    def on(self, dataset: str) -> list[ArmTrials]:
        """Return the arms of one data set."""
        return [arm for arm in self.arms if arm.trials[0].record.dataset == dataset]


def read_studies(root: Path, names: list[str]) -> tuple[list[StudyData], list[str]]:
    """Return (the named studies, warnings). If no study is named, return all below `root`, and one warning for each
    that cannot be read. Raises ConfigError when there is no study, or when a named one cannot be read."""
    if not names:
        refuse_no_studies(root)
    if names:
        return [read_study(StudyFolder(root, name)) for name in dict.fromkeys(names)], []
    studies, warnings = [], []
    for name in study_names(root):
        try:
            studies.append(read_study(StudyFolder(root, name)))
        except ConfigError as error:
            warnings.append(f"study {name} is left out: {below_root(str(error), root)}")
    if not studies:
        raise ConfigError(f"no study below {root / 'studies'} can be read: {'; '.join(warnings)}")
    return studies, warnings


def read_study(folder: StudyFolder) -> StudyData:
    """Return one study and the status of each of its trials. Raises ConfigError when its own files are missing or
    damaged."""
    study, records, pool = folder.study(), folder.trials(), Pool(folder.root)
    warnings, arms = [], dict[str, list[ReportedTrial]]()
    statuses: dict[TrialKey, TrialStatus] = {}
    for record in records:
        key = record.key
        if key not in statuses:
            statuses[key] = _read_status(pool, record)
            if statuses[key].state == "unreadable":
                warnings.append(f"{record.label} is left out: {below_root(statuses[key].problem or '', folder.root)}")
        curves = read_curves(_logged(pool, record), record.probe_hash)
        path = pool.folder(record.pretrain_hash).path
        arms.setdefault(record.arm, []).append(ReportedTrial(record, statuses[key], path, curves))
    return StudyData(
        folder.name,
        study,
        tuple(
            ArmTrials(label, trials[0].record.baseline, trials[0].record.choices, tuple(trials))
            for label, trials in arms.items()
        ),
        tuple(warnings),
    )


def _read_status(pool: Pool, record: TrialRecord) -> TrialStatus:
    folder = pool.folder(record.pretrain_hash).path
    try:
        status = status_of(pool, record)
    except OSError as error:
        return TrialStatus("unreadable", problem=f"{folder} cannot be read ({error.strerror or error})")
    except (KeyError, TypeError, ValueError):  # lines that are JSON but not written by training
        return TrialStatus("begun", problem=f"{folder / 'metrics.jsonl'} has lines that are not as expected")
    result = status.result
    if result and (result.pretrain_hash, result.seed) != (record.pretrain_hash, record.seed):
        path = pool.folder(record.pretrain_hash).file_of(record.probe_hash)
        return TrialStatus("unreadable", problem=f"{path} is the result of another run ({result.pretrain_hash[:12]})")
    if status.state == "begun" and pool.folder(record.pretrain_hash).judged(record.pretrain_hash):
        return replace(status, problem=PROBE_AGAIN)
    return status


def _logged(pool: Pool, record: TrialRecord) -> list[Any] | None:
    with contextlib.suppress(OSError):
        return pool.logged(*record.key)
    return None


def below_root(text: str, root: Path) -> str:
    """Return the text without the root's own path, so that a report does not depend on its place."""
    return text.replace(f"{root}/", "")


def read_curves(lines: list[Any] | None, probe_hash: str) -> Curves:
    """Return the figures logged during training, with the probes of these settings. Unreadable lines are skipped and
    counted in `problem`."""
    curves, bad = Curves(), 0
    if lines is None:
        return Curves(problem="metrics.jsonl is missing")
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "probe": []}
    for line in lines:
        if not isinstance(line, dict) or line.get("kind") not in rows:
            bad += 1
        elif own_probe(line, probe_hash):
            rows[line["kind"]].append(line)
    curves.train = {name: [_number(row.get(name)) for row in rows["train"]] for name in ("epoch", "loss", "lr")}
    probe = {name: [_number(row.get(name)) for row in rows["probe"]] for name in ("epoch", *PROBE_CURVES)}
    curves.probe = {
        name: values for name, values in probe.items() if name == "epoch" or values.count(None) < len(values)
    }
    if bad:
        curves.problem = f"{counted(bad, 'line')} of metrics.jsonl cannot be read"
    return curves


def _number(value: object) -> float | None:
    """Return a finite number or None: a gap in a curve is better than a false point."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if good else None  # type: ignore[arg-type]
