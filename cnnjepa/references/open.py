"""Opening of the encoder that a user names."""

from pathlib import Path
from typing import Literal

from cnnjepa.references.encoder import Opened, ReferencedEncoder, tried
from cnnjepa.references.preprocessing import NO_OVERRIDES, PreprocessingOverrides
from cnnjepa.references.request import EncoderRequest, encoder_request
from cnnjepa.schemas import ConfigError


def open_encoder(
    reference: str,
    *,
    root: Path = Path(),
    which: Literal["target", "context"] | None = None,
    checkpoint: str = "last.pt",
    overrides: PreprocessingOverrides = NO_OVERRIDES,
) -> ReferencedEncoder:
    """Return the encoder that `reference` names: a run folder, a run's hash or its beginning, an exported folder or
    file, `torchvision:NAME[:WEIGHTS]` (default weights), `timm:NAME` (untrained) or `timm:NAME:pretrained`,
    `random:PRESET[:SEED]` (the preset's encoder untrained, with untouched batch-norm statistics), or
    `package.module:Class` of the user (a class or function without arguments).

    `root` is the folder of `runs/by_hash`. `which` and `checkpoint` are for runs only. `overrides` states what the
    encoder's description leaves open, or another image size. Raises ConfigError for everything that a user can get
    wrong.
    """
    request = encoder_request(reference, root)
    if request.kind != "run" and (which is not None or checkpoint != "last.pt"):
        option = f"--encoder {which}" if which is not None else f"--checkpoint {checkpoint}"
        raise ConfigError(f"{option} chooses within a run, and encoder {reference} is not a run")
    if request.kind == "run":
        from cnnjepa.references.own_encoders import open_run

        return tried(open_run(request, which, checkpoint, overrides), reference)
    return tried(_opened(request, overrides), reference)


def _opened(request: EncoderRequest, overrides: PreprocessingOverrides) -> Opened:
    if request.kind == "torchvision":
        from cnnjepa.references.torchvision_networks import open_torchvision

        return open_torchvision(request, overrides)
    if request.kind == "timm":
        from cnnjepa.references.timm_networks import open_timm

        return open_timm(request, overrides)
    if request.kind == "own":
        from cnnjepa.references.user_networks import open_user_network

        return open_user_network(request, overrides)
    from cnnjepa.references.own_encoders import open_export, open_random

    return open_export(request, overrides) if request.kind == "export" else open_random(request, overrides)
