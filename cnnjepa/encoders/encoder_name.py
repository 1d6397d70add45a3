"""Short names of encoders, for results and tables."""

from cnnjepa.schemas import AnyEncoderConfig, ConvNeXtConfig, CustomEncoderConfig, ViTConfig
from cnnjepa.schemas.encoder import OwnEncoderSection
from cnnjepa.schemas.numbers import exact


def encoder_name(config: AnyEncoderConfig) -> str:
    """Return a short name such as `resnet18/small/3 stages/x0.375` or `vit_small/16`. Default settings of a residual
    network are left out."""
    match config:
        case ViTConfig():
            blocks = f"/{config.blocks} blocks" if config.blocks != 12 else ""
            return f"{config.arch}/{config.patch_size}{blocks}"
        case CustomEncoderConfig() | OwnEncoderSection():
            return config.module
        case ConvNeXtConfig():
            return config.arch + (f"/x{exact(config.width)}" if config.width != 1 else "")
    parts: list[str] = [config.arch]
    parts += [config.stem] if config.stem != "imagenet" else []
    parts += [f"{config.stages} stages"] if config.stages != 4 else []
    parts += [f"x{exact(config.width)}"] if config.width != 1 else []
    return "/".join(parts)
