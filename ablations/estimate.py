"""Estimate of a study before anything is run: parameters, FLOPs, hours, GPU-hours and disk."""

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from cnnjepa.ablations.data_facts import SetSize
from cnnjepa.measuring.cost import MethodCost, method_cost
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.hashing import probe_settings_in_training
from cnnjepa.training.floor_store import floor_settings

# Raw pixels are probed at 32x32 at most (cnnjepa.probes.features).
_PIXEL_DIM = 3 * 32 * 32


class TrialEstimate(NamedTuple):
    """Estimate of one trial."""

    cost: MethodCost
    train_hours: float | None
    """Wall hours of the training steps; None if no speed is known."""
    probe_hours: float | None
    """Wall hours of probes and floors, at the FLOPs per second of training: correct within a factor of two
    (docs/log.md)."""
    disk_bytes: int
    """Checkpoints: the last, the previous, the best, and those kept permanently."""

    @property
    def hours(self) -> float | None:
        """Training and probe hours together."""
        return None if self.train_hours is None or self.probe_hours is None else self.train_hours + self.probe_hours


def training_of(config: PretrainConfig) -> str:
    """Return a key that configs share if one training serves them all: everything but the probes."""
    return config.model_dump_json(exclude={"probe"}) + json.dumps(probe_settings_in_training(config))


def estimates(
    configs: Sequence[PretrainConfig],
    size: SetSize | None,
    images_per_s: float | None,
    world_size: int = 1,
    trained: Collection[str] = (),
) -> list[TrialEstimate]:
    """Return one estimate per config.

    `images_per_s` is the speed of one process for the first config that trains; the speeds of the others follow from
    their FLOPs. Training and checkpoints count in the first config that has them, unless they are already among
    `trained` (see `training_of`). Floors count where they are first measured, since trials share them.
    """
    known: dict[str, MethodCost] = {}
    costs: list[MethodCost] = []
    for config in configs:
        key = config.model_copy(update={"runtime": config.runtime.model_copy(update={"seed": 0})}).model_dump_json()
        if key not in known:
            known[key] = method_cost(config)
        costs.append(known[key])
    step_flops = next((cost.flops_per_image for cost in costs if cost.flops_per_image), None)
    found: list[TrialEstimate] = []
    floors: set[str] = set()
    seen = set(trained)
    for config, cost in zip(configs, costs, strict=True):
        train_hours = probe_hours = None
        new_training = training_of(config) not in seen
        seen.add(training_of(config))
        if size and images_per_s and step_flops:
            flops_per_s = images_per_s * step_flops
            train = size.trained(config) * config.trained_epochs * cost.flops_per_image / world_size * new_training
            asked = {floor: json.dumps(floor_settings(floor, config)) for floor in config.probe.requested_floors}
            new = {floor for floor, settings in asked.items() if settings not in floors}
            floors |= set(asked.values())
            probes = probe_flops(
                config, cost, size, untrained="untrained" in new, pixels="pixels" in new, training=new_training
            )
            train_hours, probe_hours = train / flops_per_s / 3600, probes / flops_per_s / 3600
        found.append(TrialEstimate(cost, train_hours, probe_hours, _disk(cost, config) * new_training))
    return found


def probe_flops(
    config: PretrainConfig, cost: MethodCost, size: SetSize, untrained: bool, pixels: bool, training: bool = True
) -> float:
    """Return the FLOPs of everything that is probed in a run: features, linear layers, neighbours, the online probes
    during its `training`, and the floors that are measured in it."""
    probe = config.probe
    online_probes = max(0, config.trained_epochs - 1) // probe.every_epochs if training and probe.every_epochs else 0
    if not size.classes:  # without labels, only the features of validation images are diagnosed
        return (size.val + online_probes * min(size.val, probe.online_images)) * cost.encoder_flops
    dims = [cost.feature_dim, *([cost.feature_dim] if untrained else []), *([_PIXEL_DIM] if pixels else [])]
    features = (size.train + size.val) * cost.encoder_flops * (1 + untrained)
    online_probe = min(size.train, probe.online_images) * cost.encoder_flops
    # `held_out` trains with every rate, then refits with one rate for about half of the epochs. A linear layer on kept
    # features costs its product and the gradient of its weights.
    fits = ("published" in probe.protocols) + (len(probe.held_out_lrs) + 0.5) * ("held_out" in probe.protocols)
    linear = sum(4 * size.train * size.classes * dim * probe.linear_epochs * fits for dim in dims)
    neighbours = sum(2 * size.train * (size.val + probe.held_out_fraction * size.train) * dim for dim in dims)
    return features + online_probes * online_probe + linear + len(probe.protocols) * neighbours


def _disk(cost: MethodCost, config: PretrainConfig) -> int:
    """Return the checkpoint bytes: float32 weights of both encoders and the predictor, and AdamW's two moments of the
    trained weights."""
    trained = cost.encoder_params + cost.predictor_params
    size = 4 * (trained + cost.encoder_params + 2 * trained)
    checkpoints = 2 + bool(config.probe.every_epochs) + len(config.runtime.keep_epochs)
    return size * checkpoints
