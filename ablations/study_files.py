"""Studies as people write them: YAML files, those that ship with the project and a user's own."""

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
    """Names of the studies that ship with the project."""
    names = (entry.name for entry in _SHIPPED.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def shipped_text(name: str) -> str:
    """The file of a shipped study as it is, head comment included."""
    return (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def read_study(asked: str) -> Study:
    """The study in a YAML file, or a shipped one by name. A file without `name:` is called after itself.

    Raises ConfigError naming the axis or field, what is legal and the nearest name.
    """
    if asked in shipped_studies():
        return _study(read_yaml(shipped_text(asked), f"study {asked}"), asked, f"study {asked}")
    path = Path(asked)
    if path.suffix not in (".yaml", ".yml"):
        names = ["predictor", "masking", *shipped_studies()]
        raise ConfigError(
            f"study {asked!r} does not exist; legal are a YAML file, or {', '.join(names)}{nearest(asked, names)}"
        )
    return _study(read_yaml_file(path, "study file"), path.stem, str(path))


def _study(tree: Any, name: str, origin: str) -> Study:
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold fields (question:, preset:, axes:, seeds:), see docs/studies.md")
    return validated({"name": name, **tree}, origin)


def validated(tree: dict[str, Any], origin: str) -> Study:
    """The study that `tree` describes. Raises ConfigError as `read_study` does."""
    try:
        return Study.model_validate(_checked_axes(tree))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, Study, tree)}") from None


def changed(study: Study, changes: dict[str, Any]) -> Study:
    """The study with some fields replaced, checked again. Raises ConfigError."""
    return validated({**study.model_dump(), **changes}, f"study {study.name}")


def _checked_axes(tree: dict[str, Any]) -> dict[str, Any]:
    """Says of each axis that is neither a list nor named arms what it must be; pydantic would name both forms."""
    axes = tree.get("axes")
    for name, values in axes.items() if isinstance(axes, dict) else ():
        if not isinstance(values, list | tuple | dict):
            raise ConfigError(f"axis {name!r} is {values!r}; give a list of values, or named arms with their changes")
        arms = values.items() if isinstance(values, dict) else ()
        wrong = next((arm for arm, changes in arms if not isinstance(changes, dict)), None)
        if wrong is not None:
            raise ConfigError(f"axis {name!r}, arm {wrong!r}: give what it changes, config path: value")
    return tree
