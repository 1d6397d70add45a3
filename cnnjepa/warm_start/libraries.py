"""Weights that torchvision and timm publish, with messages that say where their files belong on a machine without
access to the web."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from cnnjepa.optional import needed
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.fields import nearest


class TorchvisionWeights(NamedTuple):
    """Published weights of a torchvision network."""

    arch: str
    """torchvision's name of the network."""
    entry: Any
    """Member of the network's enum of weights."""
    file: Path
    """The file in torch's cache."""

    def state(self, named: str) -> Mapping[str, Tensor]:
        """Return the state dict, downloaded if necessary. Raises ConfigError if it cannot be read. `named` begins the
        message."""
        try:
            state: Mapping[str, Tensor] = self.entry.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # urllib's, the disk's, and those of a damaged file
            what = "cannot be read" if self.file.is_file() else "is not on this machine and cannot be downloaded"
            raise ConfigError(
                f"{named}: {self.file.name} {what} ({first_line(error)}); put torchvision's file at {self.file}, for "
                f"example from a machine with access to the web, where torchvision.models.{self.arch}("
                f"weights={self.entry.name!r}) stores it in the same place"
            ) from None
        return state


def torchvision_weights(arch: str, wanted: str = "DEFAULT") -> TorchvisionWeights:
    """Return the weights named `wanted` of a torchvision network. Raises KeyError if it has none of this name, and
    ValueError for an unknown network."""
    import torchvision

    entry = torchvision.models.get_model_weights(arch)[wanted]
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(entry.url).path).name
    return TorchvisionWeights(arch, entry, file)


def timm_with(name: str, named: str) -> ModuleType:
    """Return timm. Raises ConfigError if it is not installed, or has no network of this name (a tag after a dot is not
    checked)."""
    timm = needed("timm", "weights", named)
    if not timm.is_model(name.partition(".")[0]):
        close = nearest(name, timm.list_models())
        raise ConfigError(f"{named}: timm {timm.__version__} has no model of this name{close}")
    return timm


def timm_weights(name: str, named: str) -> Any:
    """Return timm's description of published weights (`pretrained_cfg`). Raises ConfigError if there are none of this
    name."""
    timm = timm_with(name, named)
    try:
        settings = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        settings = None
    if settings is None or not settings.has_weights:
        known = timm.list_models(pretrained=True)
        tags = [full for full in known if full.partition(".")[0] == name.partition(".")[0]]
        must = f"must be one of {', '.join(tags)}" if tags else "it has none for this model"
        raise ConfigError(f"{named}: timm {timm.__version__} has no such weights; {must}")
    return settings


def pretrained_timm(name: str, named: str, otherwise: str = "", **arguments: Any) -> nn.Module:
    """Return timm's network with its published weights, downloaded if necessary. `named` begins the message of a
    ConfigError, and `otherwise` ends it."""
    settings = timm_weights(name, named)
    try:
        model: nn.Module = timm_with(name, named).create_model(name, pretrained=True, **arguments)
    except Exception as error:  # the hub's, urllib's, and those of a damaged file
        raise ConfigError(
            f"{named}: timm cannot load the weights ({first_line(error)}); {_where_timm_looks(settings)}{otherwise}"
        ) from None
    return model


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


def first_line(error: Exception) -> str:
    """Return the beginning of an error's message, at most 200 characters."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(". ")[0][:200]
