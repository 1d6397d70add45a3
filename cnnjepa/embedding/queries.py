"""Images for which neighbours are searched: rows of a file of features, or files that its encoder embeds."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.data.decoding import decode
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.embedding.feature_file import FeatureFile
from cnnjepa.embedding.image_list import ImageList, list_images
from cnnjepa.references.encoder import ReferencedEncoder
from cnnjepa.references.frozen import frozen_encoder
from cnnjepa.references.open import open_encoder
from cnnjepa.references.preprocessing import PreprocessingOverrides, section_config
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.pixels import PixelKind


class Query(NamedTuple):
    """An image whose neighbours are searched."""

    name: str
    vector: Tensor
    """float32 [C]."""
    row: int | None
    """Row in the file of features; None for another image."""
    file: Path | None
    """The image's file; None for a row."""


class Files:
    """Image files that belong to no set."""

    def __init__(self, files: list[Path], pixels: PixelKind) -> None:
        self._files, self._pixels = files, pixels
        self.labels = torch.zeros(len(files), dtype=torch.int64)

    def load(self, index: int) -> Tensor:
        file = self._files[index]
        return decode(file.read_bytes(), str(file), self._pixels)


def queries(features: FeatureFile, given: list[str]) -> list[Query]:
    """Return the queries that the user names: names of rows, or paths of files. The encoder is opened only for files
    that are not in the set. Raises ConfigError for an image that is neither, and for an encoder that has changed."""
    rows = {text: _row(features, text) for text in given}
    files = [Path(text).expanduser() for text, row in rows.items() if row is None]
    for file in files:
        if not file.is_file():
            raise ConfigError(
                f"{file} is neither a name in {features.path} nor a file; names there are like {features.names[0]}"
            )
    embedded = dict(zip(files, _embedded(features, files), strict=True))
    found = []
    for text, row in rows.items():
        if row is not None:
            found.append(Query(features.names[row], features.vectors[row], row, None))
        else:
            file = Path(text).expanduser()
            found.append(Query(text, embedded[file], None, file))
    return found


def _row(features: FeatureFile, text: str) -> int | None:
    row = features.row(text)
    folder = features.facts["data"].get("path")
    if row is None and folder is not None and Path(text).expanduser().exists():
        inside = Path(text).expanduser().resolve()
        if inside.is_relative_to(folder):
            row = features.row(inside.relative_to(folder).as_posix())
    return row


def _embedded(features: FeatureFile, files: list[Path]) -> list[Tensor]:
    if not files:
        return []
    encoder = _encoder(features)
    frozen = frozen_encoder(encoder, torch.device("cpu"))
    config = encoder.preprocessing.config
    batches = evaluation_batches(Files(files, config.pixels), config, encoder.preprocessing.resize, 16)
    return [vector for batch in batches for vector in frozen.pooled(batch.pixels).unbind()]


def _encoder(features: FeatureFile) -> ReferencedEncoder:
    described, inputs = features.facts["encoder"], features.facts["preprocessing"]
    overrides = PreprocessingOverrides(
        tuple(inputs["image_size"]), tuple(inputs["mean"]), tuple(inputs["std"]), inputs["channels"]
    )
    encoder = open_encoder(
        described["reference"], which=described["which"], checkpoint=described["checkpoint"], overrides=overrides
    )
    if encoder.fingerprint != described["fingerprint"]:
        raise ConfigError(
            f"encoder {described['reference']} is not the one that wrote {features.path} any more; run `cnnjepa embed` "
            "again"
        )
    return encoder


def images_of(features: FeatureFile, data: Path | None = None) -> ImageList:
    """Return the images of a file of features, for pictures. `data` is their new place. Raises ConfigError if they are
    gone or have changed."""
    section = {**features.facts["data"], **({"path": str(data)} if data is not None else {})}
    try:
        images = list_images(section_config(section), features.facts["split"])
    except ConfigError as error:
        raise ConfigError(f"the images of {features.path}: {error}") from None
    if images.fingerprint() != features.facts["images"]:
        raise ConfigError(
            f"the images of {features.path} have changed since it was written; run `cnnjepa embed` again, or give "
            "their new place with --data PATH"
        )
    return images
