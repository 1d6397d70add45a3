"""Resuming from a checkpoint, and refusal of a checkpoint of another config."""

from pathlib import Path

from cnnjepa.schemas import ConfigError, PretrainConfig, read_config
from cnnjepa.schemas.hashing import hashed_settings
from cnnjepa.schemas.overrides import differences, flat
from cnnjepa.training.checkpoint import read_checkpoint, refuse_other_run
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.state import RunState


def restore(state: RunState, config: PretrainConfig, folder: RunFolder, checkpoint: Path | None) -> None:
    """Load the checkpoint to resume from, if there is one. Raises ConfigError if it belongs to another config."""
    path = checkpoint or folder.checkpoints / "last.pt"
    if checkpoint is None and not path.exists() and not (folder.checkpoints / "previous.pt").exists():
        _refuse_other_config(config, folder)
        return
    loaded = read_checkpoint(path)
    refuse_other_run(loaded, state.identity.pretrain_hash, state.identity.settings, path)
    state.restore(loaded)


def _refuse_other_config(config: PretrainConfig, folder: RunFolder) -> None:
    """Check that the config in a folder without a checkpoint equals this one."""
    path = folder.path / "config.yaml"
    if not folder.begun:
        return
    mine, earlier = (flat(hashed_settings(c, "", 1)) for c in (config, read_config(path)))
    different = [f"{name}: there {there}, asked {asked}" for name, there, asked in differences(earlier, mine)]
    if different:
        raise ConfigError(f"{path} is another config ({'; '.join(different)}); give another --out")
