"""The published numbers, and the arm of ours that each is compared with.

A published row belongs to a data set and a setting. The setting is the preset of its data set (`in100`, `in1k`, or
`in100-byol` and so on for another method) with the row's own changes. These presets follow the authors' code, which
produced the numbers. An arm matches a row when its config has the row's values. If several arms do, those that differ
least from the published setting match.

A published accuracy appears only in a table of its own data set. Orderings of arms and differences between arms are
also compared across data sets, always with the rows of a single published data set, which the report names.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import Field

from cnnjepa.ablations.published import published
from cnnjepa.schemas import PretrainConfig, load_config, preset_names
from cnnjepa.schemas.base import Section
from cnnjepa.schemas.numbers import exact
from cnnjepa.schemas.overrides import flat

CONFIG_PATH = {
    "method": "method.name",
    "encoder": "encoder.arch",
    "depth": "method.predictor.depth",
    "kernel_size": "method.predictor.kernel_size",
    "conv": "method.predictor.conv",
    "strategy": "method.masking.strategy",
}
"""Short name in `published.yaml` → config path."""

DATASET_NAMES = {"in100": "ImageNet-100", "in1k": "ImageNet-1k"}

ENCODER_PARAMS = {
    "resnet50": 23.5e6,
    "wide_resnet50_2": 66.8e6,
    "resnet152": 58.1e6,
    "resnet200": 62.6e6,
    "vit_small": 21.7e6,
    "vit_base": 85.8e6,
}
"""Parameters without a classifier, for the area of a marker. torchvision's counts without the last layer for ResNet-50,
ResNet-152 and Wide ResNet-50-2; timm's count for ResNet-200; the common counts for ViT at 16-pixel patches."""

# Settings with the largest effect on accuracy, in the order in which a note names them. Other settings are only
# counted.
_NAMED = {
    "encoder.arch": "encoder",
    "encoder.width": "encoder width",
    "runtime.epochs": "epochs",
    "data.image_size": "image size",
    "method.predictor.depth": "predictor depth",
    "method.masking.strategy": "masking",
}
# Settings of how a run is executed or where its images are: not part of the published setting.
_IGNORED = ("runtime.", "data.path", "data.source", "data.resident", "data.on_error", "probe.", "encoder.backend")
_COUNTED_ANYWAY = ("runtime.epochs", "runtime.batch_size")


class PublishedRow(Section):
    """A row of a published table."""

    dataset: str
    """Preset of the data set."""
    arm: dict[str, Any]
    """Short name → value; see `CONFIG_PATH`."""
    linear_top1: float
    """Percent, protocol `published`, one seed."""
    knn_top1: float
    """Percent, protocol `published`, one seed."""
    gpu_hours: float | None = None
    """A100-hours."""
    note: str = ""
    """A remark that a reader needs to interpret the row."""

    @property
    def label(self) -> str:
        """Return `depth=3`; for a method or an encoder, the name alone."""
        return ", ".join(
            str(value) if name in ("method", "encoder") else f"{name}={value}" for name, value in self.arm.items()
        )

    @property
    def encoder(self) -> str:
        """The row's network: ResNet-50 unless the row names another."""
        return str(self.arm.get("encoder", "resnet50"))


class PublishedTable(Section):
    """A published table with its source."""

    source: str
    """The publication with the numbers."""
    rows: tuple[PublishedRow, ...] = Field(min_length=1)
    """Rows of the table."""

    @property
    def source_in_words(self) -> str:
        """The source, worded as a part of a sentence."""
        where, _, rest = self.source.partition("; ")
        return f"{where.replace('authors_log', 'the log that the authors published with their code')}; {rest}"


@dataclass(frozen=True)
class MatchedRow:
    """A published row that one of our arms matches."""

    row: PublishedRow
    differs: str
    """Differences between our setting and the published one; the most important parts, in words."""
    more: int
    """Number of further settings that differ."""
    distance: int
    """Number of all settings that differ."""
    alone: bool
    """True if no other arm of ours matches the row equally well."""

    @property
    def note(self) -> str:
        """Return why the difference compares unlike things; an empty text if it does not."""
        more = f"{self.more} more setting{'' if self.more == 1 else 's'}" if self.more else ""
        return "; ".join(filter(None, (self.differs, more)))


@cache
def published_tables() -> dict[str, PublishedTable]:
    """Return every table of `published.yaml`."""
    return {name: PublishedTable.model_validate(table) for name, table in published()["tables"].items()}


