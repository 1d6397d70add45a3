"""Encoders that a user names: they compute what the library or the run computes, and wrong names are refused."""

import shutil
from pathlib import Path

import pytest
import torch
from exports import Hub
from runs import small_config, train_alone, write_images

from cnnjepa.encoders import build_backbone
from cnnjepa.export import export_run
from cnnjepa.pretrained import load_encoder
from cnnjepa.references.encoder import stage_maps
from cnnjepa.references.open import open_encoder
from cnnjepa.references.preprocessing import PreprocessingOverrides, images_config
from cnnjepa.schemas import ConfigError, load_config, read_config

pytestmark = pytest.mark.medium

FEW = ("epochs=1", "every_epochs=0", "warmup_epochs=0", "train_images=32")
NETWORK = """
import torch

class Net(torch.nn.Module):
    preprocessing = {"image_size": 16, "mean": [0.5], "std": [0.25], "channels": 1}

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 4, 4, 4)

    def forward(self, x):
        return self.layer(x)

class Pooled(Net):
    def forward(self, x):
        return self.layer(x).mean((2, 3))

class Unprepared(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 2, 2)

def made():
    return Net()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch with all settings of pixels away from their defaults."""
    folder = tmp_path_factory.mktemp("references") / "runs" / "a"
    train_alone(small_config(*FEW, "data.mean=[.4,.5,.6]", "data.range=[10,250]", "probe.resize=40"), folder)
    return folder


def test_a_run_gives_its_probed_encoder_and_its_preprocessing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    found = open_encoder("runs/a")
    assert (found.label, found.folder) == ("runs/a", run)
    assert found.config == read_config(run / "config.yaml")
    own = load_encoder(run)
    images = torch.randn(2, 3, 32, 32)
    assert not found.network.training and found.feature_dim == own.feature_dim
    assert torch.equal(found.network(images), own(images))
    assert [m.shape for m in stage_maps(found, images)] == [m.shape for m in own.stage_maps(images)]  # type: ignore[operator]
    inputs = found.preprocessing
    assert (inputs.image_size, inputs.resize, inputs.channels, inputs.bounds) == ((32, 32), 40, 3, (10.0, 250.0))
    assert inputs.config.mean == (0.4, 0.5, 0.6)
    context = open_encoder("runs/a", which="context")
    assert context.label == "runs/a (context)"
    assert torch.equal(context.network(images), load_encoder(run, "context")(images))
    assert context.fingerprint != found.fingerprint


def test_a_hash_a_checkpoint_and_every_export_are_the_same_encoder(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    pool = tmp_path / "runs" / "by_hash" / ("abcd" * 16)
    shutil.copytree(run, pool)
    expected = open_encoder(str(run))
    by_hash = open_encoder("abcdab", root=tmp_path)
    assert (by_hash.folder, by_hash.label) == (pool, "abcdabcdabcd")
    file = open_encoder(str(run / "checkpoints" / "last.pt"))
    folder, _ = export_run(run, "safetensors", tmp_path / "out")
    exports = [open_encoder(str(folder)), open_encoder(str(folder / "encoder.safetensors"))]
    assert exports[0].folder == folder and exports[0].config is None
    assert {one.fingerprint for one in (by_hash, file, *exports)} == {expected.fingerprint}
    larger = open_encoder(str(folder), overrides=PreprocessingOverrides.parsed(image_size="64"))
    assert (larger.preprocessing.image_size, larger.preprocessing.resize) == ((64, 64), 80)
    assert larger.fingerprint != expected.fingerprint


def test_a_preset_gives_its_untrained_encoder_by_seed() -> None:
    encoder = load_config("smoke").encoder
    zero, one = open_encoder("random:smoke"), open_encoder("random:smoke:1")
    assert (zero.label, one.label) == ("random:smoke", "random:smoke:1")
    for found, seed in ((zero, 0), (one, 1)):
        state = build_backbone(encoder, seed).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in found.network.state_dict().items())
    assert zero.fingerprint == open_encoder("random:smoke:0").fingerprint != one.fingerprint
    grey = PreprocessingOverrides.parsed(channels=1, mean="0.5", std="0.2")
    assert open_encoder("random:smoke", overrides=grey).network.conv1.weight.shape[1] == 1  # type: ignore[union-attr]


