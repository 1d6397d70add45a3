"""The settings of a search, recorded in its folder (`search.yaml`) and its storage, and their comparison with a new
request."""

import platform
import uuid
from typing import Any

import optuna
from pydantic import ValidationError

from cnnjepa.ablations.data_facts import DataFacts
from cnnjepa.ablations.search.notes import NOTED, without_notes
from cnnjepa.ablations.search.objective import objective_of
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.schemas import ConfigError, PretrainConfig, pretrain_hash, probe_hash
from cnnjepa.schemas.numbers import counted
from cnnjepa.schemas.overrides import differences, flat
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.yaml_text import read_yaml_file

# Attribute of Optuna's study that holds the record, the folder and the machine.
_OWNER = "cnnjepa_search"


def record_of(space: SearchSpace, config: PretrainConfig, images: DataFacts, processes: int) -> dict[str, Any]:
    """Return the record of a search, which is compared with an earlier one. `config` is the base config. Its hashes are
    those of one process on a CPU, so that a search can resume on another machine."""
    data = config.data.model_copy(update={"resident": "never"})
    runtime = config.runtime.model_copy(update={"device": "cpu"})
    named = config.model_copy(update={"data": data, "runtime": runtime})
    return {
        **space.model_dump(mode="json"), "images": images.fingerprint, "processes": processes,
        "base": pretrain_hash(named, images.fingerprint, 1)[:12], "base_probe": probe_hash(named)[:12],
    }  # fmt: skip


def recorded(folder: StudyFolder) -> dict[str, Any] | None:
    """Return the record in the folder; None if there is none. Raises ConfigError when it cannot be read."""
    path = folder.path / "search.yaml"
    if not path.is_file():
        return None
    try:
        record = read_yaml_file(path, "record of a search")
        _comparable(record)
    except (ConfigError, AttributeError, ValidationError) as error:
        raise ConfigError(f"{path} cannot be read ({str(error).splitlines()[0]}); give another --name") from None
    return dict(record)


def refuse_other_search(folder: StudyFolder, asked: dict[str, Any]) -> None:
    """Raise ConfigError when the folder holds another search, or one on other images. `asked` has the form of the
    record."""
    before = recorded(folder)
    different = _differences(before, asked) if before else ""
    if different:
        raise ConfigError(f"{folder.path} holds another search. They differ in\n{different}\nGive another --name.")


def folder_id(folder: StudyFolder) -> str:
    """Return the id by which a storage identifies the folder, even after it is moved; a new id for a new folder."""
    return str((recorded(folder) or {}).get("id") or uuid.uuid4().hex)


def refuse_other_owner(storage: Any, shown: str, folder: StudyFolder, asked: dict[str, Any]) -> None:
    """Raise ConfigError when the storage has a study of this name that is not this folder's search. A study without an
    owner comes from a version that wrote none: it is this search's if the folder has a record."""
    try:
        study = optuna.load_study(study_name=asked["name"], storage=storage)
    except KeyError:
        return
    again = "Give another --name, or another --storage."
    owner = study.user_attrs.get(_OWNER)
    if owner is None:
        if folder.searched or not study.get_trials(deepcopy=False):
            return
        raise ConfigError(
            f"{shown} holds a study {asked['name']!r} with {counted(len(study.trials), 'trial')} that is not this "
            f"search's: {folder.path} has no record of it. {again}"
        )
    place = f"{owner.get('folder')} on {owner.get('host')}"
    try:
        different = _differences(owner["record"], asked)
    except (KeyError, TypeError, AttributeError, ValidationError):
        different = "  its record, which this version cannot read"
    if different:
        raise ConfigError(
            f"{shown} holds another search {asked['name']!r}, that of {place}. They differ in\n{different}\n{again}"
        )
    here = owner.get("folder") == str(folder.path.absolute()) and owner.get("host") == platform.node()
    if not here and owner.get("id") != folder_id(folder):
        raise ConfigError(
            f"{shown} holds the search {asked['name']!r} of {place}, whose runs are not below {folder.root.absolute()}."
            f" Resume it with its own --root. {again}"
        )


def claim(storage: Any, shown: str, folder: StudyFolder, asked: dict[str, Any]) -> None:
    """Record in the storage's study, created if necessary, that it belongs to this search. `asked` has the folder's
    `id`. Raises ConfigError when another search was faster."""
    refuse_other_owner(storage, shown, folder, asked)
    direction = objective_of(SearchSpace.model_validate(without_notes(asked))).direction
    study = optuna.create_study(storage=storage, study_name=asked["name"], direction=direction, load_if_exists=True)
    mine = {"folder": str(folder.path.absolute()), "host": platform.node(), "id": asked["id"], "record": asked}
    study.set_user_attr(_OWNER, mine)
    refuse_other_owner(storage, shown, folder, asked)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return one line per different field; an empty text for the same search. A hash of the base that only one record
    has is not compared."""
    lines = [
        f"  {name}: there {there}, requested {asked}"
        for name, there, asked in differences(_comparable(before), _comparable(now))
    ]
    for key, what in (("base", "training"), ("base_probe", "probe")):
        if not lines and before.get(key) and now.get(key) and before[key] != now[key]:
            lines.append(
                f"  the base config's {what} settings: there {before[key]}, now {now[key]} (the preset or this "
                "program's defaults have changed)"
            )
    return "\n".join(lines)


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves by name. Fields that are newer than the record have their defaults. A range is its text,
    because the storage does not accept its choices in another order."""
    space = SearchSpace.model_validate(without_notes(record))
    ranges = {f"space.{key}": str(asked) for key, asked in space.space.items()}
    noted = {key: value for key, value in record.items() if key in NOTED}
    return flat(space.model_dump(mode="json", exclude={"space"})) | ranges | noted
