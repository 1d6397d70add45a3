"""The vision transformer against timm's, and its positions."""

import math

import pytest
import torch
from masked_method_configs import asked
from torch import nn

from cnnjepa.encoders.vit import ViTBackbone, build_vit, positions
from cnnjepa.methods import build_method
from cnnjepa.schemas import ConfigError, ViTConfig


@pytest.mark.parametrize(
    ("arch", "width", "heads"), [("vit_tiny", 192, 3), ("vit_small", 384, 6), ("vit_base", 768, 12)]
)
def test_the_transformer_has_timms_parameters_and_names(arch: str, width: int, heads: int) -> None:
    import timm

    with torch.device("meta"):
        ours = ViTBackbone(ViTConfig(arch=arch))  # type: ignore[arg-type]
        stock = timm.create_model(f"{arch}_patch16_224", class_token=False, global_pool="avg", pos_embed="none")
    theirs = {k: v.shape for k, v in stock.state_dict().items() if not k.startswith(("head", "fc_norm"))}
    mine = {k: v.shape for k, v in ours.state_dict().items() if not k.startswith("norm")}
    assert mine == theirs
    assert (ours.feature_dim, ours.heads) == (width, heads)


def timms(backbone: ViTBackbone, grid: int) -> nn.Module:
    """timm's network with the backbone's weights and positions."""
    from timm.models.vision_transformer import VisionTransformer

    p = backbone.total_stride
    stock = VisionTransformer(
        img_size=grid * p, patch_size=p, embed_dim=backbone.feature_dim, depth=len(backbone.blocks),
        num_heads=backbone.heads, class_token=False, global_pool="avg", num_classes=0, fc_norm=False,
    ).double()  # fmt: skip
    codes = positions(grid, backbone.feature_dim, torch.zeros(1).double())
    stock.load_state_dict({**backbone.state_dict(), "pos_embed": codes[None]})
    return stock


def test_the_transformers_features_are_timms_for_all_tokens_and_for_some() -> None:
    backbone = build_vit(ViTConfig(arch="vit_tiny", patch_size=8, blocks=5), 0).double()
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    stock = timms(backbone, 6)
    whole = stock.forward_features(images)  # type: ignore[operator]
    torch.testing.assert_close(backbone(images).flatten(2).transpose(1, 2), whole, rtol=1e-9, atol=1e-10)
    keep = torch.tensor([[0, 7, 35], [4, 5, 6]])
    embedded = stock.pos_drop(stock.patch_embed(images) + stock.pos_embed)  # type: ignore[operator]
    for sample in (0, 1):
        alone = stock.norm(stock.blocks(embedded[sample : sample + 1, keep[sample]]))  # type: ignore[operator]
        torch.testing.assert_close(backbone.tokens(images, keep)[sample : sample + 1], alone, rtol=1e-9, atol=1e-10)


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    codes = positions(5, 16, torch.zeros(1, dtype=torch.float64))
    for row, column in ((0, 0), (3, 1), (4, 4)):
        expected = []
        for place in (column, row):
            angles = [place / 10000 ** (i / 4) for i in range(4)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert codes[5 * row + column].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_missing_timm_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs timm, which is not installed: pip install -e '.*\[vit\]'"):
        build_method(asked("ijepa"))