def test_a_torchvision_network_gives_the_map_before_its_pooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    stock = torchvision.models.resnet18().eval()
    place = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir()
    torch.save(stock.state_dict(), place)
    found = open_encoder("torchvision:resnet18")
    assert found.label == "torchvision:resnet18:IMAGENET1K_V1"
    inputs = found.preprocessing
    assert (inputs.image_size, inputs.resize, inputs.mean) == ((224, 224), 256, (0.485, 0.456, 0.406))
    stock.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(found.network(images).mean((2, 3)), stock(images))
        maps = stage_maps(found, images)
        first = stock.layer1(stock.maxpool(stock.relu(stock.bn1(stock.conv1(images)))))
    assert [list(m.shape[1:]) for m in maps] == [[64, 16, 24], [128, 8, 12], [256, 4, 6], [512, 2, 3]]
    assert torch.equal(maps[0], first) and torch.equal(maps[-1], found.network(images))
    assert open_encoder("torchvision:resnet18:IMAGENET1K_V1").fingerprint == found.fingerprint


def test_a_torchvision_transformer_gives_its_patch_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.vision_transformer import VisionTransformer

    from cnnjepa.references.torchvision_networks import TransformerMaps

    stock = VisionTransformer(32, 8, 1, 2, 16, 32).eval()
    seen: list[torch.Tensor] = []
    stock.encoder.register_forward_hook(lambda module, given, out: seen.append(out))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        stock(images)
        found = TransformerMaps(stock)(images)
    assert found.shape == (2, 16, 4, 4)
    assert torch.equal(found[:, :, 1, 2], seen[0][:, 1 + 4 + 2])


def test_a_timm_network_gives_its_unpooled_features() -> None:
    timm = pytest.importorskip("timm")
    found = open_encoder("timm:resnet18")
    assert found.label == "timm:resnet18 (untrained)"
    assert (found.preprocessing.image_size, found.preprocessing.resize) == ((224, 224), 235)
    stock = timm.create_model("resnet18", num_classes=0).eval()
    stock.load_state_dict({k.removeprefix("network."): v for k, v in found.network.state_dict().items()})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(found.network(images).mean((2, 3)), stock(images), atol=1e-6)
        maps = stage_maps(found, images)
    assert [list(m.shape[1:]) for m in maps] == [[64, 16, 16], [128, 8, 8], [256, 4, 4], [512, 2, 2]]
    assert open_encoder("timm:resnet18").fingerprint == found.fingerprint


def test_a_timm_transformer_and_a_channels_last_network_give_maps() -> None:
    timm = pytest.importorskip("timm")
    tokens = open_encoder("timm:vit_tiny_patch16_224", overrides=PreprocessingOverrides.parsed(image_size="64x32"))
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        stock = tokens.network.network.forward_features(images)  # type: ignore[union-attr,operator]
        assert torch.equal(tokens.network(images)[0, :, 3, 1], stock[0, 1 + 3 * 2 + 1])
    from cnnjepa.references.timm_networks import TimmMaps

    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, depths=(1, 1, 1, 1), embed_dim=24).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(TimmMaps(swin)(images).mean((2, 3)), swin(images), atol=1e-5)
        shapes = [list(m.shape[1:]) for m in TimmMaps(swin).stage_maps(images)]
    assert shapes == [[24, 56, 56], [48, 28, 28], [96, 14, 14], [192, 7, 7]]


def test_timm_s_pretrained_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    hub = Hub(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=f"encoder timm:resnet18:pretrained: .*its files belong in {hub.folder}"):
        open_encoder("timm:resnet18:pretrained")
    model = hub.stored()
    found = open_encoder("timm:resnet18.a1_in1k:pretrained")
    assert found.label == "timm:resnet18.a1_in1k"
    assert torch.equal(found.network.network.conv1.weight, model.conv1.weight)  # type: ignore[union-attr]


