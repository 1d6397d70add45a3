"""A study's evidence, small enough to be committed: what a report needs, without checkpoints, images and places."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnjepa.ablations.driver import distinct
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.step_cost_file import step_cost_path
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, standing_of
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult
from cnnjepa.schemas.overrides import full_path
from cnnjepa.schemas.yaml_text import read_yaml_file, write_yaml
from cnnjepa.training.files import write_atomically
from cnnjepa.training.run_folder import RunFolder, config_yaml


@dataclass(frozen=True)
class Kept:
    """What was kept of one study."""

    study: str
    trials: int
    """Whose results were kept."""
    missing: tuple[str, ...]
    """Labels of trials without a result yet."""
    bytes: int


def keep_study(root: Path, name: str, to: Path) -> Kept:
    """Writes `to/studies/<name>/` and its trials' results, configs and logged figures into `to/runs/by_hash/`, so that
    a report of `to` has the same tables. Where the images lay and the machines' names are left out. What an earlier
    call kept of the same study is replaced.

    Raises ConfigError for a study that does not exist or cannot be read, and for `to` being `root`; RunError when the
    disk refuses.
    """
    _refuse_root(root, to)
    folder, pool, kept = StudyFolder(root, name), Pool(root), Pool(to)
    study, records = folder.study(), folder.trials()
    found = {record.key: standing_of(pool, record) for record in records}
    whole = [r for r in records if (s := found[r.key]).settled or s.state == "failed"]
    StudyFolder(to, name).write(
        study.model_copy(update={"set": _placeless(study.set)}), [_nowhere(record) for record in records]
    )
    (to / "studies" / name / "logs").rmdir()
    written = [to / "studies" / name / "study.yaml", to / "studies" / name / "trials.json"]
    for record in distinct(whole):
        result = found[record.key].result
        assert result is not None
        written += _keep_run(pool.folder(record.pretrain_hash), result, kept.folder(record.pretrain_hash), record)
    missing = tuple(record.label for record in records if record not in whole)
    return Kept(name, len(whole), missing, sum(path.stat().st_size for path in written))


def keep_search(root: Path, name: str, to: Path) -> bool:
    """Copies a search's settings, less where the images lay, and its table of trials to `to/studies/<name>/`; whether
    `name` is a search. Raises ConfigError for one that has no table yet or that searched among data sets, and for `to`
    being `root`; RunError when the disk refuses."""
    _refuse_root(root, to)
    there, here = StudyFolder(root, name).path, StudyFolder(to, name).path
    if not (there / "search.yaml").is_file():
        return False
    if not (there / "trials.csv").is_file():
        raise ConfigError(f"{there} has no trials.csv, which `cnnjepa search` writes at its end; go on with the search")
    asked = read_yaml_file(there / "search.yaml", "record of a search")
    asked["set"] = _placeless(asked["set"])
    arms = [change for span in asked["space"].values() if isinstance(span, dict) for change in span.values()]
    searched = [path for path in asked["space"] if isinstance(asked["space"][path], str)]
    if any(full_path(path, "--space") == "data.path" for path in [*searched, *(p for change in arms for p in change)]):
        raise ConfigError(f"{there} searched among data.path, which is not kept; it can only be kept by hand")
    here.mkdir(parents=True, exist_ok=True)
    write_atomically(here / "search.yaml", write_yaml(asked).encode())
    write_atomically(here / "trials.csv", (there / "trials.csv").read_bytes())
    return True


def keep_step_costs(root: Path, to: Path) -> bool:
    """Copies what `cnnjepa benchmark --cost` measured below `root`, which a report shows too; whether there is any.
    Raises ConfigError when `to` has another measurement; RunError when the disk refuses."""
    path = step_cost_path(root)
    if not path.is_file():
        return False
    there = step_cost_path(to)
    if there.is_file() and there.read_bytes() != path.read_bytes():
        raise ConfigError(f"{there} holds other measured steps than {path}; remove the one that is not to be kept")
    there.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(there, path.read_bytes())
    return True


def _refuse_root(root: Path, to: Path) -> None:
    if to.resolve() == root.resolve():
        raise ConfigError(f"--to {to} is the root itself; give another folder, results/ say")


def _placeless(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if full_path(key, "set:") != "data.path"}


def _nowhere(record: TrialRecord) -> TrialRecord:
    return record.model_copy(update={"config": _without_place(record.config)})


def _without_place(config: PretrainConfig) -> PretrainConfig:
    if getattr(config.data, "path", None) is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"path": None})})


def _keep_run(run: RunFolder, result: TrialResult, to: RunFolder, record: TrialRecord) -> list[Path]:
    """The result of the probe settings that the study asks for, added to those of other studies, the config, and what
    was logged."""
    to.path.mkdir(parents=True, exist_ok=True)
    software, probe_software = (
        {key: value for key, value in some.items() if key != "host"}
        for some in (result.software, result.probe_software)
    )
    anonymous = result.model_copy(update={"software": software, "probe_software": probe_software})
    written = [to.write_result(anonymous)]
    if written[0].parent == to.path:  # the config of the run's first result
        write_atomically(to.path / "config.yaml", config_yaml(_without_place(record.config)).encode())
        written.append(to.path / "config.yaml")
    if (run.path / "metrics.jsonl").is_file():
        shutil.copyfile(run.path / "metrics.jsonl", to.path / "metrics.jsonl")
        written.append(to.path / "metrics.jsonl")
    return written
