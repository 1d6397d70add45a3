"""Loading of a pretrained encoder from a run folder, for use in other programs."""

from pathlib import Path
from typing import Literal

import torch

from cnnjepa.encoders import Backbone, build_backbone
from cnnjepa.methods.build import method_class
from cnnjepa.places import refuse_no_run
from cnnjepa.schemas import ConfigError, read_config
from cnnjepa.training.checkpoint import read_checkpoint


def load_encoder(
    run: str | Path, which: Literal["target", "context"] | None = None, checkpoint: str = "last.pt"
) -> Backbone:
    """Load the encoder of a run in eval mode, on the CPU: images [B, `data.channels`, H, W] → features [B, C, H/s,
    W/s]. `which` selects the encoder; the default is the one that the run probes.

    Parameter names of a ResNet are torchvision's; at width 1, imagenet stem and four stages
    `torchvision.models.<arch>().load_state_dict(encoder.state_dict(), strict=False)` misses only `fc`. Images must be
    normalised with the run's `data.mean` and `data.std`. Raises ConfigError if the run or its checkpoint does not
    exist, or if the target encoder is requested from a method without one.
    """
    run = Path(run)
    refuse_no_run(run)
    config = read_config(run / "config.yaml")
    state = read_checkpoint(run / "checkpoints" / checkpoint)["method"]
    which = which or config.probed_encoder
    if which == "target" and config.method.moving_average is None:
        raise ConfigError(f"{run}: method {config.method.name} has no target encoder; ask for the context encoder")
    backbone = build_backbone(config.encoder, config.runtime.seed, config.data.channels)
    prefix = f"{method_class(config.method).encoders[which]}."
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return backbone.eval().to(memory_format=torch.contiguous_format)
