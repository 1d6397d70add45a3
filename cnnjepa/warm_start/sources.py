"""Reading of the tensors that `encoder.init` names, from runs, files, torchvision and timm."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnjepa.methods.build import method_class
from cnnjepa.names import shortened
from cnnjepa.optional import needed
from cnnjepa.schemas import AnyEncoderConfig, ConfigError, read_config
from cnnjepa.schemas.initial_weights import init_reference
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.warm_start.libraries import first_line, pretrained_timm, timm_weights, torchvision_weights

WEIGHT_FILES = ("model.safetensors", "encoder.safetensors", "encoder.pt", "pytorch_model.bin")
"""Files of an exported encoder, of timm and of transformers, the safer format first."""
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
    return Found(tensors_in(path, f"encoder.init={path}"), f"file {shortened(path.name)}")


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


def tensors_in(path: Path, named: str) -> dict[str, Tensor]:
    """Return the state dict in a file. `named` begins the message of a ConfigError."""
    try:
        if path.suffix == ".safetensors":
            loaded: Any = needed("safetensors.torch", "weights", named).load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except Exception as error:  # both libraries raise many kinds for what is not theirs
        reason = first_line(error)
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
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise ConfigError(f"encoder.init=hf:{folder}: it has no weights; must be one of {', '.join(WEIGHT_FILES)}")
    state = tensors_in(file, f"encoder.init=hf:{folder}")
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
    weights = torchvision_weights(arch)
    state = weights.state("encoder.init=imagenet")
    prepared = weights.entry.transforms()
    return Found(state, f"torchvision's {weights.file.name}", (_numbers(prepared.mean), _numbers(prepared.std)))


def _timm(name: str) -> Found:
    named = f"encoder.init=timm:{name}"
    settings = timm_weights(name, named)
    model = pretrained_timm(name, named, ". Or give the file itself: encoder.init=FILE")
    full = f"{settings.architecture}.{settings.tag}" if settings.tag else name
    return Found(model.state_dict(), f"timm's {full}", (_numbers(settings.mean), _numbers(settings.std)))
