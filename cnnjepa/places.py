"""Paths that the user names and that must exist. torch is not imported here, so that a wrong path is refused at
once."""

from pathlib import Path
from typing import TYPE_CHECKING

from cnnjepa.schemas.errors import ConfigError

if TYPE_CHECKING:
    from cnnjepa.schemas.data import DataConfig


def image_path(config: "DataConfig") -> Path:
    """Return `data.path`. Raises ConfigError if it is not set, or if it does not exist and nothing is to be downloaded
    there, and for a table of labels that does not exist."""
    path = config.images_path
    if path is None:
        raise ConfigError(f"data.path is not set; give {config.PATH} with --data PATH")
    if not path.exists() and not config.makes_missing_path:
        raise ConfigError(f"data.path {path} does not exist; give {config.PATH} with --data PATH")
    _refuse_missing_table(config)
    return path


def _refuse_missing_table(config: "DataConfig") -> None:
    from cnnjepa.schemas.data import LABEL_WORDS

    if not config.LABELS_FROM_FILES or config.labels in LABEL_WORDS:
        return
    for name in (getattr(config, "train_split", ""), getattr(config, "val_split", "")):
        table = Path(config.labels.replace("{split}", name))
        if not table.is_file():
            what = "is not a file" if table.exists() else "does not exist"
            raise ConfigError(f"data.labels {table} {what}; give {', '.join(LABEL_WORDS)}, or the path of a table")


def refuse_missing_images(config: "DataConfig") -> None:
    """Raise ConfigError for a `data.path` that is set and does not exist. A source of one's own checks its own."""
    if config.PATH is not None and config.images_path is not None:
        image_path(config)


def refuse_no_run(run: Path, checkpoint: str | None = None) -> None:
    """Raise ConfigError if `run` is not a run folder, or has no checkpoint of this name. If there is a `previous.pt`,
    the code that reads the checkpoint explains how to resume from it."""
    if not (run / "config.yaml").is_file():
        lacks = "it has no config.yaml" if run.exists() else "it does not exist"
        raise ConfigError(f"{run} is not a run folder: {lacks}")
    if checkpoint is not None:
        refuse_no_checkpoint(run / "checkpoints" / checkpoint)


def refuse_no_checkpoint(path: Path) -> None:
    """Raise ConfigError if the checkpoint does not exist. The message names the other checkpoints in its folder."""
    if path.is_file() or path.with_name("previous.pt").is_file():
        return
    there = sorted(file.name for file in path.parent.glob("*.pt"))
    raise ConfigError(
        f"checkpoint {path} does not exist; " + (f"there are {', '.join(there)}" if there else "none does")
    )
