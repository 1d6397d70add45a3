"""Paths that the user names and that must exist. torch is not imported here, so that a wrong path is refused at
once."""

from pathlib import Path

from cnnjepa.schemas.data import DataConfig
from cnnjepa.schemas.errors import ConfigError


def image_path(config: DataConfig) -> Path:
    """Return `data.path`. Raises ConfigError if it is not set, or if it does not exist and nothing is to be downloaded
    there."""
    path = config.images_path
    if path is None:
        raise ConfigError(f"data.path is not set; give {config.PATH} with --data PATH")
    if not path.exists() and not config.makes_missing_path:
        raise ConfigError(f"data.path {path} does not exist; give {config.PATH} with --data PATH")
    return path


def refuse_missing_images(config: DataConfig) -> None:
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
