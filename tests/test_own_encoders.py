"""ConvNeXt and a user's own network as packed encoders, and what the doctor says of those that cannot be packed."""

import copy
import itertools
from pathlib import Path

import commands
import pytest
import torch
import torchvision
from runs import assert_same_run, small_config
from sparse_encoders import assert_same, assert_same_maps, random_context, relative
from torch import Tensor, nn

import cnnjepa
from cnnjepa.encoders import build_backbone
from cnnjepa.encoders.custom import build_custom
from cnnjepa.errors import Stopped
from cnnjepa.measuring.doctor import examine_encoder
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import ConfigError, ConvNeXtConfig, CustomEncoderConfig, load_config
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.sparse.fitness import compare, judge_layers
from cnnjepa.sparse.patch_grid import PatchGrid
from cnnjepa.training.pretrain import pretrain


def lively(arch: str, width: float = 0.25) -> nn.Module:
    """Float64, with blocks that contribute (their scales start at 1e-6)."""
    backbone = build_backbone(ConvNeXtConfig(arch=arch, width=width), 0).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            if name.endswith("layer_scale"):
                p.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("bias"):
                p.uniform_(-0.5, 0.5, generator=generator)
    return backbone


@pytest.mark.medium
@pytest.mark.parametrize("arch", ["convnext_tiny", "convnext_small"])
def test_a_packed_convnext_equals_the_masked_one(arch: str) -> None:
    """Depthwise 7x7, whose halo of 3 spans one to three cells of 8, 4, 2 and 1 pixels."""
    backbone = lively(arch)
    images = torch.randn(3, 3, 128, 128, dtype=torch.float64)
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(3, 4))


def test_a_packed_convnext_equals_the_masked_one_at_every_scale() -> None:
    assert_same_maps(lively("convnext_tiny"), torch.randn(3, 3, 96, 96, dtype=torch.float64), 3)


@pytest.mark.medium
def test_all_visible_is_torchvisions_convnext() -> None:
    stock = torchvision.models.convnext_tiny(weights=None).double().eval()
    backbone = lively("convnext_tiny", 1.0)
    missing, unexpected = stock.load_state_dict(backbone.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("classifier") for name in missing)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    everything = torch.ones(2, 2, 2, dtype=torch.bool)
    expected = stock.features(images)
    for encoder in (PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(copy.deepcopy(backbone))):
        assert relative(encoder(images, everything), expected) < 1e-9
    assert relative(PackedEncoder(backbone).dense_copy()(images), expected) < 1e-12


def test_values_under_the_mask_change_no_output_bit_of_a_convnext() -> None:
    encoder = PackedEncoder(build_backbone(ConvNeXtConfig(width=0.25), 0))
    images, context = torch.randn(3, 3, 96, 96), random_context(3, 3)
    hidden = ~context.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(images)
    expected = encoder(images, context)
    assert torch.equal(encoder(images.masked_fill(hidden, float("nan")), context), expected)
    assert (expected[~context[:, None].expand_as(expected)] == 0).all()


def test_cells_put_on_a_map_and_taken_back_are_the_same() -> None:
    context = random_context(3, 4)
    grid = PatchGrid(context)
    cells = torch.randn(grid.n, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    dense = grid.unpack_cells(cells)
    assert torch.equal(grid.take_cells(dense), cells) and torch.equal(grid.pack(dense), cells)
    hidden = ~context.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    assert (dense.masked_select(hidden.expand_as(dense)) == 0).all()
    weight = torch.randn_like(cells)
    (grid.take_cells(dense) * weight).sum().backward()
    assert torch.equal(cells.grad, weight)  # type: ignore[arg-type]


@pytest.mark.medium
@pytest.mark.parametrize("method", ["cnnjepa", "spark"])
def test_a_convnext_trains_and_is_probed(method: str, tmp_path: Path) -> None:
    more = ("epochs=1", "warmup_epochs=0", "floors=false", "train_images=32", "runtime.batch_size=8")
    size = ("image_size=96", *(("strategy=random",) if method == "cnnjepa" else ()))
    result = pretrain(
        small_config(f"method.name={method}", "arch=convnext_tiny", "width=0.125", *size, *more), tmp_path / "run"
    )
    assert result.status == "finished" and result.encoder == "convnext_tiny/x0.125"
    assert cnnjepa.load_encoder(tmp_path / "run")(torch.zeros(1, 3, 96, 96)).shape == (1, 96, 3, 3)


def test_a_width_that_gives_no_whole_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"96·width must be a whole number of at least 8, for example"):
        load_config("in100", overrides=["arch=convnext_tiny", "width=0.111"])
    assert load_config("in100", overrides=["arch=convnext_small"]).grid == 7


