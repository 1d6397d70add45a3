"""The weights with which a run's encoder starts, and their copy in the run folder."""

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.encoders import build_backbone
from cnnjepa.schemas import ConfigError, PretrainConfig, WarmStart
from cnnjepa.storage.atomic_files import write_atomically
from cnnjepa.warm_start.matching import fitted
from cnnjepa.warm_start.sources import read_weights

FILE = "initial_encoder.pt"
"""The copy in a run folder. Floors and a resumed run read it, so that they do not need the source again."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights that fit the run's encoder."""

    state: dict[str, Tensor]
    """The encoder's tensors by name, float32, without the counters of batch norms."""
    described: WarmStart
    """Source, fingerprint and notes, for the result."""
    warnings: tuple[str, ...] = ()
    """Warnings to show before the first step."""

    def write(self, run: Path) -> None:
        """Write the copy into a run folder. Raises RunError if writing to the disk fails."""
        buffer = io.BytesIO()
        torch.save({"state_dict": self.state, "described": self.described.model_dump(mode="json")}, buffer)
        write_atomically(run / FILE, buffer.getvalue())


def load_initial_weights(config: PretrainConfig) -> InitialWeights:
    """Return the weights that `encoder.init` names, located before. Raises ConfigError if they cannot be read or do not
    fit the encoder."""
    encoder, channels = config.encoder, config.data.channels
    found = read_weights(encoder)
    backbone = build_backbone(encoder, 0, channels)
    named = f"encoder.init={encoder.init} ({found.source})"
    fit = fitted(found.state, backbone, channels, named, encoder.init_encoder)
    described = WarmStart(source=found.source, fingerprint=fit.fingerprint, notes=tuple(fit.notes))
    warnings = [f"encoder.init: {note}" for note in fit.notes if "adapted" in note]
    ours = ([float(value) for value in config.data.mean], [float(value) for value in config.data.std])
    if found.normalisation and found.normalisation != ours and len(found.normalisation[0]) == channels:
        mean, std = found.normalisation
        warnings.append(
            f"encoder.init: the weights are for images with mean {_shown(mean)} and std {_shown(std)}; this run "
            f"normalises with mean {_shown(ours[0])} and std {_shown(ours[1])} (data.mean, data.std)"
        )
    return InitialWeights(fit.state, described, tuple(warnings))


def stored_initial_weights(run: Path) -> InitialWeights | None:
    """Return the copy in a run folder; None if there is none. Raises ConfigError if it is damaged."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return InitialWeights(loaded["state_dict"], WarmStart.model_validate(loaded["described"]))
    except Exception as error:  # torch.load raises many kinds for damaged archives
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise ConfigError(
            f"{path}, the run's initial weights, is damaged ({reason}); delete it to read encoder.init again"
        ) from None


def initial_weights_of(run: Path, config: PretrainConfig) -> InitialWeights | None:
    """Return the weights with which a run started, from its copy or else from their source; None if they were random.
    Raises ConfigError if they are gone, or are not those of the run any more."""
    if not config.encoder.warm:
        return None
    if stored := stored_initial_weights(run):
        return stored
    found = load_initial_weights(config)
    if found.described.fingerprint != config.encoder.init_fingerprint:
        raise ConfigError(
            f"{run} started from other weights than encoder.init={config.encoder.init} holds now, and its copy {FILE} "
            "is gone; put one of them back"
        )
    return found


def start_in_words(config: PretrainConfig, initial: InitialWeights | None, continued_epochs: int | None) -> str:
    """Return the start of a run in one line; empty for random weights."""
    if continued_epochs is not None:
        return (
            f"run {config.runtime.continues_hash[:12]} after its {continued_epochs} epochs, on the schedule of "
            f"{config.runtime.epochs} epochs"
        )
    if initial is None:
        return ""
    found = initial.described
    return "; ".join([f"weights of {found.source}, fingerprint {found.fingerprint[:12]}", *found.notes])


def _shown(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
