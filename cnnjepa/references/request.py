"""The forms in which a user names an encoder. torch is not imported here, so that a wrong name is refused at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import is_named
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.initial_weights import HASH_BEGINNING
from cnnjepa.schemas.load import preset_names
from cnnjepa.schemas.paths import user_path
from cnnjepa.warm_start.location import find_run

FORMS = (
    "a run folder, a run's hash or its beginning, an exported folder or file, torchvision:NAME[:WEIGHTS], "
    "timm:NAME[:pretrained], random:PRESET[:SEED] or package.module:Class of your own"
)
"""The forms in words, for messages and help."""

Kind = Literal["run", "export", "torchvision", "timm", "random", "own"]
_WEIGHTS = (".pt", ".pth", ".safetensors", ".bin", ".onnx")


class EncoderRequest(NamedTuple):
    """A reference to an encoder, taken apart."""

    reference: str
    """As the user wrote it."""
    kind: Kind
    """`export`: a folder with `encoder.json`; `own`: a class or function of the user."""
    name: str = ""
    """Network, preset or `package.module:Class`."""
    detail: str = ""
    """Part after the name: the weights of a library, or a seed."""
    folder: Path | None = None
    """Absolute run folder or exported folder."""
    file: str | None = None
    """The checkpoint or the exported file in the folder, if the reference names one."""


def encoder_request(reference: str, root: Path = Path()) -> EncoderRequest:
    """Return what a reference names. `root` is the folder of `runs/by_hash`. Raises ConfigError for a reference of no
    known form, and for a run, folder, file or preset that does not exist."""
    prefix, _, rest = reference.partition(":")
    if prefix in _PREFIXES:
        name, _, detail = rest.partition(":")
        if not name:
            raise ConfigError(f"encoder {reference!r} names nothing after {prefix}:; it must be {FORMS}")
        return _PREFIXES[prefix](reference, name, detail)
    path = _path(reference)
    if path.is_file():
        return _file(reference, path)
    if (path / "encoder.json").is_file():
        return EncoderRequest(reference, "export", folder=path.resolve())
    if path.exists() or HASH_BEGINNING.match(reference):
        try:
            return EncoderRequest(reference, "run", folder=find_run(str(path), root))
        except ConfigError as error:
            neither = ", and it has no encoder.json of an exported encoder" if path.exists() else ""
            raise ConfigError(f"encoder {reference}: {error}{neither}") from None
    if is_named(reference):
        return EncoderRequest(reference, "own", reference)
    close = nearest(prefix, _PREFIXES) if ":" in reference else ""
    raise ConfigError(f"encoder {reference!r} does not exist; it must be {FORMS}{close}")


def _path(reference: str) -> Path:
    try:
        return user_path(reference)
    except ValueError as error:
        raise ConfigError(f"encoder {reference!r}: {error}") from None


def _file(reference: str, path: Path) -> EncoderRequest:
    run = path.parent.parent
    if path.parent.name == "checkpoints" and (run / "config.yaml").is_file():
        return EncoderRequest(reference, "run", folder=run.resolve(), file=path.name)
    if (path.parent / "encoder.json").is_file():
        return EncoderRequest(reference, "export", folder=path.parent.resolve(), file=path.name)
    if path.suffix not in _WEIGHTS:
        raise ConfigError(f"encoder {reference}: {path.name} is no file of weights; an encoder must be {FORMS}")
    raise ConfigError(
        f"encoder {reference}: no encoder.json lies next to this file, so its network is unknown. Start a run without "
        f"training from the file and use that run: `cnnjepa train --set method.name=random_init --set "
        f"encoder.init={reference} --set encoder.arch=…`, or give package.module:Class of a network that loads it"
    )


def _torchvision(reference: str, name: str, detail: str) -> EncoderRequest:
    return EncoderRequest(reference, "torchvision", name, detail or "DEFAULT")


def _timm(reference: str, name: str, detail: str) -> EncoderRequest:
    if detail not in ("", "pretrained"):
        raise ConfigError(
            f"encoder {reference}: {detail!r} is not valid; write timm:{name}:pretrained for timm's weights, or "
            f"timm:{name.partition('.')[0]} for the untrained network"
        )
    if "." in name and not detail:
        raise ConfigError(
            f"encoder {reference} names weights; write timm:{name}:pretrained to use them, or "
            f"timm:{name.partition('.')[0]} for the untrained network"
        )
    return EncoderRequest(reference, "timm", name, detail)


def _random(reference: str, name: str, detail: str) -> EncoderRequest:
    if name not in preset_names():
        raise ConfigError(
            f"encoder {reference}: preset {name!r} does not exist; must be one of {', '.join(preset_names())}"
            f"{nearest(name, preset_names())}"
        )
    if detail and not detail.isdecimal():
        raise ConfigError(f"encoder {reference}: the seed {detail!r} is no whole number; write random:{name}:0")
    return EncoderRequest(reference, "random", name, detail or "0")


_PREFIXES: dict[str, Callable[[str, str, str], EncoderRequest]] = {
    "torchvision": _torchvision, "timm": _timm, "random": _random,
}  # fmt: skip
