"""Continuation of a finished run for more epochs.

The new run takes over weights, moving average, optimiser state and step counter. From that step on, learning rate,
weight decay and momentum are those that a run of the new length has at the same step. Image order, augmentation and
masks are functions of epoch and step, so that they continue too.
"""

from typing import Any

from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.overrides import differences, flat
from cnnjepa.training.checkpoint import Checkpoint, read_checkpoint

# Hashed settings that may differ from those of the continued run.
MAY_CHANGE = (
    "runtime.epochs", "runtime.device", "runtime.precision", "runtime.compile", "runtime.cuda_graphs",
    "optimizer.lr", "optimizer.clip_norm",
    "schedule.warmup_epochs", "schedule.warmup_start_factor", "schedule.final_lr_factor",
)  # fmt: skip


def continued_checkpoint(config: PretrainConfig, settings: dict[str, Any], steps_per_epoch: int) -> Checkpoint:
    """Return the last checkpoint of the run that `config` continues. `settings` are the hashed settings of `config`.
    Raises ConfigError if a setting differs that must not, or if there are no further epochs."""
    source = config.runtime.continues
    assert source is not None
    state = read_checkpoint(source / "checkpoints" / "last.pt")
    named = f"--from {source} (runtime.continues)"
    if state["pretrain_hash"] != config.runtime.continues_hash:
        raise ConfigError(f"{named}: its checkpoint belongs to another run than its result.json")
    _refuse_changes(named, state["settings"], settings)
    before, epochs = int(state["settings"]["runtime"]["epochs"]), config.runtime.epochs
    if not config.method.TRAINS:
        raise ConfigError(f"{named}: method {config.method.name} trains nothing, so it cannot be continued")
    if epochs <= before:
        raise ConfigError(
            f"{named}: it has {before} epochs and runtime.epochs is {epochs}; give the total number of epochs, for "
            f"example --set runtime.epochs={2 * before}"
        )
    if state["step"] != before * steps_per_epoch:
        raise ConfigError(
            f"{named}: its checkpoint is at step {state['step']} of {before * steps_per_epoch}; resume it first with "
            "--resume"
        )
    return state


def _refuse_changes(named: str, before: dict[str, Any], settings: dict[str, Any]) -> None:
    own = ("runtime.continues_hash", *MAY_CHANGE)
    different = [
        f"  {path}: there {there}, asked {asked}"
        for path, there, asked in differences(flat(before), flat(settings))
        if path not in own
    ]
    if different:
        raise ConfigError(
            f"{named}: a continued run must not change\n" + "\n".join(different) + "\nIt may change "
            f"{', '.join(MAY_CHANGE)}, and settings that change no numbers. For other changes start a new run from its "
            "weights: --set encoder.init=RUN"
        )
