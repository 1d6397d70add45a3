"""The page's data on single trials: config against the baseline's, curves, figures with floors, machine."""

import json
import os
from pathlib import Path
from typing import Any

from cnnjepa.ablations.report.reading import Curves, ReportedTrial, StudyData
from cnnjepa.ablations.report.tables.runs_table import state_in_words
from cnnjepa.ablations.study_folder import TrialKey
from cnnjepa.schemas import TrialResult
from cnnjepa.schemas.overrides import differences, flat

_MOST_POINTS = 150  # per curve on the page; metrics.jsonl has all points


def trial_pages(studies: list[StudyData], curves: dict[TrialKey, Curves], report: Path) -> dict[str, Any]:
    """Return {"configs": study → the baseline's config, "environments": […], "trials": page → everything else}.

    A trial that several studies share has one page, with a difference from each study's baseline.
    """
    environments: dict[str, int] = {}
    trials: dict[str, dict[str, Any]] = {}
    configs = {}
    for study in studies:
        base = next((arm for arm in study.arms if arm.baseline), study.arms[0])
        configs[study.name] = _flat(base.trials[0])
        by_seed = {trial.record.seed: trial for trial in base.trials}
        for trial in study.trials:
            page = trials.setdefault(trial.page, _page(trial, curves[trial.record.key], environments, report))
            against = by_seed.get(trial.record.seed, base.trials[0])
            page["uses"].append(
                {
                    "study": study.name, "arm": trial.record.arm, "baseline": trial.record.baseline,
                    "baseline_arm": base.label, "state": state_in_words(trial), "diff": _diff(trial, against),
                }
            )  # fmt: skip
    return {"configs": configs, "environments": [json.loads(text) for text in environments], "trials": trials}


def _flat(trial: ReportedTrial) -> dict[str, str]:
    return {path: _shown(value) for path, value in flat(trial.record.config.model_dump(mode="json")).items()}


def _diff(trial: ReportedTrial, base: ReportedTrial) -> list[tuple[str, str, str]]:
    """Return (path, the trial's value, the baseline's value) as text; a dash if one of them lacks the field."""
    return differences(_flat(trial), _flat(base), absent="–")


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _page(trial: ReportedTrial, curves: Curves, environments: dict[str, int], report: Path) -> dict[str, Any]:
    result, record = trial.status.result, trial.record
    page: dict[str, Any] = {
        "page": trial.page,
        "hash": record.pretrain_hash,
        "probe_hash": record.probe_hash,
        "seed": record.seed,
        "dataset": record.dataset,
        "state": trial.status.state,
        "problem": trial.status.problem or "",
        "folder": Path(os.path.relpath(trial.folder, report)).as_posix(),
        "commit": trial.commit,
        "environment": environments.setdefault(_environment(trial), len(environments)),
        "curves": {"train": _thinned(curves.train), "probe": _thinned(curves.probe), "problem": curves.problem or ""},
        "uses": [],
    }
    if result:
        page |= _outcome(result)
    return page


def _environment(trial: ReportedTrial) -> str:
    """Return environment.json, or the copy of it in result.json, as canonical text."""
    try:
        found = json.loads((trial.folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = trial.status.result.software if trial.status.result else {}
    return json.dumps({key: str(value) for key, value in found.items()} if isinstance(found, dict) else {})


def _outcome(result: TrialResult) -> dict[str, Any]:
    dump = result.model_dump(
        mode="json",
        include={
            "method", "encoder", "epochs", "final_loss", "train_images", "val_images", "probed_encoder", "diagnostics",
            "cost", "started", "finished", "log_tail",
        },
    )  # fmt: skip
    sets = [
        {
            "name": found.name if result.probe_sets else "",
            "probes": found.probes.model_dump(mode="json"),
            "selection": found.selection.model_dump(mode="json") if found.selection else None,
            "metrics": found.metrics,
            "floors": found.floors.model_dump(mode="json"),
        }
        for found in result.by_set
    ]
    dump["start"] = ", ".join(result.start)
    return {**dump, "sets": sets, "unlabelled": result.probes is None, "skipped_images": len(result.skipped_images)}


def _thinned(columns: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Return at most `_MOST_POINTS` evenly spaced points, including the last one, rounded to the precision of a
    screen."""
    length = len(columns.get("epoch", []))
    step = max(1, -(-length // _MOST_POINTS))
    places = [place for place in range(length) if (length - 1 - place) % step == 0]
    return {
        name: [None if (value := values[place]) is None else float(f"{value:.5g}") for place in places]
        for name, values in columns.items()
    }