def matched_rows(table: PublishedTable, arms: dict[str, PretrainConfig], dataset: str) -> dict[str, MatchedRow]:
    """Return arm's label → its row among those published on `dataset`, the name of our images. The result is empty for
    images on which the table has no row: accuracies on different images do not compare."""
    return _matched(table, arms, published_set_of(dataset))


def counterparts(
    table: PublishedTable, arms: dict[str, PretrainConfig], dataset: str
) -> tuple[str | None, dict[str, MatchedRow]]:
    """Return (published data set, arm's label → its row there), to compare orderings and differences of arms.

    The data set is ours if the table has rows on it. Otherwise it is the one whose settings are closest to ours; among
    equals, the one with the most matching rows. It is None when no arm matches a row.
    """
    own = published_set_of(dataset)
    if found := _matched(table, arms, own):
        return own, found
    candidates = {name: _matched(table, arms, name) for name in dict.fromkeys(row.dataset for row in table.rows)}
    candidates = {name: found for name, found in candidates.items() if found}
    if not candidates:
        return None, {}
    best = max(candidates, key=lambda name: (-_mean_distance(candidates[name]), len(candidates[name])))
    return best, candidates[best]


def _mean_distance(rows: dict[str, MatchedRow]) -> float:
    return sum(one.distance for one in rows.values()) / len(rows)


def _matched(table: PublishedTable, arms: dict[str, PretrainConfig], published_on: str | None) -> dict[str, MatchedRow]:
    """Return arm's label → the row of one published data set with the fewest settings that differ."""
    flats = {label: flat(config.model_dump(mode="json")) for label, config in arms.items()}
    found: dict[str, MatchedRow] = {}
    for row in table.rows:
        if row.dataset != published_on:
            continue
        # A row that names no method belongs to CNN-JEPA; other methods have predictors and encoders too.
        wanted = {CONFIG_PATH[name]: value for name, value in {"method": "cnnjepa", **row.arm}.items()}
        setting = flat(_setting(row).model_dump(mode="json")) | wanted
        matching = {
            label: _different(config, setting)
            for label, config in flats.items()
            if all(config.get(path) == value for path, value in wanted.items())
        }
        least = min(map(len, matching.values()), default=0)
        closest = [label for label, different in matching.items() if len(different) == least]
        for label in closest:
            if label not in found or least < found[label].distance:
                differs, more = _in_words(flats[label], setting, matching[label])
                found[label] = MatchedRow(row, differs, more, least, len(closest) == 1)
    return found


@cache
def _preset(name: str) -> PretrainConfig:
    return load_config(name)


def _setting(row: PublishedRow) -> PretrainConfig:
    """Return the preset of the row's method on its data set."""
    name = f"{row.dataset}-{row.arm.get('method')}"
    return _preset(name if name in preset_names() else row.dataset)


def _different(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    paths = dict.fromkeys([*theirs, *ours])
    return [
        path
        for path in paths
        if (path in _COUNTED_ANYWAY or not path.startswith(_IGNORED)) and ours.get(path) != theirs.get(path)
    ]


def _in_words(ours: dict[str, Any], theirs: dict[str, Any], different: list[str]) -> tuple[str, int]:
    named = [path for path in _NAMED if path in different]
    parts = [f"{_NAMED[path]} {_shown(ours.get(path))} (published: {_shown(theirs.get(path))})" for path in named]
    return "; ".join(parts), len(different) - len(named)


# The names under which people store the published data sets. The size of a packed copy may follow.
_BETWEEN, _COPY = r"[-_ .]*", r"([-_ .]+(\d+px|224|256|288|320|384|512|packed))*"
_KNOWN_AS = {
    "in100": rf"(imagenet|in){_BETWEEN}100{_COPY}",
    "in1k": rf"((imagenet|in){_BETWEEN}(1k|1000|2012)|imagenet|ilsvrc{_BETWEEN}(2012)?){_COPY}",
}


def published_set_of(dataset: str, train_images: int | None = None, val_images: int | None = None) -> str | None:
    """Return the published data set, `in100` or `in1k`, that our images are; None for all others. The evidence is the
    name (`folder-imagenet100` and `hdf5-ImageNet-1k` are published sets, `folder-tinyimagenet100` is not) or, under any
    name, the same number of training and validation images as the published set."""
    name = dataset.lower().removeprefix("folder-").removeprefix("hdf5-")
    named = next((known for known, pattern in _KNOWN_AS.items() if re.fullmatch(pattern, name)), None)
    sizes = {(size["train"], size["val"]): known for known, size in published()["sets"].items()}
    return named or sizes.get((train_images, val_images))


def _shown(value: Any) -> str:
    return exact(value) if isinstance(value, float) else str(value)
