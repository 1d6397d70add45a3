"""Fitting of given tensors to an encoder: by name, with the first layer adapted to the number of channels."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from cnnjepa.encoders import Backbone, CustomBackbone
from cnnjepa.schemas import ConfigError
from cnnjepa.warm_start.naming import as_torchvision

# Parts behind the last feature map, which an encoder does not have.
_HEADS = ("fc", "classifier", "head", "head_drop")
_MOST_LISTED = 12


class Fitted:
    """Tensors that fit an encoder."""

    def __init__(self, state: dict[str, Tensor], fingerprint: str, notes: list[str]) -> None:
        self.state = state
        """Tensors of the encoder's state dict, float32."""
        self.fingerprint = fingerprint
        """SHA-256 of the tensors as they were given, under the encoder's names, without the adaptation to channels."""
        self.notes = notes
        """Adapted and left-out tensors, one phrase each."""


def fitted(given: Mapping[str, Tensor], backbone: Backbone, channels: int, named: str, which: str = "auto") -> Fitted:
    """Return `given` as the state of `backbone`, which is for images of `channels` channels. `named` names the weights
    in messages; `which` is `encoder.init_encoder`.

    Raises ConfigError that lists missing and unexpected tensors, and those of other shapes.
    """
    inner = "body." if isinstance(backbone, CustomBackbone) else ""
    wanted = {name.removeprefix(inner): value for name, value in _weights(backbone.state_dict()).items()}
    found = as_torchvision(_weights(given))
    prefix = _prefix(found, wanted, named, which)
    own = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    notes = [f"left out: {text}" for text in _by_part(name for name in found if not name.startswith(prefix))]
    heads = (*_HEADS, *(name for name, layer in backbone.named_modules() if isinstance(layer, nn.Identity)))
    left = [name for name in own if name not in wanted and name.partition(".")[0] in heads]
    left += [name for name in own if name == "pos_embed" and _same_positions(own[name], backbone)]
    notes += [f"left out: {text}" for text in _by_part(left)]
    unexpected = {name: own[name] for name in own if name not in wanted and name not in left}
    matched = {name: own[name].to(torch.float32) for name in wanted if name in own}
    if kinds := {str(own[name].dtype).removeprefix("torch.") for name in matched} - {"float32"}:
        notes.append(f"converted to float32 from {', '.join(sorted(kinds))}")
    first = _first_layer(backbone, channels)
    state = dict(matched)
    if first in matched and _differs_in_channels(matched[first], wanted[first]):
        before = matched[first].shape[1]
        state[first] = adapted(matched[first], channels, named)
        how = "summed" if channels == 1 else f"repeated and scaled by {before}/{channels}"
        notes.append(f"the first layer {first} is adapted from {before} to {channels} channels (weights {how})")
    _refuse_unfit(state, wanted, unexpected, named)
    if broken := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ConfigError(f"{named}: values of {_listed(broken)} are not finite")
    return Fitted({f"{inner}{name}": value for name, value in state.items()}, fingerprint(matched), notes)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values, independent of their order and of the kind of file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().to(torch.float32).contiguous()
        digest.update(f"{name} {list(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def adapted(weight_OIHW: Tensor, channels: int, named: str) -> Tensor:
    """Return the weights of a first convolution for images of `channels` channels, as timm adapts them: summed for one
    channel; otherwise repeated, cut, and scaled so that equal channels give the same output. Raises ConfigError if
    channels of other images than RGB would be dropped."""
    before = weight_OIHW.shape[1]
    exact = weight_OIHW.double()
    if channels == 1:
        return exact.sum(1, keepdim=True).to(weight_OIHW.dtype)
    if channels < before and before != 3:
        raise ConfigError(
            f"{named}: the first layer is for {before} channels and data.channels is {channels}; weights of {before} "
            f"channels can be adapted to 1 (summed) or to more than {before} (repeated), because channels other than "
            "RGB are not interchangeable"
        )
    repeated = exact.repeat(1, math.ceil(channels / before), 1, 1)[:, :channels]
    return (repeated * (before / channels)).to(weight_OIHW.dtype)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not _is_counter(name)}


def _prefix(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], named: str, which: str) -> str:
    """Return the prefix before the encoder's names in `found`, such as `module.`: the only one with all names, else the
    one with most. `which` chooses between a target and a context encoder."""
    one = next(iter(wanted))
    prefixes = {name.removesuffix(one) for name in found if name == one or name.endswith(f".{one}")}
    whole = sorted(prefix for prefix in prefixes if all(prefix + name in found for name in wanted))
    if "" in whole:
        return ""
    chosen = [prefix for prefix in whole if which in prefix] if len(whole) > 1 else whole
    if len(chosen) == 1:
        return chosen[0]
    if len(whole) > 1:
        several = ", ".join(prefix.rstrip(".") for prefix in whole)
        raise ConfigError(
            f"{named} holds {len(whole)} encoders, {several}; choose one with "
            "encoder.init_encoder=target or context, or save one alone"
        )
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + name in found for name in wanted), default="")


def _first_layer(backbone: nn.Module, channels: int) -> str:
    """Return the name of the weights of the first convolution, without the prefix of a user's network."""
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == channels and layer.groups == 1:
            return f"{name.removeprefix('body.')}.weight"
    return ""


def _differs_in_channels(given: Tensor, wanted: Tensor) -> bool:
    one, other = list(given.shape), list(wanted.shape)
    return len(one) == 4 and one[:1] + one[2:] == other[:1] + other[2:] and one[1] != other[1]


def _same_positions(codes: Tensor, backbone: Backbone) -> bool:
    """Return whether a transformer's position codes are the fixed ones of our network."""
    from cnnjepa.encoders.vit import ViTBackbone, positions

    if not isinstance(backbone, ViTBackbone) or codes.dim() < 2 or codes.shape[-1] != backbone.feature_dim:
        return False
    cells = codes.numel() // codes.shape[-1]
    given = codes.float().reshape(cells, -1)
    grids = ((rows, cells // rows) for rows in range(1, cells + 1) if cells % rows == 0)  # the weights do not say which
    return any(torch.allclose(given, positions(grid, given.shape[1], given), atol=1e-4) for grid in grids)


def _refuse_unfit(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unexpected: Mapping[str, Tensor], named: str
) -> None:
    shape = lambda value: str(list(value.shape))  # noqa: E731
    missing = [f"{name} {shape(value)}" for name, value in wanted.items() if name not in state]
    others = [
        f"{name} {shape(value)} where the encoder has {shape(wanted[name])}"
        for name, value in state.items()
        if value.shape != wanted[name].shape
    ]
    strangers = [f"{name} {shape(value)}" for name, value in unexpected.items()]
    lists = (("missing", missing), ("unexpected", strangers), ("of another shape", others))
    if not any(listed for _, listed in lists):
        return
    lines = [f"  {title}: {_listed(listed)}" for title, listed in lists if listed]
    raise ConfigError(
        f"{named} does not fit this encoder:\n" + "\n".join(lines) + "\nThe weights must be of the same network; set "
        "encoder.arch and its other settings (stem, stages, width, …) to the network of the weights."
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f", and {more} more" if more > 0 else "")


def _by_part(names: Iterable[str]) -> list[str]:
    """Return one text per part of a network, such as `fc (2 tensors)`."""
    return [f"{part} ({count} tensors)" for part, count in Counter(n.partition(".")[0] for n in names).items()]
