"""Locations of weights and runs that the user names. torch is not imported here, so that a wrong name is refused at
once."""

from pathlib import Path

from cnnjepa.schemas.encoder import EncoderSection
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.initial_weights import FORMS, HASH_BEGINNING, init_reference

_MOST_SHOWN = 5


def located(encoder: EncoderSection, root: Path = Path()) -> str:
    """Return `encoder.init` with an absolute path. `root` is the folder of `runs/by_hash`. Raises ConfigError if there
    are no such weights here; those of torchvision and timm are looked up when they are loaded."""
    kind, name = init_reference(encoder.init)
    if kind == "path":
        return str(_run_or_file(name, root, encoder.init_encoder))
    if kind != "folder":
        return encoder.init
    folder = Path(name)
    if not folder.is_dir():
        why = "is a file; write encoder.init=FILE without hf:" if folder.exists() else "does not exist"
        raise ConfigError(f"encoder.init=hf:{name}: the folder {folder} {why}")
    return f"hf:{folder.resolve()}"


def _run_or_file(name: str, root: Path, which: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path.resolve()
    try:
        return find_run(name, root)
    except ConfigError as error:
        if path.is_dir():
            raise ConfigError(
                f"encoder.init={name}: {error}; for an exported encoder or a folder with model.safetensors write "
                f"encoder.init=hf:{name}"
            ) from None
        close = nearest(name, ("random", "imagenet"))
        raise ConfigError(f"encoder.init={name}: {error}; encoder.init must be one of {FORMS}{close}") from None


def find_run(name: str, root: Path = Path()) -> Path:
    """Return the absolute folder of a run: `name` is the folder, or a pretrain hash below `root`/runs/by_hash, or the
    unambiguous beginning of one. Raises ConfigError if there is no such run, or more than one."""
    path, pool = Path(name), root / "runs" / "by_hash"
    if path.exists():
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
        return path.resolve()
    if not HASH_BEGINNING.match(name):
        raise ConfigError(f"{path} does not exist, and it is no hash of a run")
    runs = sorted(folder for folder in pool.glob(f"{name}*") if (folder / "config.yaml").is_file())
    if len(runs) == 1:
        return runs[0].resolve()
    if not runs:
        raise ConfigError(f"{path} does not exist, and no run in {pool} has a hash that begins with {name}")
    shown = ", ".join(run.name[: len(name) + 8] + "…" for run in runs[:_MOST_SHOWN])
    raise ConfigError(f"{len(runs)} runs in {pool} have a hash that begins with {name}: {shown}; write more of it")
