"""Networks of torchvision without pooling and classifier."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.vision_transformer import VisionTransformer

from cnnjepa.references.encoder import Opened
from cnnjepa.references.preprocessing import PreprocessingOverrides, resolved
from cnnjepa.references.request import EncoderRequest
from cnnjepa.references.strides import finest_first, stride
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.fields import nearest
from cnnjepa.warm_start.libraries import TorchvisionWeights, torchvision_weights

# Parts and steps behind the last feature map, as torchvision's networks name them; inside of other parts they are part
# of the map's computation.
_BEHIND = re.compile(
    r"(avgpool|adaptive_avg_pool2d|classifier|head|heads|fc|dropout|flatten|aux\w*)(_\d+)?(\.|$)", re.I
)


class TorchvisionMaps(nn.Module):
    """A network of torchvision up to its last feature map: images [B, K, H, W] → [B, C, h, w]. Parameter names are
    torchvision's, behind `network.`."""

    def __init__(self, network: nn.Module, image: list[int]) -> None:
        super().__init__()
        self.network = create_feature_extractor(network, _nodes(network, image), suppress_diff_warning=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map; see the class."""
        last: Tensor = self.network(images)["last"]
        return last

    def stage_maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps at the strides 4, 8, 16 and 32 that the network has; the last one is its output."""
        maps = self.network(images)
        return finest_first(list(maps.values()), maps["last"], images)


class TransformerMaps(nn.Module):
    """A vision transformer of torchvision whose patch tokens become a map, without the class token."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = network
        self.network.heads = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map [B, C, h, w]."""
        height, width = (side // self.network.patch_size for side in images.shape[2:])
        tokens = self.network._process_input(images)
        tokens = torch.cat([self.network.class_token.expand(images.shape[0], -1, -1), tokens], dim=1)
        features: Tensor = self.network.encoder(tokens)[:, 1:]
        return features.transpose(1, 2).unflatten(2, (height, width))


def open_torchvision(request: EncoderRequest, overrides: PreprocessingOverrides) -> Opened:
    """Open `torchvision:NAME[:WEIGHTS]`. Raises ConfigError for unknown names, and for weights that are not here and
    cannot be downloaded."""
    import torchvision

    named, arch = f"encoder {request.reference}", request.name
    weights = _weights(arch, request.detail, named)
    weights.state(named)  # so that missing files are reported with their place
    network = torchvision.models.get_model(arch, weights=weights.entry).eval()
    prepared = weights.entry.transforms()
    known = {
        "image_size": prepared.crop_size[0], "resize": prepared.resize_size[0], "channels": 3,
        "mean": prepared.mean, "std": prepared.std,
    }  # fmt: skip
    preprocessing = resolved(known, overrides, named)
    image = [1, preprocessing.channels, *preprocessing.image_size]
    maps = TransformerMaps(network) if isinstance(network, VisionTransformer) else TorchvisionMaps(network, image)
    return Opened(maps, preprocessing, f"torchvision:{arch}:{weights.entry.name}", {"torchvision": arch})


def _weights(arch: str, wanted: str, named: str) -> TorchvisionWeights:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if arch not in known:
        raise ConfigError(
            f"{named}: torchvision {torchvision.__version__} has no classification network of this name"
            f"{nearest(arch, known)}"
        )
    try:
        return torchvision_weights(arch, wanted)
    except KeyError:
        names = list(torchvision.models.get_model_weights(arch).__members__)
        raise ConfigError(
            f"{named}: {arch} has no weights {wanted!r}; must be one of {', '.join(names)}{nearest(wanted, names)}"
        ) from None


@torch.inference_mode()
def _nodes(network: nn.Module, image: list[int]) -> dict[str, str]:
    """Return the steps of the network whose outputs are wanted: the last feature map (`last`), and the last part at
    each stride, found by computing the maps of one image."""
    names = get_graph_node_names(network, suppress_diff_warning=True)[1]
    every = create_feature_extractor(
        network, train_return_nodes=names[:1], eval_return_nodes=names, suppress_diff_warning=True
    )
    outputs: dict[str, Any] = every.eval()(torch.zeros(image))
    maps = {
        name: found.shape
        for name, found in outputs.items()
        if isinstance(found, Tensor) and found.dim() == 4 and not _BEHIND.match(name)
    }
    chosen, last = dict[int, str](), list(maps)[-1]
    ends = {_block(network, name): name for name in maps}  # last step of each block
    for name in ends.values():
        if (found := stride(maps[name], image)) is not None:
            chosen[found] = name
    return {**{name: str(found) for found, name in chosen.items() if found >= 4 and name != last}, last: "last"}


def _block(network: nn.Module, step: str) -> str:
    """Return the part of the network to which a step belongs: a child of the network, or of a list of blocks in it."""
    first, *inner = step.split(".")
    blocks = isinstance(getattr(network, first, None), nn.Sequential | nn.ModuleList)
    return ".".join([first, *inner[:1]]) if blocks else first
