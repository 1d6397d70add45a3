"""Sizes, labels and fingerprint of the images that a plan needs. Each data section is opened once for all trials."""

from pathlib import Path
from typing import NamedTuple

import torch

from cnnjepa.data import open_data
from cnnjepa.data.held_out import GroupedLabels, grouped_labels, refuse_unlabelled, trained_images
from cnnjepa.data.open import refuse_part_of_a_batch
from cnnjepa.schemas import AnyEncoderConfig, ConfigError, PretrainConfig
from cnnjepa.schemas.pixels import UNMEASURED, Measured
from cnnjepa.training.probed_images import open_probe_sets
from cnnjepa.training.resolve import Identity, identify, resolve, with_probe_fingerprints
from cnnjepa.warm_start.starting import with_continued_run, with_initial_weights


class SetSize(NamedTuple):
    """Number of images to train on and to probe with."""

    train: int
    val: int
    classes: int
    """0 without labels."""
    per_class: tuple[int, ...] = ()
    """Training images of every class; empty if unknown, and then the classes are assumed to be equally large."""
    grouped: GroupedLabels | None = None
    """Labels and groups of the training images; None without `data.groups`."""

    def trained(self, config: PretrainConfig) -> int:
        """Return the number of training images that the config's method learns from; see `training_set`."""
        equal = [self.train // self.classes + (place < self.train % self.classes) for place in range(self.classes)]
        return trained_images(config, self.per_class or equal, self.grouped)


class DataFacts(NamedTuple):
    """Name, fingerprint and size of a data set, without its images."""

    name: str
    fingerprint: str
    resident: bool
    size: SetSize
    measured: Measured = UNMEASURED
    groups: str | None = None
    """Fingerprint of the groups of the training images; None without `data.groups` or labels."""


class Resolver:
    """Resolver of every `auto` setting of a config, and of its hashes. It decides as the trial itself does: on
    `device_type` (`cpu` or `cuda`, the device that a trial gets) with `world_size` processes. `root` is the folder of
    `runs/by_hash`."""

    def __init__(self, device_type: str, world_size: int, root: Path = Path()) -> None:
        self._device, self._world_size, self._root = torch.device(device_type), world_size, root
        self._starts: dict[str, AnyEncoderConfig] = {}
        self._facts: dict[str, DataFacts] = {}
        self._probed: dict[str, list[str]] = {}

    def __call__(self, config: PretrainConfig) -> tuple[PretrainConfig, Identity, DataFacts]:
        """Return (resolved config, its hashes, its data set). Raises ConfigError for the same reasons as `open_data`,
        and for a device that trials do not get."""
        asked = config.runtime.device
        if asked == "cuda" and self._device.type == "cpu":
            raise ConfigError(
                "runtime.device=cuda: trials get no GPU here; use cpu or auto, or give --gpus-per-trial 1 "
                "where there are GPUs"
            )
        facts = self.facts(config)
        refuse_unlabelled(config, facts.size.classes > 0, facts.name)
        refuse_part_of_a_batch(facts.name, facts.size.trained(config), config.runtime.batch_size, self._world_size)
        device = torch.device("cpu") if asked == "cpu" else self._device
        resolved = resolve(
            config, facts.resident, device, self._probe_fingerprints(config), facts.measured, facts.groups
        )
        resolved = self._with_start(with_continued_run(resolved, self._root))
        return resolved, identify(resolved, facts.fingerprint, self._world_size), facts

    def _with_start(self, config: PretrainConfig) -> PretrainConfig:
        """Return the config with the fingerprint of its initial weights. The first call reads them."""
        if not config.encoder.warm:
            return config
        section = f"{config.encoder.model_dump_json(exclude={'init_fingerprint'})} {config.data.channels}"
        if section not in self._starts:
            self._starts[section] = with_initial_weights(config, self._root)[0].encoder
        return config.model_copy(update={"encoder": self._starts[section]})

    def with_probe_sets(self, config: PretrainConfig) -> PretrainConfig:
        """Return the config with the fingerprints of the sets of `probe.data`."""
        return with_probe_fingerprints(config, self._probe_fingerprints(config)) if config.probe.data else config

    def _probe_fingerprints(self, config: PretrainConfig) -> list[str]:
        """Return the fingerprints of the sets of `probe.data`. The first call opens them."""
        if not config.probe.data:
            return []
        section = f"{config.probe.data} {config.data.image_size} {config.data.on_error}"
        if section not in self._probed:
            self._probed[section] = [images.probed_fingerprint for images in open_probe_sets(config).values()]
        return self._probed[section]

    def facts(self, config: PretrainConfig) -> DataFacts:
        """Return the facts about the config's images. The first call opens them."""
        # settings that are applied to images later, unless they are measured on them
        later = {"augmentation"} if config.data.unmeasured else {"augmentation", "range", "mean", "std"}
        section = config.data.model_dump_json(exclude=later)
        if section not in self._facts:
            data = open_data(config.data)
            labels = data.train.labels
            per_class = tuple(torch.bincount(labels, minlength=data.classes).tolist())
            size = SetSize(labels.numel(), data.val.labels.numel(), data.classes, per_class, grouped_labels(data))
            self._facts[section] = DataFacts(
                data.name, data.fingerprint, data.resident, size, data.measured, data.groups_fingerprint
            )
        return self._facts[section]
