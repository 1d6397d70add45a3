"""Small configs of I-JEPA, SparK and LeJEPA."""

from cnnjepa.schemas import PretrainConfig, load_config

IJEPA_SMALL = (
    "method.name=ijepa", "arch=vit_tiny", "patch_size=4", "min_keep=4", "predictor.depth=2", "predictor.dim=48",
)  # fmt: skip


def asked(name: str, *more: str) -> PretrainConfig:
    own = {
        "ijepa": IJEPA_SMALL,
        "spark": ("method.name=spark",),
        "lejepa": ("method.name=lejepa", "hidden_dim=24", "output_dim=8", "slices=32", "local_views=3"),
    }[name]
    return load_config("smoke", overrides=[*own, "runtime.batch_size=6", *more])
