"""Probing of an existing run, without training, while no process trains in its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Order
from cnnjepa.data.held_out import grouped_labels, refuse_undividable, trained_images
from cnnjepa.measuring.cost import method_cost
from cnnjepa.methods import Method, build_method
from cnnjepa.places import refuse_no_run
from cnnjepa.pretrained import load_encoder
from cnnjepa.probes import assess
from cnnjepa.schemas import ConfigError, Cost, PretrainConfig, TrialResult, probe_hash, read_config
from cnnjepa.schemas.extension import extensions_in
from cnnjepa.schemas.overrides import parse_overrides
from cnnjepa.storage.journal import final_loss
from cnnjepa.training import distributed
from cnnjepa.training.checkpoint import Checkpoint, read_checkpoint
from cnnjepa.training.conclude import CompletedTraining, earlier_cost, finished_result, run_cost, start_of, trained_on
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment
from cnnjepa.training.failures import explaining
from cnnjepa.training.probed_images import open_probe_sets, probe_config, probe_fingerprints
from cnnjepa.training.resolve import Identity, with_probe_fingerprints
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.stopping import StopRequest
from cnnjepa.warm_start.initial_weights import initial_weights_of


class Reprobed(NamedTuple):
    """Outcome of probing again."""

    result: TrialResult
    written: Path | None
    """File to which the result was added; None if nothing was written."""
    note: str
    """Location of the result, or the reason why it was not written."""


def reprobe(
    run_dir: Path,
    checkpoint: str = "last.pt",
    overrides: list[str] | None = None,
    data_path: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Reprobed:
    """Probe a run under the requested probe settings. The result of a completed run's last checkpoint on its own data
    is added to the run folder; no earlier result is replaced. Raises ConfigError for anything that cannot be probed,
    and Stopped after a signal, with nothing written."""
    folder = RunFolder(run_dir)
    refuse_no_run(run_dir)
    state = read_checkpoint(folder.checkpoints / checkpoint)
    config, own_images = probe_config(
        read_config(run_dir / "config.yaml"), state["settings"], overrides or [], data_path
    )
    changed = [path for path, _ in parse_overrides(overrides or [])]
    # A run trained on a GPU may be probed without one, unless a device is requested.
    elsewhere = config.runtime.device == "cuda" and "runtime.device" not in changed
    device = distributed.pick_device("auto" if elsewhere else config.runtime.device)
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": device.type})})

    data = open_data(config.data)
    data.probe_sets = open_probe_sets(config)
    config = with_probe_fingerprints(config, probe_fingerprints(data), data.groups_fingerprint)
    refuse_undividable(config, data)
    if own_images:
        _refuse_another_split(config, state["settings"])
    network: nn.Module = load_encoder(run_dir, config.probed_encoder, checkpoint).to(device)
    if config.runtime.channels_last:
        network = network.to(memory_format=torch.channels_last)
    identity = Identity(state["pretrain_hash"], probe_hash(config), state["settings"])
    initial = initial_weights_of(run_dir, config)
    with StopRequest() as stop, folder.locked(), explaining(config):
        method = _method(config, state, device)
        given = initial.state if initial else None
        assessment = assess(network, config, data, device, run_dir, stop.tick, say, method=method, initial=given)
        here = environment(Processes(0, 1, device))
        training = CompletedTraining(
            trained_on(folder, state["step"], here),
            earlier_cost(folder, identity) or _cost(config, state),
            state["started"],
            final_loss(run_dir, state["step"]),
            state["skipped"],
            list(state.get("repaired", ())),
            start_of(config, initial.described if initial else None, state.get("continued_epochs")),
        )
        result = finished_result(config, data, identity, training, assessment, here)
        own_images = own_images and data.fingerprint == state["settings"]["data"]["fingerprint"]
        return _added(folder, result, _shown_only(config, data, state, checkpoint, own_images))


def _method(config: PretrainConfig, state: Checkpoint, device: torch.device) -> Method | None:
    """Return the trained method, for its loss on held-out images. None if it has no such loss, or if the source of the
    run's own classes has changed since the training."""
    sources = {found.named: found.fingerprint for found in extensions_in(config)}
    if config.method.LEARNS_FROM_LABELS or sources != state["settings"].get("sources", {}):
        return None
    method = build_method(config).to(device)
    if config.runtime.channels_last:
        method = method.to(memory_format=torch.channels_last)
    method.load_state_dict(state["method"])
    return method


