"""Studies as YAML files: those that ship with the project and a user's own."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.load import explain
from cnnjepa.schemas.study import Study
from cnnjepa.schemas.yaml_text import read_yaml, read_yaml_file

_SHIPPED = files("cnnjepa.ablations") / "studies"


@cache
def shipped_studies() -> tuple[str, ...]:
    """Return the names of the studies that ship with the project."""
    names = (entry.name for entry in _SHIPPED.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def shipped_text(name: str) -> str:
    """Return the text of a shipped study's file, including the comment at its head."""
    return (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def read_study(asked: str) -> Study:
    """Return the study in a YAML file, or a shipped study by name. A file without `name:` is named after the file.

    Raises ConfigError naming the axis or field, the possible values and the nearest name.
    """
    if asked in shipped_studies():
        return _study(read_yaml(shipped_text(asked), f"study {asked}"), asked, f"study {asked}")
    path = Path(asked)
    if path.suffix not in (".yaml", ".yml"):
        names = ["predictor", "masking", *shipped_studies()]
        raise ConfigError(
            f"study {asked!r} does not exist; give a YAML file or one of {', '.join(names)}{nearest(asked, names)}"
        )
    return _study(read_yaml_file(path, "study file"), path.stem, str(path))


def _study(tree: Any, name: str, origin: str) -> Study:
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold fields (question:, preset:, axes:, seeds:), see docs/studies.md")
    return validated({"name": name, **tree}, origin)


def validated(tree: dict[str, Any], origin: str) -> Study:
    """Return the study that `tree` describes. Raises ConfigError as `read_study` does."""
    try:
        return Study.model_validate(_checked_axes(tree))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, Study, tree)}") from None


def changed(study: Study, changes: dict[str, Any]) -> Study:
    """Return the study with some fields replaced, validated again. Raises ConfigError."""
    return validated({**study.model_dump(), **changes}, f"study {study.name}")


def _checked_axes(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree. Raises ConfigError for an axis that is neither a list nor named arms; pydantic's message would
    name both forms."""
    axes = tree.get("axes")
    for name, values in axes.items() if isinstance(axes, dict) else ():
        if not isinstance(values, list | tuple | dict):
            raise ConfigError(f"axis {name!r} is {values!r}; give a list of values, or named arms with their changes")
        arms = values.items() if isinstance(values, dict) else ()
        wrong = next((arm for arm, changes in arms if not isinstance(changes, dict)), None)
        if wrong is not None:
            raise ConfigError(f"axis {name!r}, arm {wrong!r}: give its changes as config path: value")
    return tree
