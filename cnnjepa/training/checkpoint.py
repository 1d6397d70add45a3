"""The state of a run on disk: the last checkpoint, the previous one, the best one, and those to be kept."""

import io
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from cnnjepa.commands import command
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.overrides import differences, flat
from cnnjepa.storage.atomic_files import keep_as, write_atomically

FORMAT = 1


class Checkpoint(TypedDict):
    """Everything that a run needs to resume bit for bit: tensors and plain values only (`weights_only` loads it)."""

    format: int
    pretrain_hash: str
    settings: dict[str, Any]
    """The hashed settings, so that a refusal can name the differences."""
    step: int
    """Number of optimiser steps done."""
    method: dict[str, Any]
    optimizer: dict[str, Any]
    window: list[float]
    """Losses since the last logged line."""
    skipped: list[str]
    """Unreadable images found so far."""
    repaired: NotRequired[list[str]]
    """Damaged images found so far that were repaired while reading; absent if there are none."""
    best: list[float]
    """[selection figure, step] of the best probe so far; empty before the first."""
    train_seconds: float
    peak_memory_bytes: NotRequired[int]
    """Peak of training over all sessions so far; absent in checkpoints of earlier versions."""
    started: str
    continued_epochs: NotRequired[int]
    """Number of epochs of the run that this one continues; absent if it continues none."""


def write_checkpoint(folder: Path, state: Checkpoint) -> Path:
    """Write `last.pt`. The checkpoint that was last becomes `previous.pt`. Raises RunError if writing to the disk
    fails."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    last = folder / "last.pt"
    if last.exists():
        keep_as(last, "previous.pt")
    write_atomically(last, buffer.getvalue())
    return last


def read_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint onto the CPU. Raises ConfigError if it is missing, damaged or of another format. The message
    suggests the previous checkpoint if that can be loaded."""
    if not path.is_file():
        raise ConfigError(f"checkpoint {path} does not exist{_alternative(path)}")
    try:
        state: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise ConfigError(f"checkpoint {path} has format {state['format']}; this version reads format {FORMAT}")
    except ConfigError:
        raise
    except Exception as error:  # torch.load raises many kinds for damaged archives
        reason = str(error).strip().splitlines()[0][:120]
        raise ConfigError(f"checkpoint {path} is damaged ({reason}){_alternative(path)}") from None
    return state


def _alternative(path: Path) -> str:
    before = path.with_name("previous.pt")
    if path.name == before.name or not before.is_file():
        return ""
    try:
        step = read_checkpoint(before)["step"]
    except ConfigError:
        return "; previous.pt does not load either"
    return (
        f"; the previous checkpoint loads (step {step}): resume from it with --resume {command('--checkpoint', before)}"
    )


def refuse_other_run(state: Checkpoint, pretrain_hash: str, settings: dict[str, Any], path: Path) -> None:
    """Raise ConfigError if a checkpoint belongs to another config. The message shows both hashes and the
    differences."""
    if state["pretrain_hash"] == pretrain_hash:
        return
    different = [
        f"  {name}: checkpoint {there}, asked {asked}"
        for name, there, asked in differences(flat(state["settings"]), flat(settings))
    ]
    raise ConfigError(
        f"checkpoint {path} belongs to another config: its pretrain_hash is {state['pretrain_hash'][:12]}…, this "
        f"config's is {pretrain_hash[:12]}…. They differ in\n"
        + "\n".join(different)
        + "\nAsk for the same settings to resume, or give another --out."
    )
