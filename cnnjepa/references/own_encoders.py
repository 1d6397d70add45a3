"""Encoders of this program: those of runs, of exported folders, and untrained ones of presets."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from cnnjepa.encoders import build_backbone, load_into
from cnnjepa.names import shortened
from cnnjepa.places import refuse_no_run
from cnnjepa.pretrained import load_encoder
from cnnjepa.references.encoder import Opened
from cnnjepa.references.preprocessing import PreprocessingOverrides, for_channels, resolved
from cnnjepa.references.request import EncoderRequest
from cnnjepa.schemas import AnyEncoderConfig, ConfigError, PretrainConfig, load_config, read_config
from cnnjepa.schemas.data_section import INPUT_FIELDS
from cnnjepa.schemas.encoder import EncoderSection
from cnnjepa.warm_start.matching import fitted
from cnnjepa.warm_start.sources import WEIGHT_FILES, tensors_in

# Settings of an encoder that do not change what it computes once its weights are given.
_NOT_COMPUTED = {"init", "init_encoder", "init_fingerprint", "backend"}


def open_run(
    request: EncoderRequest,
    which: Literal["target", "context"] | None,
    checkpoint: str,
    overrides: PreprocessingOverrides,
) -> Opened:
    """Open an encoder of a run. Raises ConfigError as `load_encoder` does."""
    run = request.folder
    assert run is not None
    if request.file is not None and checkpoint not in ("last.pt", request.file):
        raise ConfigError(f"encoder {request.reference} and --checkpoint {checkpoint} name two checkpoints; give one")
    file = request.file or checkpoint
    refuse_no_run(run, file)
    network = load_encoder(run, which, file)
    config = read_config(run / "config.yaml")
    label = _label(request)
    label += f" ({which})" if which is not None and which != config.probed_encoder else ""
    label += f" at {file}" if file != "last.pt" and request.file is None else ""
    preprocessing = resolved(_of_config(config), overrides, f"encoder {request.reference}")
    return Opened(network, preprocessing, label, _kind(config.encoder), run, config)


def open_random(request: EncoderRequest, overrides: PreprocessingOverrides) -> Opened:
    """Build the untrained encoder of a preset. The statistics of batch norms are as torch initialises them, so that the
    encoder is a function of preset and seed."""
    config, seed = load_config(request.name), int(request.detail)
    preprocessing = resolved(for_channels(_of_config(config), overrides), overrides, f"encoder {request.reference}")
    network = build_backbone(config.encoder, seed, preprocessing.channels)
    label = f"random:{request.name}" + (f":{seed}" if seed else "")
    return Opened(network, preprocessing, label, _kind(config.encoder), untrained=True)


def open_export(request: EncoderRequest, overrides: PreprocessingOverrides) -> Opened:
    """Open an exported encoder of any format with a state dict. Raises ConfigError for other formats, and for a folder
    that is damaged."""
    folder = request.folder
    assert folder is not None
    named = f"encoder {request.reference}"
    try:
        described = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        encoder = TypeAdapter(AnyEncoderConfig).validate_python(described["encoder"])
        known = _of_description(described["preprocessing"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{named}: {folder / 'encoder.json'} is not what `cnnjepa export` writes ({type(error).__name__}); export "
            "the run again"
        ) from None
    preprocessing = resolved(known, overrides, named)
    network = build_backbone(encoder, 0, preprocessing.channels)
    state = tensors_in(folder / _weights(folder, request.file, named), named)
    load_into(network, fitted(state, network, preprocessing.channels, named).state)
    return Opened(network, preprocessing, _label(request), _kind(encoder), folder)


def _weights(folder: Path, file: str | None, named: str) -> str:
    there = [name for name in WEIGHT_FILES if (folder / name).is_file()]
    chosen = file if file not in (None, "encoder.json", "README.md") else next(iter(there), None)
    if chosen is None or chosen.endswith(".onnx"):
        has = f"has only {chosen}" if chosen else f"has none of {', '.join(WEIGHT_FILES)}"
        raise ConfigError(
            f"{named}: {folder} {has}; an encoder is loaded from a state dict, which `cnnjepa export RUN --to "
            "safetensors` writes"
        )
    return chosen


def _label(request: EncoderRequest) -> str:
    folder = request.folder
    assert folder is not None
    if Path(request.reference).exists() and not Path(request.reference).is_absolute():
        return shortened(request.reference.rstrip("/"))
    name = folder.name[:12] if len(folder.name) == 64 else folder.name
    return shortened(name if request.file is None else f"{name}/{request.file}")


def _kind(encoder: EncoderSection) -> dict[str, Any]:
    return {"encoder": encoder.model_dump(mode="json", exclude=_NOT_COMPUTED)}


def _of_config(config: PretrainConfig) -> dict[str, Any]:
    data = config.data
    known = {name: getattr(data, name) for name in INPUT_FIELDS}
    unmeasured = {"range": "dtype", "mean": None, "std": None}
    return {**known, **{name: unmeasured[name] for name in data.unmeasured}, "resize": config.probe.resize}


def _of_description(described: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `Preprocessing` from an `encoder.json`."""
    channels, height, width = described["input_size"]
    # Exports of earlier versions do not say whether values outside the range are clipped.
    clipped = described.get("clipped", described["dtype"] != "float32")
    return {
        "image_size": (height, width), "resize": described["resize"], "channels": channels,
        "dtype": described["dtype"], "range": tuple(described["range"]) if clipped else "dtype",
        "mean": described["mean"], "std": described["std"],
    }  # fmt: skip
