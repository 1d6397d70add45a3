"""A labelled set on which an encoder is probed."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag, field_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.data import LABEL_WORDS
from cnnjepa.schemas.paths import UserPath, user_path


class ProbeSet(Section):
    """A labelled set on which the encoder is probed, with the settings that say how it is read."""

    path: UserPath
    """The images, as for `data.path`."""

    labels: str = "auto"
    """`auto`, `folders`, or a table, as for `data.labels`."""

    groups: int | str | None = None
    """Images that must not be divided, as for `data.groups`."""

    train_split: str | None = None
    """Name of the training split, as for `data.train_split`; None = the usual name."""

    val_split: str | None = None
    """Name of the validation split, as for `data.val_split`; None = the usual name."""

    @field_validator("labels")
    @classmethod
    def _path_of_a_table(cls, value: str) -> str:
        if value == "none":
            raise ValueError("'none': probes need labels; must be auto, folders, or the path of a table")
        return value if value in LABEL_WORDS else str(user_path(value))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the data section that are given: name → value."""
        given = {"groups": self.groups, "train_split": self.train_split, "val_split": self.val_split}
        labels = {} if self.labels == "auto" else {"labels": self.labels}
        return labels | {name: value for name, value in given.items() if value is not None}

    def resolved(self) -> "Path | ProbeSet":
        """Return the set with absolute paths; only its path if nothing else is given."""
        path = self.path.resolve()
        if not self.settings:
            return path
        labels = self.labels if self.labels in LABEL_WORDS else str(Path(self.labels).resolve())
        return self.model_copy(update={"path": path, "labels": labels})


ENTRY_TAGS = ("path", "set")
"""The name that pydantic inserts into the place of a wrong entry of `probe.data`: the kind of the entry."""


def _kind(given: Any) -> str:
    return "set" if isinstance(given, dict | ProbeSet) else "path"


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str | Path | dict | ProbeSet) else given


ProbeSets = Annotated[
    tuple[Annotated[Annotated[UserPath, Tag("path")] | Annotated[ProbeSet, Tag("set")], Discriminator(_kind)], ...],
    BeforeValidator(_listed),
]
"""Sets by their path alone, or with further settings. A single one becomes a list."""