# --- Networks of one's own ----------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Stride 8: a strided stem, a depthwise 5x5, a max-pooling and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.norm = nn.BatchNorm2d(12)
        self.act = nn.SiLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.wide = nn.Conv2d(12, 12, 5, padding=2, groups=12)
        self.down = nn.Conv2d(12, 24, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.stem(x))))
        return self.down(x + self.wide(x))  # type: ignore[no-any-return]


class SqueezeExcitation(Plain):
    """As MobileNet's and EfficientNet's blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(nn.Conv2d(24, 24, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * self.excite(self.squeeze(x))  # type: ignore[no-any-return]


class HiddenMean(Plain):
    """Mixes positions where no layer shows it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.stem(x))))
        x = x - x.mean((2, 3), keepdim=True)
        return self.down(x + self.wide(x))  # type: ignore[no-any-return]


class Dilated(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(12, 12, 3, padding=2, dilation=2)


class Classifier(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))


def judged(name: str) -> list[tuple[str, bool | None, str]]:
    return [(f.name, f.ok, f.value) for f in examine_encoder(f"test_own_encoders:{name}")]


def test_a_network_that_can_be_packed_is_proven_so() -> None:
    findings = judged("Plain")
    assert [ok for _, ok, _ in findings] == [None, True, None]
    assert "total stride 8" in findings[0][2] and "packed = masked: relative error" in findings[1][2]
    assert "encoder.module=test_own_encoders:Plain --set total_stride=8" in findings[2][2]


class PlainOfFour(Plain):
    def __init__(self) -> None:
        super().__init__()
        first = next(name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d))
        old = self.get_submodule(first)
        assert isinstance(old, nn.Conv2d)
        args = (old.kernel_size, old.stride, old.padding)
        self.set_submodule(first, nn.Conv2d(4, old.out_channels, *args, bias=old.bias is not None))  # type: ignore[arg-type]


def test_an_encoder_of_other_channels_is_examined_with_them() -> None:
    findings = list(examine_encoder("test_own_encoders:PlainOfFour", channels=4))
    assert [finding.ok for finding in findings] == [None, True, None]
    assert "packed = masked: relative error" in findings[1].value
    with pytest.raises(ConfigError, match=r"it fails on an image \[1, 3, 256, 256\]"):
        list(examine_encoder("test_own_encoders:PlainOfFour"))


def test_layers_that_cannot_be_packed_are_named_with_their_reason() -> None:
    (_, (layer, ok, why)) = judged("SqueezeExcitation")
    assert (layer, ok) == ("layer squeeze", False) and "squeeze-and-excitation" in why and "strided convolution" in why
    (_, (layer, ok, why)) = judged("Dilated")
    assert (layer, ok) == ("layer wide", False) and "only undilated" in why
    (_, (layer, ok, why)) = judged("HiddenMean")
    assert ok is False and layer == "layer wide" and "mixes positions outside a layer" in why
    with pytest.raises(ConfigError, match="Leave out pooling and classifier"):
        judged("Classifier")


@pytest.mark.parametrize(
    ("layer", "word"),
    [(nn.GroupNorm(2, 4), "statistics include an image's"), (nn.AvgPool2d(2), "many positions"),
     (nn.ConvTranspose2d(3, 3, 2), "enlarges"), (nn.Dropout2d(0.1), "random per sample"),
     (nn.Conv2d(3, 3, 3, padding="same"), "cannot be packed"), (nn.Conv2d(3, 3, (1, 3)), "square")],
)  # fmt: skip
def test_kinds_of_layers_that_are_refused(layer: nn.Module, word: str) -> None:
    found = list(judge_layers(nn.Sequential(layer)))
    assert len(found) == 1 and word in found[0].finding


def test_our_own_networks_pass() -> None:
    for config in (ConvNeXtConfig(width=0.125), load_config("smoke").encoder):
        backbone = build_backbone(config, 0)
        assert list(judge_layers(backbone)) == []
        assert compare(backbone, backbone.total_stride).ok