def _cost(config: PretrainConfig, state: Checkpoint) -> Cost:
    """Return the cost of the training, from the checkpoint alone, for the device on which it was trained."""
    settings = state["settings"]
    runtime = config.runtime.model_copy(update={"device": settings["runtime"]["device"]})
    trained = config.model_copy(update={"runtime": runtime})
    peak = state.get("peak_memory_bytes")
    return run_cost(trained, method_cost(config), state["step"], state["train_seconds"], peak, settings["world_size"])


def _shown_only(
    config: PretrainConfig, data: DataSet, state: Checkpoint, checkpoint: str, own_images: bool
) -> str | None:
    """Return the reason why the figures do not belong to the run, or None if they do."""
    settings = state["settings"]
    if not own_images:
        return "these are not the images that the run was trained with"
    if checkpoint != "last.pt":
        return f"{checkpoint} is not the run's last checkpoint"
    images = _images_of_an_epoch(config, data, settings)
    order = Order(images, config.runtime.batch_size, 0, settings["world_size"], config.runtime.seed)
    total = Schedule(config, order.steps_per_epoch).total_steps
    return None if state["step"] == total else f"the run is not complete (step {state['step']} of {total})"


def _added(folder: RunFolder, result: TrialResult, shown_only: str | None) -> Reprobed:
    """Add the result, unless figures of the same settings exist or `shown_only` gives a reason not to."""
    if shown_only:
        return Reprobed(result, None, f"shown only, nothing was written: {shown_only}")
    there = folder.read_result(result.probe_hash)
    if there and there.has_figures:
        same = "the same figures" if _same(there, result) else "other figures, which are kept"
        return Reprobed(
            result, None, f"nothing was written: {folder.file_of(result.probe_hash)} has {same} of these settings"
        )
    path = folder.write_result(result)
    return Reprobed(result, path, f"added as {path}" + ("" if path.parent == folder.path else "; result.json stays"))


def _same(there: TrialResult, result: TrialResult) -> bool:
    """Return whether two results have the same figures. Diagnostics that the earlier one lacks are not compared: it may
    come from a version that did not measure them."""
    if there.diagnostics and result.diagnostics:
        lacking = {name: None for name, value in there.diagnostics if value is None and name != "collapse_evidence"}
        result = result.model_copy(update={"diagnostics": result.diagnostics.model_copy(update=lacking)})
    return there.lasting() == result.lasting()


def _images_of_an_epoch(config: PretrainConfig, data: DataSet, settings: dict[str, Any]) -> int:
    """Return the number of training images from which the run learned. Supervised runs of earlier versions, whose
    checkpoints name no split, learned from all images."""
    labels = data.train.labels
    return (
        trained_images(config, torch.bincount(labels).tolist(), grouped_labels(data))
        if "probe" in settings
        else labels.numel()
    )


def _refuse_another_split(config: PretrainConfig, settings: dict[str, Any]) -> None:
    """Raise ConfigError if a supervised run would be probed on a held-out part on which it was trained."""
    if not config.method.LEARNS_FROM_LABELS:
        return
    trained = settings.get("probe", {})
    if trained and config.probe.held_out_groups != trained.get("held_out_groups"):
        raise ConfigError(
            "this supervised run left out other images than the probes hold out now: whole groups (data.groups). Train "
            "it again"
        )
    for name, trained_with in trained.items():
        if (asked := getattr(config.probe, name)) != trained_with:
            raise ConfigError(
                f"--set probe.{name}={asked}: this supervised run left out the images that probe.{name}={trained_with} "
                "holds out; another split would hold out images whose labels it was trained on. Leave out this --set"
            )
