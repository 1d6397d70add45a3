"""Paths that the user names and that must exist. torch is not imported here, so that a wrong path is refused at
once."""

from pathlib import Path

from cnnjepa.schemas.data import DataConfig, FolderData, HDF5Data, TorchvisionData
from cnnjepa.schemas.errors import ConfigError

_WANTED = {
    "folder": "the images' directory or .tar archive",
    "hdf5": "the folder of the two HDF5 files",
    "torchvision": "the folder of torchvision's files",
}


def image_path(config: FolderData | HDF5Data | TorchvisionData) -> Path:
    """Return `data.path`. Raises ConfigError if it is not set, or if it does not exist and nothing is to be downloaded
    there."""
    if config.path is None:
        raise ConfigError(f"data.path is not set; give {_WANTED[config.source]} with --data PATH")
    if not config.path.exists() and not (isinstance(config, TorchvisionData) and config.download):
        raise ConfigError(f"data.path {config.path} does not exist; give {_WANTED[config.source]} with --data PATH")
    return config.path


def refuse_missing_images(config: DataConfig) -> None:
    """Raise ConfigError for a `data.path` that is set and does not exist."""
    if isinstance(config, FolderData | HDF5Data | TorchvisionData) and config.path is not None:
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
