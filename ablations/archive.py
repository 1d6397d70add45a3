"""An archive of a study, small enough to be committed: the input of a report, without checkpoints, images and
places."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnnjepa.ablations.archived_trials import FILE_NAME, ArchivedTrial, write_archived_trials
from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.placeless import Placeless
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.step_cost_file import step_cost_path
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, status_of
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult
from cnnjepa.schemas.overrides import full_path
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.study import Study
from cnnjepa.schemas.yaml_text import read_yaml_file, write_yaml
from cnnjepa.storage.atomic_files import write_atomically


@dataclass(frozen=True)
class ArchivedStudy:
    """Summary of the archive of one study."""

    study: str
    trials: int
    """Number of trials whose results were archived."""
    missing: tuple[str, ...]
    """Labels of trials without a result yet."""
    bytes: int


def archive_study(root: Path, name: str, to: Path) -> ArchivedStudy:
    """Write `to/studies/<name>/study.yaml` and `trials.jsonl`, which holds the trials with their configs, results and
    logged figures, so that a report of `to` has the same tables.

    Absolute paths and host names are removed, also from messages. Arms over paths are named after the last parts of
    their paths. An earlier archive of the same study is replaced.

    Raises ConfigError for a study that does not exist or cannot be read, when `to` is `root`, and when a study of this
    name was run in `to`; RunError when the disk refuses.
    """
    _refuse_root(root, to)
    folder, pool, here = StudyFolder(root, name), Pool(root), StudyFolder(to, name).path
    study, records = folder.study(), folder.trials()
    results = {record.key: result for record in records if (result := status_of(pool, record).result)}
    hosts = [some["host"] for r in results.values() for some in (r.software, r.probe_software) if "host" in some]
    settings = [study.model_dump(mode="json"), [[record.choices, record.changes] for record in records]]
    placeless = Placeless(settings, root, hosts)
    there = _study_without_places(study, placeless)
    lines = []
    for record in _records_without_places(records, study, there, placeless):
        tree, result = record.model_dump(mode="json"), results.get(record.key)
        if result is None:
            lines.append(ArchivedTrial(tree, None, None))
            continue
        anonymous = _result_without_places(result, placeless).model_dump(mode="json")
        lines.append(ArchivedTrial(tree, anonymous, pool.logged(*record.key)))
    _refuse_run_study(here)
    here.mkdir(parents=True, exist_ok=True)
    write_archived_trials(here / FILE_NAME, lines)
    write_atomically(here / "study.yaml", write_yaml(there.model_dump(mode="json")).encode())
    missing = tuple(record.label for record in records if record.key not in results)
    size = sum((here / file).stat().st_size for file in (FILE_NAME, "study.yaml"))
    return ArchivedStudy(name, len(records) - len(missing), missing, size)


def archive_search(root: Path, name: str, to: Path) -> bool:
    """Copy a search's settings, without the path of the images, and its table of trials to `to/studies/<name>/`. Return
    whether `name` is a search. Raises ConfigError for a search that has no table yet or that searched among data sets,
    and when `to` is `root`; RunError when the disk refuses."""
    _refuse_root(root, to)
    there, here = StudyFolder(root, name).path, StudyFolder(to, name).path
    if not (there / "search.yaml").is_file():
        return False
    if not (there / "trials.csv").is_file():
        raise ConfigError(f"{there} has no trials.csv, which `cnnjepa search` writes at its end; resume the search")
    asked = read_yaml_file(there / "search.yaml", "record of a search")
    asked["set"] = _placeless(asked["set"])
    arms = [change for span in asked["space"].values() if isinstance(span, dict) for change in span.values()]
    searched = [path for path in asked["space"] if isinstance(asked["space"][path], str)]
    if any(full_path(path, "--space") == "data.path" for path in [*searched, *(p for change in arms for p in change)]):
        raise ConfigError(f"{there} searches over data.path, and paths are not archived; copy the folder by hand")
    with open(there / "trials.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    try:
        ends = [span.ends for span in SearchSpace(name=name, space=asked["space"]).space.values()]
    except ValidationError as error:
        raise ConfigError(f"{there / 'search.yaml'} cannot be read ({str(error).splitlines()[0]})") from None
    placeless, table = Placeless([asked, rows, ends], root), io.StringIO()
    # A range is written as a text, `choice(…)`, which contains its ends.
    archived = {**placeless.value(asked), "space": placeless.texts(placeless.value(asked["space"]))}
    csv.writer(table, lineterminator="\n").writerows(placeless.value(rows))
    here.mkdir(parents=True, exist_ok=True)
    write_atomically(here / "search.yaml", write_yaml(archived).encode())
    write_atomically(here / "trials.csv", table.getvalue().encode())
    return True


def archive_step_costs(root: Path, to: Path) -> bool:
    """Copy the steps that `cnnjepa benchmark --cost` measured below `root`; a report shows them too. Return whether
    there are any. Raises ConfigError when `to` has another measurement; RunError when the disk refuses."""
    path = step_cost_path(root)
    if not path.is_file():
        return False
    there = step_cost_path(to)
    if there.is_file() and there.read_bytes() != path.read_bytes():
        raise ConfigError(f"{there} and {path} hold different measured steps; remove one of them")
    there.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(there, path.read_bytes())
    return True


def _refuse_root(root: Path, to: Path) -> None:
    if to.resolve() == root.resolve():
        raise ConfigError(f"--to {to} is the root itself; give another folder, for example results/")


def _refuse_run_study(here: Path) -> None:
    """Raise ConfigError for the folder of a study that was run there, or that an earlier version archived."""
    if (here / "trials.json").is_file():
        raise ConfigError(
            f"{here} holds a study that was run there or archived by an earlier version, and is not replaced; give "
            "another --to, or remove that folder"
        )


def _placeless(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if full_path(key, "set:") != "data.path"}


def _study_without_places(study: Study, placeless: Placeless) -> Study:
    tree = study.model_dump(mode="json")
    for part in ("axes", "baseline"):
        tree[part] = placeless.value(tree[part])
    tree["set"] = placeless.value(_placeless(study.set))
    tree["question"] = placeless.text(study.question)
    for claim in tree["claims"]:
        claim |= {"arm": placeless.value(claim["arm"]), "says": placeless.text(claim["says"])}
    return Study.model_validate(tree)


def _records_without_places(
    records: list[TrialRecord], study: Study, there: Study, placeless: Placeless
) -> list[TrialRecord]:
    """Return the records with the archived arm names. `there` is the study as it is archived."""
    names = {old.label: new.label for old, new in zip(arms_of(study), arms_of(there), strict=True)}
    return [
        record.model_copy(
            update={
                "arm": names.get(record.arm) or placeless.text(record.arm),
                "choices": placeless.value(record.choices),
                "changes": placeless.value(record.changes),
                "config": _config_without_places(record.config, placeless),
            }
        )
        for record in records
    ]


def _config_without_places(config: PretrainConfig, placeless: Placeless) -> PretrainConfig:
    tree = config.model_dump(mode="json")
    if tree["data"].get("path") is not None:
        tree["data"]["path"] = None
    return PretrainConfig.model_validate(placeless.value(tree))


def _result_without_places(result: TrialResult, placeless: Placeless) -> TrialResult:
    tree = placeless.texts(result.model_dump(mode="json"))
    for part in ("software", "probe_software"):
        tree[part].pop("host", None)
    for part in ("error", "log_tail"):
        if said := getattr(result, part):
            tree[part] = placeless.said(said)
    return TrialResult.model_validate(tree)
