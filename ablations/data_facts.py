"""What a plan must know of the images: opened once a data section, however many trials use it."""

from typing import NamedTuple

import torch

from cnnjepa.data import open_data
from cnnjepa.data.held_out import trained_images
from cnnjepa.data.open import refuse_part_of_a_batch
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.training.resolve import Identity, identify, resolve


class SetSize(NamedTuple):
    """How much there is to train on and to probe."""

    train: int
    val: int
    classes: int
    per_class: tuple[int, ...] = ()
    """Training images of every class; empty = not known, taken to be equal."""

    def trained(self, config: PretrainConfig) -> int:
        """Training images that the config's method learns from; see `training_set`."""
        equal = [self.train // self.classes + (place < self.train % self.classes) for place in range(self.classes)]
        return trained_images(config, self.per_class or equal)


class DataFacts(NamedTuple):
    """A data set without its images."""

    name: str
    fingerprint: str
    resident: bool
    size: SetSize


class Resolver:
    """Decides every `auto` of a config and names it, as its trial will: on `device_type` (`cpu` or `cuda`, what a
    trial is given) with `world_size` processes."""

    def __init__(self, device_type: str, world_size: int) -> None:
        self._device, self._world_size = torch.device(device_type), world_size
        self._facts: dict[str, DataFacts] = {}

    def __call__(self, config: PretrainConfig) -> tuple[PretrainConfig, Identity, DataFacts]:
        """(resolved config, its names, its images). Raises ConfigError as `open_data` does, and for a device that
        trials are not given."""
        asked = config.runtime.device
        if asked == "cuda" and self._device.type == "cpu":
            raise ConfigError(
                "runtime.device=cuda: trials are given no GPU here; legal are cpu and auto, or --gpus-per-trial 1 "
                "where there are GPUs"
            )
        facts = self.facts(config)
        refuse_part_of_a_batch(facts.name, facts.size.trained(config), config.runtime.batch_size, self._world_size)
        resolved = resolve(config, facts.resident, torch.device("cpu") if asked == "cpu" else self._device)
        return resolved, identify(resolved, facts.fingerprint, self._world_size), facts

    def facts(self, config: PretrainConfig) -> DataFacts:
        """What is known of the config's images; they are opened at the first call."""
        section = config.data.model_dump_json(exclude={"augmentation", "mean", "std"})  # what is done to images later
        if section not in self._facts:
            data = open_data(config.data)
            labels = data.train.labels
            per_class = tuple(torch.bincount(labels, minlength=data.classes).tolist())
            size = SetSize(labels.numel(), data.val.labels.numel(), data.classes, per_class)
            self._facts[section] = DataFacts(data.name, data.fingerprint, data.resident, size)
        return self._facts[section]
