"""Probing a run alone, while nobody trains in its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnjepa.cost import method_cost
from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Order
from cnnjepa.data.held_out import trained_images
from cnnjepa.pretrained import load_encoder
from cnnjepa.probes import assess
from cnnjepa.schemas import ConfigError, PretrainConfig, SupervisedConfig, TrialResult, probe_hash, read_config
from cnnjepa.schemas.overrides import parse_override
from cnnjepa.training import distributed
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.conclude import finished_result, run_cost
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment
from cnnjepa.training.failures import explaining
from cnnjepa.training.journal import final_loss
from cnnjepa.training.probed_images import probe_config
from cnnjepa.training.resolve import Identity
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.stopping import StopRequest


def reprobe(
    run_dir: Path,
    checkpoint: str = "last.pt",
    overrides: list[str] | None = None,
    data_path: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[TrialResult, bool]:
    """The result under the probe settings asked for, and whether `result.json` was rewritten: only for the last
    checkpoint of a completed run on its own data. Raises ConfigError for anything that cannot be probed, Stopped after
    a signal, with nothing written."""
    folder = RunFolder(run_dir)
    if not folder.begun:
        raise ConfigError(f"{run_dir} is not a run folder: it has no config.yaml")
    state = read_checkpoint(folder.checkpoints / checkpoint)
    config, own_images = probe_config(
        read_config(run_dir / "config.yaml"), state["settings"], overrides or [], data_path
    )
    changed = [parse_override(text)[0] for text in overrides or []]
    # A run trained on a GPU may be probed where there is none, unless a device is asked for.
    elsewhere = config.runtime.device == "cuda" and "runtime.device" not in changed
    device = distributed.pick_device("auto" if elsewhere else config.runtime.device)
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": device.type})})
    if own_images:
        _refuse_another_split(config, state["settings"])

    data = open_data(config.data)
    network: nn.Module = load_encoder(run_dir, config.probed_encoder, checkpoint).to(device)
    if config.runtime.channels_last:
        network = network.to(memory_format=torch.channels_last)
    with StopRequest() as stop, folder.locked(), explaining(config):
        assessment = assess(network, config, data, device, run_dir, stop.tick, say)
        world_size = int(state["settings"]["world_size"])
        before = folder.read_result()
        processes = Processes(0, 1, device)
        cost = (before and before.cost) or run_cost(
            config, state["step"], state["train_seconds"], method_cost(config), processes
        )
        result = finished_result(
            config,
            data,
            Identity(state["pretrain_hash"], probe_hash(config), state["settings"]),
            environment(processes),
            assessment,
            cost,
            state["started"],
            final_loss(run_dir, state["step"]),
            state["skipped"],
        )
        order = Order(
            _images_of_an_epoch(config, data, state["settings"]),
            config.runtime.batch_size,
            0,
            world_size,
            config.runtime.seed,
        )
        complete = state["step"] == Schedule(config, order.steps_per_epoch).total_steps
        own_data = own_images and data.fingerprint == state["settings"]["data"]["fingerprint"]
        rewrite = complete and checkpoint == "last.pt" and own_data
        if rewrite:
            folder.write_result(result)
    return result, rewrite


def _images_of_an_epoch(config: PretrainConfig, data: DataSet, settings: dict[str, Any]) -> int:
    """Training images that the run learned from. Supervised runs of earlier versions, whose checkpoints name no split,
    learned from all of them."""
    labels = data.train.labels
    return trained_images(config, torch.bincount(labels).tolist()) if "probe" in settings else labels.numel()


def _refuse_another_split(config: PretrainConfig, settings: dict[str, Any]) -> None:
    """Raises ConfigError when a supervised run would be probed on a held-out part that it was trained on."""
    if not isinstance(config.method, SupervisedConfig):
        return
    for name, trained_with in settings.get("probe", {}).items():
        if (asked := getattr(config.probe, name)) != trained_with:
            raise ConfigError(
                f"--set probe.{name}={asked}: this supervised run left out the images that probe.{name}={trained_with} "
                "holds out; another split would hold out images whose labels it was trained on. Leave out this --set"
            )