def test_a_network_of_the_user_states_its_preprocessing_or_is_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "referenced_net.py").write_text(NETWORK, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    found, made = open_encoder("referenced_net:Net"), open_encoder("referenced_net:made")
    assert (found.label, found.feature_dim, found.preprocessing.image_size) == ("referenced_net:Net", 4, (16, 16))
    assert torch.equal(found.network.layer.weight, made.network.layer.weight)  # type: ignore[union-attr,arg-type]
    assert [m.shape for m in stage_maps(found, torch.zeros(1, 1, 16, 16))] == [(1, 4, 4, 4)]
    with pytest.raises(
        ConfigError, match=r"does not say how its images are prepared; give --image-size, --mean, --std"
    ):
        open_encoder("referenced_net:Unprepared")
    stated = PreprocessingOverrides.parsed("8", "0.5,0.5,0.5", "0.2,0.2,0.2")
    assert open_encoder("referenced_net:Unprepared", overrides=stated).feature_dim == 4
    with pytest.raises(
        ConfigError, match=r"an image \[1, 1, 16, 16\] gives \[1, 4\], and an encoder gives a feature map"
    ):
        open_encoder("referenced_net:Pooled")
    with pytest.raises(ConfigError, match=r"mean has 1 numbers and channels is 3"):
        open_encoder("referenced_net:Unprepared", overrides=PreprocessingOverrides.parsed("8", "0.5", "0.2"))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("runs/nowhere", r"encoder 'runs/nowhere' does not exist; it must be a run folder, .*timm:NAME\[:pretrained\]"),
        ("abcdef", r"no run in runs/by_hash has a hash that begins with abcdef"),
        ("images", r"images is not a run folder: it has no config.yaml, and it has no encoder.json"),
        ("weights.pt", r"no encoder.json lies next to this file, so its network is unknown"),
        ("notes.txt", r"notes.txt is no file of weights"),
        ("torchvision:", r"names nothing after torchvision:"),
        ("torchvision:resnet19", r"has no classification network of this name; nearest is 'resnet1"),
        ("torchvision:resnet18:V3", r"resnet18 has no weights 'V3'; must be one of IMAGENET1K_V1, DEFAULT"),
        ("timm:resnet18:best", r"'best' is not valid; write timm:resnet18:pretrained"),
        ("timm:resnet18.a1_in1k", r"names weights; write timm:resnet18.a1_in1k:pretrained .*or timm:resnet18 for the"),
        ("timm:resnet118", r"no model of this name; nearest is"),
        ("random:smok", r"preset 'smok' does not exist; .*nearest is 'smoke'"),
        ("random:smoke:x", r"the seed 'x' is no whole number"),
        ("no_such_module:Net", r"there is no module no_such_module here or among the installed packages"),
        ("torchvison:resnet18", r"there is no module torchvison"),
    ],
)  # fmt: skip
def test_a_wrong_reference_is_refused(
    reference: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "images").mkdir()
    (tmp_path / "weights.pt").touch()
    (tmp_path / "notes.txt").touch()
    if reference.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=reason):
        open_encoder(reference)


def test_options_that_do_not_fit_the_encoder_are_refused(run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--encoder target chooses within a run, and encoder random:smoke is not a run"
    ):
        open_encoder("random:smoke", which="target")
    with pytest.raises(ConfigError, match=r"is for 3 channels; --channels 4 does not fit it"):
        open_encoder(str(run), overrides=PreprocessingOverrides(channels=4))
    for option, text in {"image_size": "ten", "mean": "a,b"}.items():
        with pytest.raises(ConfigError, match=rf"--{option.replace('_', '-')} {text}: give "):
            PreprocessingOverrides.parsed(**{option: text})  # type: ignore[arg-type]


def test_the_images_of_an_evaluation_have_the_encoder_s_preprocessing(run: Path, tmp_path: Path) -> None:
    inputs = open_encoder(str(run)).preprocessing
    config = images_config(inputs, tmp_path, ["labels=none", "on_error=skip"])
    assert (config.source, config.image_size, config.range, config.labels) == ("folder", 32, (10.0, 250.0), "none")
    with pytest.raises(ConfigError, match=r"--set data.mean: it does not apply here"):
        images_config(inputs, tmp_path, ["data.mean=[0,0,0]"])


def test_every_format_with_a_state_dict_is_the_same_encoder(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    pytest.importorskip("timm")
    whole = ("arch=resnet18", "stages=4", "stem=imagenet", "width=1", "image_size=64", "strategy=random")
    train_alone(small_config(*FEW, *whole), tmp_path / "run")
    expected = open_encoder(str(tmp_path / "run"))
    for to in ("torchvision", "timm", "huggingface", "safetensors"):
        found = open_encoder(str(export_run(tmp_path / "run", to, tmp_path / to)[0]))
        assert found.fingerprint == expected.fingerprint, to
    (tmp_path / "timm" / "encoder.pt").rename(tmp_path / "timm" / "encoder.onnx")
    with pytest.raises(ConfigError, match=r"has none of model.safetensors, .*--to safetensors` writes"):
        open_encoder(str(tmp_path / "timm"))
    with pytest.raises(ConfigError, match=r"has only encoder.onnx; an encoder is loaded from a state dict"):
        open_encoder(str(tmp_path / "timm" / "encoder.onnx"))
    (tmp_path / "torchvision" / "encoder.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"encoder.json is not what `cnnjepa export` writes \(KeyError\)"):
        open_encoder(str(tmp_path / "torchvision"))


def test_a_rectangle_is_part_of_a_run_s_preprocessing(tmp_path: Path) -> None:
    train_alone(small_config(*FEW, "image_size=[32,48]", data=_images(tmp_path)), tmp_path / "run")
    found = open_encoder(str(tmp_path / "run"))
    assert (found.preprocessing.image_size, found.map_size) == ((32, 48), (8, 12))
    folder, _ = export_run(tmp_path / "run", "safetensors", tmp_path / "out", licence="mine")
    assert open_encoder(str(folder)).fingerprint == found.fingerprint


def _images(folder: Path) -> Path:
    write_images(folder / "images")
    return folder / "images"
