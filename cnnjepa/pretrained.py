"""A pretrained encoder out of a run folder, for use elsewhere."""

from pathlib import Path
from typing import Literal

import torch

from cnnjepa.encoders import ResNetTrunk, build_trunk
from cnnjepa.schemas import ConfigError, read_config
from cnnjepa.training.checkpoint import read_checkpoint


def load_encoder(
    run: str | Path, which: Literal["target", "context"] = "target", checkpoint: str = "last.pt"
) -> ResNetTrunk:
    """The encoder of a run in eval mode, on the CPU: images [B, 3, S, S] → features [B, C, G, G].

    Parameter names are torchvision's; at width 1, imagenet stem and four stages
    `torchvision.models.<arch>().load_state_dict(encoder.state_dict(), strict=False)` misses only `fc`. Images
    are normalised with the run's `data.mean` and `data.std`. Raises ConfigError when the run or its checkpoint
    does not exist.
    """
    run = Path(run)
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} is not a run folder: it has no config.yaml")
    config = read_config(run / "config.yaml")
    state = read_checkpoint(run / "checkpoints" / checkpoint)["method"]
    prefix = "target_encoder." if which == "target" else "context_encoder.network."
    trunk = build_trunk(config.encoder, config.runtime.seed)
    trunk.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return trunk.eval().to(memory_format=torch.contiguous_format)
