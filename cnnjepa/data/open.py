"""Opening of the two splits that the data section describes: checked and, on request, resident in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from cnnjepa.data.measure import measure
from cnnjepa.data.own import open_own
from cnnjepa.data.resident import ResidentSource, decode_all, first_image
from cnnjepa.data.scan import named
from cnnjepa.data.source import ImageSource, Splits, Subset, Unlabelled, groups_of, spread
from cnnjepa.errors import ImageError
from cnnjepa.implementation import implementation_of
from cnnjepa.schemas import ConfigError, DataConfig
from cnnjepa.schemas.data import IMPLEMENTATIONS
from cnnjepa.schemas.extension import extension_of
from cnnjepa.schemas.pixels import UNMEASURED, Measured


@dataclass
class DataSet:
    """The images of a run."""

    train: ImageSource
    val: ImageSource
    name: str
    """Source and name, for tables."""
    fingerprint: str
    """Identifies the images in the hash of a run."""
    skipped: list[str] = field(default_factory=list)
    """Unreadable images that were left out when the set was opened or when a resident set was decoded."""
    repaired: list[str] = field(default_factory=list)
    """Damaged images that were repaired when a resident set was decoded."""
    notes: list[str] = field(default_factory=list)
    """Facts about the set that the user should know: files that the scan left out, classes without images."""
    measured: Measured = UNMEASURED
    """Range, mean and standard deviation of the training images, as far as the config asks for them."""
    found: str = ""
    """Images, classes and splits found, in one line; empty if the source is known by its name."""

    probe_sets: dict[str, "DataSet"] = field(default_factory=dict)
    """The sets of `probe.data` by name; empty if the encoder is probed on this set, or not at all."""

    @property
    def judged_on(self) -> dict[str, "DataSet"]:
        """The labelled sets on which the encoder is probed, by name."""
        return self.probe_sets or ({self.name: self} if self.labelled else {})

    @property
    def watched(self) -> "DataSet":
        """The set that is probed during training: the first of `judged_on`, or this one without labels."""
        return next(iter(self.judged_on.values()), self)

    @property
    def resident(self) -> bool:
        """Return whether the training set is decoded in memory."""
        return isinstance(self.train, ResidentSource)

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.train.class_names)

    @property
    def groups_fingerprint(self) -> str | None:
        """Identifies the groups of the training images, which probes do not divide; None without labels or groups."""
        groups = groups_of(self.train) if self.labelled else None
        return None if groups is None else hashlib.sha256(groups.numpy().tobytes()).hexdigest()

    @property
    def probed_fingerprint(self) -> str:
        """Identifies the images and their groups in the hash of a probe."""
        groups = self.groups_fingerprint
        return (
            self.fingerprint if groups is None else hashlib.sha256(f"{self.fingerprint}{groups}".encode()).hexdigest()
        )

    @property
    def labelled(self) -> bool:
        """Return whether the images have labels, so that they can be probed."""
        return self.classes > 0


def open_sources(config: DataConfig) -> Splits:
    """Open both splits of the source, with a record of the files left out."""
    splits = _opened(config)
    if config.labels == "none" and not config.LABELS_FROM_FILES:
        for split, source in splits.items():
            splits[split] = _without_labels(source)
    return splits


def _without_labels(source: ImageSource) -> ImageSource:
    bare = Unlabelled(source)
    if not isinstance(source, ResidentSource):
        return bare
    return ResidentSource(source.images, bare.labels, bare.class_names, bare.fingerprint(), source.name)


def _opened(config: DataConfig) -> Splits:
    if found := extension_of(config):
        return open_own(found, config)
    opened: Splits = implementation_of(config, IMPLEMENTATIONS)(config)
    return opened


def fingerprint_of(sources: dict[str, ImageSource]) -> str:
    """Return a hex digest that identifies both splits in the hash of a run."""
    return hashlib.sha256("".join(s.fingerprint() for s in sources.values()).encode()).hexdigest()


def whole_sources(config: DataConfig) -> Splits:
    """Open both splits with the numbers of images that the config asks for. Raises ImageError for an unreadable folder
    under `on_error: raise`."""
    sources = open_sources(config)
    if sources.lost and config.on_error == "raise":
        raise ImageError(
            f"{sources.lost[0]}{_and_others(len(sources.lost))}; restore or remove it, or leave it out with "
            "data.on_error=skip"
        )
    for split, limit in (("train", config.train_images), ("val", config.val_images)):
        sources[split] = _limited(sources[split], split, limit)
    return sources


def open_data(config: DataConfig, batch_size: int = 2, processes: int = 1, measured: bool = True) -> DataSet:
    """Open, limit and check the images. If they are to be resident, decode all of them. `measured` tells whether to
    measure what the config asks for.

    `batch_size` is the number of images per process. Raises ConfigError for an empty set, labels that are all the same,
    fewer images than a global batch, or `resident: always` with images of several sizes; raises ImageError for an
    unreadable image or folder under `on_error: raise`.
    """
    sources = whole_sources(config)
    fingerprint = fingerprint_of(sources)
    data = DataSet(
        sources["train"], sources["val"], config.dataset_name, fingerprint, [*sources.lost], found=sources.found
    )
    data.notes += [*sources.notes, *left_out_note(sources)]
    if config.resident != "never":
        _make_resident(data, config)
    for split, source, limit in (
        ("training", data.train, config.train_images),
        ("validation", data.val, config.val_images),
    ):
        if limit is None:  # a limit would explain it
            data.notes += empty_classes(split, source, data.train.class_names)
    refuse_unfit(data.name, data.train, data.val)
    refuse_part_of_a_batch(data.name, data.train.labels.numel(), batch_size, processes)
    if measured and config.unmeasured:
        data.measured = measure(config, data.train)
    return data


def left_out_note(sources: Splits) -> list[str]:
    """Return one line about the files that the scan left out, if there are any."""
    lines = sources.left_out.lines()
    return [f"files left out: {'; '.join(lines)}"] if lines else []


def empty_classes(split: str, source: ImageSource, class_names: Sequence[str]) -> list[str]:
    """Return a line for a split in which some class of the training set has no image."""
    counts = torch.bincount(source.labels, minlength=len(class_names))
    names = [str(class_names[label]) for label in (counts == 0).nonzero().flatten().tolist()]
    return [f"no {split} image of {len(names):,} of {len(class_names):,} classes: {named(names)}"] if names else []


def _and_others(count: int) -> str:
    return f" (and {count - 1:,} others: `cnnjepa data check PATH` names them)" if count > 1 else ""


def refuse_part_of_a_batch(name: str, images: int, batch_size: int, processes: int) -> None:
    """Raise ConfigError if the training images do not fill one global batch. The last, partial batch of an epoch is
    dropped, so there would be no step."""
    if images >= batch_size * processes:
        return
    most = images // processes
    remedy = "give more images"
    if most >= 2:
        remedy = f"runtime.batch_size must be at most {most}"
    elif images >= 2:
        remedy = f"each process needs two images, so use at most {images // 2} of {processes} processes"
    raise ConfigError(
        f"{name}: {images} training image{'s are' if images != 1 else ' is'} fewer than a global batch of "
        f"{batch_size * processes} (runtime.batch_size {batch_size} on {processes} "
        f"process{'es' if processes > 1 else ''}), and a partial batch is dropped; {remedy}"
    )


def _limited(source: ImageSource, split: str, limit: int | None) -> ImageSource:
    count = source.labels.numel()
    if limit is None or limit == count:
        return source
    if limit > count:
        raise ConfigError(
            f"data.{split}_images {limit} is more than the {count} images there are; it must be 2 to {count}"
        )
    return Subset(source, spread(source, limit))


def _make_resident(data: DataSet, config: DataConfig) -> None:
    for split in ("train", "val"):
        source = getattr(data, split)
        if isinstance(source, ResidentSource) or not source.labels.numel():
            continue
        first = first_image(source, config.on_error)
        gib = source.labels.numel() * first.numel() * first.itemsize / 2**30
        # The validation set is kept in memory too if possible. The setting `resident`, which is hashed, is about the
        # training set only.
        must = config.resident == "always" and split == "train"
        if not must and (gib > config.resident_limit_gib or (split == "val" and not data.resident)):
            return
        decoded = decode_all(source, config.on_error, first)
        if isinstance(decoded, str):
            if must:
                _, height, width = first.shape
                raise ConfigError(
                    f"data.resident=always needs images of one size; {decoded} is not {width}x{height} as the first; "
                    "use data.resident=auto or never"
                )
            return
        setattr(data, split, decoded.source)
        data.skipped += decoded.skipped
        data.repaired += decoded.repaired


def refuse_unfit(name: str, train: ImageSource, val: ImageSource) -> None:
    """Raise ConfigError for data that no run can use: an empty split, labels that are all the same, or validation
    labels that are missing from the training set. `name` is the name of the set in the message."""
    count, classes = train.labels.numel(), len(train.class_names)
    if not count or not val.labels.numel():
        raise ConfigError(f"{name}: the {'training' if not count else 'validation'} set is empty")
    if classes and train.labels.unique().numel() < 2:
        raise ConfigError(
            f"{name}: all {count} training images are of one class ({train.class_names[0]}); probes need at least two, "
            "and data.labels=none trains without labels"
        )
    highest = int(val.labels.max())
    if classes and highest >= classes:
        raise ConfigError(
            f"{name}: validation labels reach {highest}, the training set has only classes 0 to {classes - 1}"
        )
