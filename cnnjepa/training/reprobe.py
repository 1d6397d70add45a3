"""Probing a run alone, after or during its training."""

from collections.abc import Callable
from pathlib import Path

import torch

from cnnjepa.cost import method_cost
from cnnjepa.data import open_data
from cnnjepa.data.batches import Order
from cnnjepa.methods import build_method
from cnnjepa.probes import assess
from cnnjepa.schemas import ConfigError, TrialResult, load_config, probe_hash
from cnnjepa.training import distributed
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.conclude import finished_result, now, run_cost
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment
from cnnjepa.training.journal import final_loss
from cnnjepa.training.resolve import Identity
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.state import RunState

# What may be asked differently of a run that is trained already.
_MAY_CHANGE = ("probe.", "runtime.device", "runtime.workers", "runtime.threads", "data.path")


def reprobe(
    run_dir: Path,
    checkpoint: str = "last.pt",
    overrides: list[str] | None = None,
    data_path: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[TrialResult, bool]:
    """The result under the probe settings asked for, and whether `result.json` was rewritten: only for the last
    checkpoint of a completed run on its own data. Raises ConfigError for anything that cannot be probed."""
    folder = RunFolder(run_dir)
    if not folder.begun:
        raise ConfigError(f"{run_dir} is not a run folder: it has no config.yaml")
    trained = load_config(file=run_dir / "config.yaml")
    device = distributed.pick_device("auto" if trained.runtime.device == "cuda" else trained.runtime.device)
    config = load_config(file=run_dir / "config.yaml", overrides=overrides or [], data=data_path)
    _refuse_other_changes(overrides or [])
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": device.type})})
    state_dict = read_checkpoint(folder.checkpoints / checkpoint)

    data = open_data(config.data)
    method = build_method(config)
    method.load_state_dict(state_dict["method"])
    method.to(device).eval()
    if config.runtime.channels_last:
        method.to(memory_format=torch.channels_last)
    with folder.locked():
        assessment = assess(method.probed_encoder(config.probe.encoder), config, data, device, run_dir, say=say)
        identity = Identity(state_dict["pretrain_hash"], probe_hash(config), state_dict["settings"])
        world_size = int(state_dict["settings"]["world_size"])
        processes = Processes(0, 1, device)
        state = RunState(method, torch.optim.AdamW(method.parameters()), identity, folder.checkpoints, now())
        state.step, state._seconds = state_dict["step"], state_dict["train_seconds"]
        result = finished_result(
            config,
            data,
            identity,
            environment(processes),
            assessment,
            run_cost(config, state, method_cost(config, method), processes),
            state_dict["started"],
            final_loss(run_dir),
            state_dict["skipped"],
        )
        before = folder.read_result()
        if before and before.cost:  # what training cost was measured then
            result = result.model_copy(update={"cost": before.cost})
        order = Order(data.train.labels.numel(), config.runtime.batch_size, 0, world_size, config.runtime.seed)
        complete = state_dict["step"] == Schedule(config, order.steps_per_epoch).total_steps
        rewrite = complete and checkpoint == "last.pt" and data_path is None
        if rewrite:
            folder.write_result(result)
    return result, rewrite


def _refuse_other_changes(overrides: list[str]) -> None:
    from cnnjepa.schemas.overrides import parse_override

    for text in overrides:
        path, _ = parse_override(text)
        if not path.startswith(_MAY_CHANGE):
            raise ConfigError(f"--set {text}: a trained run's {path} cannot change; legal here are probe.* fields")