@pytest.mark.medium
def test_a_network_of_ones_own_trains_by_its_name_and_is_loaded_again(tmp_path: Path) -> None:
    own = ("arch=custom", "encoder.module=test_own_encoders:Plain", "total_stride=8", "strategy=random")
    short = ("epochs=1", "warmup_epochs=0", "floors=false", "train_images=32", "runtime.batch_size=8")
    result = pretrain(small_config(*own, *short), tmp_path / "run")
    assert result.encoder == "test_own_encoders:Plain"
    assert cnnjepa.load_encoder(tmp_path / "run")(torch.zeros(1, 3, 32, 32)).shape == (1, 24, 4, 4)
    with pytest.raises(ConfigError, match="at total stride 16; they give"):
        pretrain(small_config(*own[:2], "total_stride=16", own[3], *short), tmp_path / "wrong")


class Dropped(Plain):
    """Random in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))  # type: ignore[no-any-return]


@pytest.mark.medium
def test_a_network_with_dropout_resumes_bit_for_bit(tmp_path: Path) -> None:
    own = ("arch=custom", "encoder.module=test_own_encoders:Dropped", "total_stride=8", "method.name=simclr")
    config = small_config(*own, "floors=[untrained]")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = pretrain(config, tmp_path / "whole")
    assert torch.equal(torch.get_rng_state(), before)  # the caller's generator is left alone
    asked = itertools.count()
    with pytest.raises(Stopped):
        pretrain(config, tmp_path / "halves", stop_asked=lambda: "enough" if next(asked) >= 4 else None)
    torch.manual_seed(2)
    resumed = pretrain(config, tmp_path / "halves", resume=True)
    assert_same_run(tmp_path / "halves", tmp_path / "whole")
    assert resumed.floors == whole.floors  # batch-norm statistics of the untrained encoder pass its dropout too


def test_dropout_differs_by_step_rank_and_seed() -> None:
    def dropped(*counters: int, seed: int = 0) -> list[float]:
        with layer_randomness(torch.device("cpu")):
            seed_layers(seed, "layers", *counters)
            return nn.functional.dropout(torch.ones(64), 0.5).tolist()

    assert dropped(3, 1) == dropped(3, 1)
    assert len({tuple(d) for d in (dropped(3, 1), dropped(3, 0), dropped(4, 1), dropped(3, 1, seed=1))}) == 4


def test_every_step_seeds_its_layers_by_step_and_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr("cnnjepa.training.pretrain.seed_layers", lambda *given: seen.append(given))
    short = ("epochs=1", "warmup_epochs=0", "floors=false", "train_images=32", "runtime.seed=7", "every_epochs=0")
    pretrain(small_config(*short), tmp_path / "run")
    assert seen == [(7, "layers", step, 0) for step in range(2)]


@pytest.mark.processes
def test_what_is_no_network_is_refused_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class NotOne: pass\ndef broken(x): return x\n")
    for name, word in (
        ("mine:NotOne", "not a torch module"),
        ("mine:Absent", "no attribute"),
        ("absent:Net", "No module"),
    ):
        done = commands.cnnjepa("doctor", "--encoder", name, cwd=tmp_path)
        assert done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr, done.stderr


class FourChannels(nn.Sequential):
    """Takes images of four channels, of which there are none."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(4, 8, 3, 2, 1))


class Unmade(nn.Module):
    """Raises what only its author knows."""

    def __init__(self) -> None:
        raise KeyError("weights")


class NoFeatures(nn.Module):
    """Gives a map of no cells."""

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return images[:, :, :0, :0]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (
            "FourChannels",
            r"it fails on an image \[1, 3, 256, 256\] \(RuntimeError: .*4 channels.*\); an encoder takes images",
        ),
        ("Unmade", "KeyError: 'weights'; give package.module:Name of a torch module"),
        ("NoFeatures", r"images of 256 px give \[1, 3, 0, 0\]; features must be a map"),
        ("Nowhere", "has no attribute 'Nowhere'; give package.module:Name"),
    ],
)
def test_the_doctor_refuses_a_network_that_takes_no_images(named: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        list(examine_encoder(f"{__name__}:{named}"))


def test_a_run_refuses_a_network_of_four_channels_with_the_same_words() -> None:
    with pytest.raises(ConfigError, match=r"it fails on an image \[1, 3, 4, 4\] .*4 channels"):
        build_custom(CustomEncoderConfig(module=f"{__name__}:FourChannels", total_stride=2), 0)


@pytest.mark.parametrize("module", ["", ":", "no such", "broken_syntax:Net"])
def test_a_module_that_cannot_be_imported_is_refused(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_syntax.py").write_text("class Net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"give package\.module:Name of a torch module"):
        list(examine_encoder(module))
