"""Reading of the tensors that `encoder.init` names, from runs, files, torchvision and timm."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor

from cnnjepa.methods.build import method_class
from cnnjepa.names import shortened
from cnnjepa.optional import needed
from cnnjepa.schemas import AnyEncoderConfig, ConfigError, read_config
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.initial_weights import init_reference
from cnnjepa.training.checkpoint import read_checkpoint

# Files of an exported encoder, of timm and of transformers, the safer format first.
_FILES = ("model.safetensors", "encoder.safetensors", "encoder.pt", "pytorch_model.bin")
# Keys under which checkpoints of other programs hold a state dict.
_WITHIN = ("state_dict", "model", "method", "encoder", "network", "module")


class Found(NamedTuple):
    """Tensors as they were read."""

    state: Mapping[str, Tensor]
    source: str
    """The source in words, without the folder in which it is."""
    normalisation: tuple[list[float], list[float]] | None = None
    """Mean and standard deviation per channel of the images for which the weights are; None if unknown."""


def read_weights(encoder: AnyEncoderConfig) -> Found:
    """Return the tensors that `encoder.init` names. It must be located, see `located`. Raises ConfigError if they
    cannot be read, and for weights that torchvision or timm must download and cannot."""
    kind, name = init_reference(encoder.init)
    if kind == "imagenet":
        return _torchvision(str(encoder.arch))
    if kind == "timm":
        return _timm(name)
    if kind == "folder":
        return _folder(Path(name))
    path = Path(name)
    if path.is_dir():
        return _run(path, "last.pt", encoder.init_encoder)
    if path.parent.name == "checkpoints" and (path.parent.parent / "config.yaml").is_file():
        return _run(path.parent.parent, path.name, encoder.init_encoder)
    return Found(_file(path, f"encoder.init={path}"), f"file {shortened(path.name)}")


def _run(run: Path, checkpoint: str, which: str) -> Found:
    config = read_config(run / "config.yaml")
    chosen = config.probed_encoder if which == "auto" else which
    encoders = method_class(config.method).encoders
    if chosen not in encoders:
        raise ConfigError(
            f"encoder.init_encoder={chosen}: method {config.method.name} of {run} has no {chosen} encoder; must be one "
            f"of {', '.join(encoders)}"
        )
    prefix = f"{encoders[chosen]}."
    state = read_checkpoint(run / "checkpoints" / checkpoint)["method"]
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    at = "" if checkpoint == "last.pt" else f" at {checkpoint}"
    label = f"{chosen} encoder of run {shortened(run.name, 40)}{at}"
    return Found(own, label, (_numbers(config.data.mean), _numbers(config.data.std)))


def _file(path: Path, named: str) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            loaded: Any = needed("safetensors.torch", "weights", named).load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except Exception as error:  # both libraries raise many kinds for what is not theirs
        reason = _first_line(error)
        reason = "not tensors and plain values only" if "weights_only" in reason else reason
        raise ConfigError(
            f"{named} cannot be read ({reason}); it must be a state dict: tensors by name, as torch.save or "
            "safetensors writes model.state_dict()"
        ) from None
    while isinstance(loaded, dict) and not any(isinstance(value, Tensor) for value in loaded.values()):
        inner = next((loaded[name] for name in _WITHIN if isinstance(loaded.get(name), dict)), None)
        if inner is None:
            break
        loaded = inner
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, dict) else {}
    if not tensors:
        raise ConfigError(f"{named} holds no tensors by name; save model.state_dict()")
    return tensors


def _folder(folder: Path) -> Found:
    file = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if file is None:
        raise ConfigError(f"encoder.init=hf:{folder}: it has no weights; must be one of {', '.join(_FILES)}")
    state = _file(file, f"encoder.init=hf:{folder}")
    return Found(state, f"folder {shortened(folder.name)}", _normalisation_in(folder))


def _normalisation_in(folder: Path) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation from the folder's description: ours, timm's or transformers'."""
    for name, section, mean, std in (
        ("encoder.json", "preprocessing", "mean", "std"),
        ("config.json", "pretrained_cfg", "mean", "std"),
        ("preprocessor_config.json", None, "image_mean", "image_std"),
    ):
        try:
            described = json.loads((folder / name).read_text(encoding="utf-8"))
            values = described if section is None else described[section]
            return _numbers(values[mean]), _numbers(values[std])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _numbers(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values]


def _torchvision(arch: str) -> Found:
    import torchvision

    if arch not in torchvision.models.list_models() or arch.startswith("vit"):
        raise ConfigError(
            f"encoder.init=imagenet: torchvision has no weights for encoder.arch={arch}; give a FILE, a RUN or "
            "timm:NAME"
        )
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(weights.url).path).name
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # urllib's, the disk's, and those of a damaged file
        what = "cannot be read" if file.is_file() else "is not on this machine and cannot be downloaded"
        raise ConfigError(
            f"encoder.init=imagenet: {file.name} {what} ({_first_line(error)}); put torchvision's file at {file}, for "
            f"example from a machine with access to the web, where torchvision.models.{arch}(weights='DEFAULT') stores "
            "it in the same place"
        ) from None
    prepared = weights.transforms()
    return Found(state, f"torchvision's {file.name}", (_numbers(prepared.mean), _numbers(prepared.std)))


def _timm(name: str) -> Found:
    named = f"encoder.init=timm:{name}"
    timm = needed("timm", "weights", named)
    known = timm.list_models(pretrained=True)
    if not timm.is_model(name.partition(".")[0]):
        close = nearest(name, timm.list_models())
        raise ConfigError(f"{named}: timm {timm.__version__} has no model of this name{close}")
    try:
        settings = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        settings = None
    if settings is None or not settings.has_weights:
        tags = [full for full in known if full.partition(".")[0] == name.partition(".")[0]]
        raise ConfigError(f"{named}: timm {timm.__version__} has no such weights; must be one of {', '.join(tags)}")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's, urllib's, and those of a damaged file
        raise ConfigError(
            f"{named}: timm cannot load the weights ({_first_line(error)}); {_where_timm_looks(settings)}. Or give the "
            "file itself: encoder.init=FILE"
        ) from None
    full = f"{settings.architecture}.{settings.tag}" if settings.tag else name
    return Found(model.state_dict(), f"timm's {full}", (_numbers(settings.mean), _numbers(settings.std)))


def _where_timm_looks(settings: Any) -> str:
    if settings.hf_hub_id:
        from huggingface_hub import constants

        repository = settings.hf_hub_id.partition("@")[0]
        folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        return (
            f"its files belong in {folder}; on a machine with access to the web, `hf download {repository}` stores "
            "them in a folder of the same name"
        )
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(settings.url or "").path).name
    return f"put the file at {file}"


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(". ")[0][:200]
