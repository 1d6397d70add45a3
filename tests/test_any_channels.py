"""Images of any depth and number of channels, from the file to the probe and the export: nothing between them keeps 8
bits or 3 channels.

Shapes: B images, K channels, H x W pixels.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import features_by_card
from image_sets import CPU, batches, order_of
from numpy.typing import NDArray
from PIL import Image
from pixel_files import file_of, npy, png16
from runs import small_config
from torch import Tensor

import cnnjepa
from cnnjepa.ablations.report.figures.mask_samples import _images
from cnnjepa.data import open_data
from cnnjepa.data.batches import Normalizer, training_batches
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.encoders import build_backbone
from cnnjepa.export import export_run
from cnnjepa.masks import sample_masks
from cnnjepa.schemas import (
    ConfigError,
    ConvNeXtConfig,
    EncoderConfig,
    FolderData,
    RandomMasking,
    ViTConfig,
    load_config,
    pretrain_hash,
    read_config,
)
from cnnjepa.schemas.views import SimCLRView, View
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.reprobe import reprobe
from cnnjepa.training.resolve import resolve

SIDE = 32


def write(root: Path, encode: Any, images: dict[tuple[str, str], list[NDArray[Any]]], ending: str) -> Path:
    for (split, name), arrays in images.items():
        (root / split / name).mkdir(parents=True)
        for number, array in enumerate(arrays):
            (root / split / name / f"{number:03d}.{ending}").write_bytes(encode(array))
    return root


def tiles(channels: int, dtype: str, train: int, val: int, side: int = SIDE) -> dict[tuple[str, str], list[Any]]:
    """Two classes of noise, that differ in the mean of their first channel."""
    draw = np.random.default_rng(4)
    found: dict[tuple[str, str], list[Any]] = {}
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(("field", "water")):
            arrays = draw.integers(0, 2000, (count, side, side, channels))
            arrays[..., 0] += 3000 * label
            found[split, name] = list(arrays.astype(dtype))
    return found


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16-bit grey PNGs whose classes (horizontal and vertical stripes) differ only below the eighth bit."""
    draw, found = np.random.default_rng(2), {}
    stripes = 60 * (np.arange(SIDE) // 4 % 2)
    for split, count in (("train", 40), ("val", 20)):
        for label, name in enumerate(("across", "down")):
            noise = draw.integers(0, 60, (count, SIDE, SIDE))
            pattern = stripes[None, :, None] if label else stripes[None, None, :]
            found[split, name] = list((0x4000 + noise + pattern).astype(np.uint16)[..., None])
    assert {int(v) for arrays in found.values() for a in arrays for v in np.unique(a >> 8)} == {0x40}
    return write(tmp_path_factory.mktemp("xrays") / "set", png16, found, "png")


@pytest.fixture(scope="module")
def satellite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 13 channels, uint16, in NumPy's format."""
    return write(tmp_path_factory.mktemp("satellite") / "set", npy, tiles(13, "uint16", 10, 6), "npy")


def config_for(path: Path, **settings: Any) -> FolderData:
    return FolderData(**{"path": path, "image_size": SIDE, "resident": "never", **settings})


def pixels_of(config: FolderData) -> Tensor:
    source = open_sources(config)["train"]
    return torch.stack([source.load(index) for index in range(source.labels.numel())])


@pytest.mark.medium
def test_classes_that_differ_below_the_eighth_bit_are_learned_from_16_bit_images(xrays: Path, tmp_path: Path) -> None:
    settings = ("data.channels=1", "data.dtype=uint16", "train_images=null", "linear_epochs=40", "held_out_lrs=[0.1]",
                "epochs=2", "probe.every_epochs=0", "floors=false", "data.range=percentile")  # fmt: skip
    result = pretrain(small_config(*settings, data=xrays), tmp_path / "run")
    assert result.probes and result.probes.held_out and result.probes.published
    assert (result.probes.published.linear_top1, result.probes.held_out.knn_top1) == (100, 100)
    data = read_config(tmp_path / "run" / "config.yaml").data
    values = pixels_of(config_for(xrays, channels=1, dtype="uint16")).numpy()
    assert isinstance(data.range, tuple) and np.allclose(data.range, np.percentile(values, (0.5, 99.5)), atol=1.5)
    mapped = ((values - data.range[0]) / (data.range[1] - data.range[0])).clip(0, 1)
    assert data.mean == pytest.approx([mapped.mean()], abs=1e-5) and data.std == pytest.approx([mapped.std()], abs=1e-5)
    # The same pixels after `>> 8`: one grey level, which the tool refuses to normalise.
    flat = write(tmp_path / "flat", lambda array: file_of(Image.fromarray((array >> 8)[..., 0].astype("u1")), "PNG"), {
        (split, name): [np.full((SIDE, SIDE, 1), 0x4000)] * 2 for split in ("train", "val") for name in "ab"
    }, "png")  # fmt: skip
    with pytest.raises(ConfigError, match="channel 0 has the same value in all training images"):
        open_data(config_for(flat, channels=1))


def test_images_without_the_setting_that_keeps_them_are_refused(xrays: Path, satellite: Path) -> None:
    for config, keeps in (
        (config_for(xrays, channels=1), "data.dtype=uint16 keeps them"),
        (config_for(satellite, dtype="uint16"), "data.channels=13 keeps them"),
        (config_for(satellite, channels=13), "data.dtype=uint16 keeps them"),
    ):
        with pytest.raises(RuntimeError, match=keeps):
            open_data(config.model_copy(update={"resident": "always"}))


def test_statistics_are_those_of_the_training_images(satellite: Path) -> None:
    config = config_for(satellite, channels=13, dtype="uint16")
    assert config.unmeasured == ("mean", "std")  # ImageNet's numbers are about RGB
    found = open_data(config).measured
    values = pixels_of(config).numpy() / 65535
    assert found.range is None
    assert found.mean == pytest.approx(values.mean((0, 2, 3)), rel=1e-5)
    assert found.std == pytest.approx(values.std((0, 2, 3)), rel=1e-5)
    resident = open_data(config.model_copy(update={"resident": "always"}))
    assert resident.resident and resident.measured == found
    ranged = open_data(config.model_copy(update={"range": "percentile", "mean": (0.5,) * 13})).measured
    assert ranged.mean is None and ranged.range and ranged.range[0] < 20 and 4600 < ranged.range[1] < 5000


def test_measured_numbers_are_hashed_by_value(satellite: Path) -> None:
    base = load_config("smoke", overrides=["data.channels=13", "data.dtype=uint16", "device=cpu"], data=satellite)
    data = open_data(base.data)
    resolved = resolve(base, data.resident, CPU, measured=data.measured)
    assert resolved.data.mean == data.measured.mean and not resolved.data.unmeasured
    given = [f"data.{name}={json.dumps(getattr(data.measured, name))}" for name in ("mean", "std")]
    same = load_config(
        "smoke", overrides=["data.channels=13", "data.dtype=uint16", "device=cpu", *given], data=satellite
    )
    assert pretrain_hash(resolved, "x", 1) == pretrain_hash(resolve(same, data.resident, CPU), "x", 1)
    with pytest.raises(ValueError, match=r"data\.mean.*is not decided yet"):
        pretrain_hash(resolve(base, data.resident, CPU), "x", 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_normalised_pixels_are_those_of_the_formula(dtype: str) -> None:
    largest = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    values = np.random.default_rng(0).random((2, 4, 5, 5)) * largest
    pixels = torch.from_numpy(values.astype(dtype))
    mean, std = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.6, 0.7, 0.8])
    usual: dict[str, Any] = {"channels": 4, "dtype": dtype, "mean": tuple(mean), "std": tuple(std)}
    for low, high, given in (
        (0, largest, {}),
        (0.2 * largest, 0.6 * largest, {"range": (0.2 * largest, 0.6 * largest)}),
    ):
        normalize = Normalizer(FolderData(**usual, **given), CPU)
        mapped = (pixels.numpy().astype(np.float64) - low) / (high - low)
        clipped = mapped.clip(0, 1) if given else mapped
        expected = (clipped - mean[:, None, None]) / std[:, None, None]
        assert np.allclose(normalize(pixels).numpy(), expected, atol=2e-5)
        assert (normalize.undo(normalize(pixels)).numpy() == np.rint(clipped * 255).clip(0, 255)).mean() > 0.99


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_both_paths_give_the_same_crops_of_any_type(dtype: str, tmp_path: Path) -> None:
    images = tiles(5, "uint16", 4, 2)
    if dtype == "uint8":
        images = {key: [array // 40 for array in arrays] for key, arrays in images.items()}
    path = write(tmp_path / "set", npy, {k: [a.astype(dtype) for a in v] for k, v in images.items()}, "npy")
    settings = {"channels": 5, "dtype": dtype, "mean": (0.5,) * 5, "std": (0.2,) * 5, "range": (0, 5000)}
    views = (View(SimCLRView(jitter=0, grey=0, blur=0.7, solarise=0.5), 24, FolderData().augmentation),)
    found = {}
    for resident in ("never", "always"):
        config = config_for(path, **settings, resident=resident)
        data = open_data(config)
        steps = training_batches(data, config, order_of(data), 0, 2, 0, CPU, views)
        found[resident] = torch.cat([batch.pixels.float() for batch in steps])
        plain = batches(data, config, order_of(data), 0, 1)[0].pixels
        assert plain.shape == (4, 5, SIDE, SIDE)
        assert plain.dtype == (torch.float32 if resident == "always" else getattr(torch, dtype))
    rounding = {"uint8": 3.0, "uint16": 3.0, "float32": 2.0}[dtype]
    assert (found["never"] - found["always"]).abs().max() <= rounding
    assert found["always"].std() > 20


def test_probes_see_every_channel_and_bit(satellite: Path) -> None:
    config = config_for(satellite, channels=13, dtype="uint16")
    source = open_sources(config)["val"]
    (batch,) = evaluation_batches(source, config, None, 100)
    assert batch.pixels.dtype == torch.uint16
    assert torch.equal(batch.pixels, torch.stack([source.load(index) for index in range(12)]))
    smaller = config.model_copy(update={"image_size": 24})
    (batch,) = evaluation_batches(source, smaller, 28, 100)
    assert batch.pixels.shape == (12, 13, 24, 24) and batch.pixels.dtype == torch.uint16


def test_a_very_long_image_is_probed_in_little_memory(tmp_path: Path) -> None:
    line = np.arange(60000, dtype=np.uint32).astype(np.uint8)[None]
    path = write(tmp_path / "set", npy, {(s, n): [line] for s in ("train", "val") for n in "ab"}, "npy")
    config = config_for(path, channels=1, mean=(0.5,), std=(0.2,))
    (batch,) = evaluation_batches(open_sources(config)["val"], config, None, 8)
    assert batch.pixels.shape == (2, 1, SIDE, SIDE)
    assert batch.pixels[0, 0, 0].unique().tolist() == [47, 48]  # pixels 29,999 and 30,000 of the line


@pytest.mark.parametrize(
    "encoder", [EncoderConfig(arch="resnet18", width=0.125), EncoderConfig(arch="resnet50", width=0.125, stem="small"),
                ConvNeXtConfig(width=0.125)],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 13])
def test_packed_equals_masked_with_any_number_of_channels(encoder: Any, channels: int) -> None:
    backbone = build_backbone(encoder, 0, channels).double().train()
    for norm in backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    side = 4 * backbone.total_stride
    images = torch.rand(3, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    context = sample_masks(RandomMasking(), 4, torch.arange(3), 0, 0).context
    masked, packed = MaskedEncoder(backbone), PackedEncoder(build_backbone(encoder, 0, channels).double().train())
    packed.load_state_dict(masked.state_dict())
    expected, features = masked(images, context), packed(images, context)
    assert float((features - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-9


def test_a_transformer_takes_any_number_of_channels() -> None:
    backbone = build_backbone(ViTConfig(arch="vit_tiny", patch_size=8, blocks=1), 0, 4)
    assert backbone(torch.rand(1, 4, 16, 16)).shape == (1, 192, 2, 2)


@pytest.fixture(scope="module")
def many_channels(satellite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    quick = ("train_images=null", "epochs=1", "warmup_epochs=0", "floors=false", "runtime.batch_size=4",
             "checkpoint_every_steps=100", "linear_epochs=1", "probe.every_epochs=0", "images_every_epochs=1",
             "data.channels=13", "data.dtype=uint16", "image_size=64", "masking.strategy=random")  # fmt: skip
    whole = ("arch=resnet18", "stages=4", "stem=imagenet", "width=1")
    pretrain(small_config(*quick, *whole, data=satellite), run)
    return run


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("to", ["torchvision", "timm", "safetensors", "onnx", "huggingface"])
def test_an_encoder_of_13_channels_is_exported_and_loaded(
    to: str, many_channels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, error = export_run(many_channels, to, tmp_path / "out", licence="Copernicus")
    assert error < 1e-5
    card = (folder / "README.md").read_text()
    assert "crops of 13 channel(s), with the values 0 to 65535 mapped to 0 to 1, minus" in card
    written = json.loads((folder / "encoder.json").read_text())["preprocessing"]
    assert written["input_size"] == [13, 64, 64] and len(written["mean"]) == 13
    images = torch.randn(3, 13, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = cnnjepa.load_encoder(many_channels)(images).mean((2, 3))
    features = features_by_card(folder, to, images, monkeypatch)
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_a_run_of_13_channels_is_probed_again_and_drawn(many_channels: Path, satellite: Path) -> None:
    result = reprobe(many_channels, overrides=["linear_epochs=2"]).result
    assert result.probes and result.probes.held_out
    config = read_config(many_channels / "config.yaml")
    assert _images(config).shape == (8, 3, 64, 64)


def test_colours_of_other_images_than_rgb_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"method simclr: its views use colour jitter or grey.*data\.channels is 4"):
        load_config("smoke", overrides=["method.name=simclr", "channels=4", "source=folder"])
    off = ["view.jitter=0", "view.grey=0"]
    config = load_config("smoke", overrides=["method.name=simclr", "channels=4", "source=folder", *off])
    assert config.image_shape[0] == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["channels=4"], "source synthetic draws 3 channels of uint8"),
        (["source=folder", "channels=4", "mean=[0.1, 0.2]"], "mean has 2 numbers and channels is 4; give one number"),
        (["source=folder", "mean=[0.1]"], "mean has 1 numbers and channels is 3; give one number"),
        (["source=folder", "mean=median"], "data.mean: 'median' is not valid; must be imagenet, measured or a list"),
        (
            ["source=folder", "range=[3, 3]"],
            "data.range: [3, 3] is not valid; must be dtype, percentile or [low, hi",
        ),
        (["source=folder", "dtype=int16"], "data.dtype: 'int16' is not valid; must be one of uint8, uint16, float32"),
        (["source=folder", "std=[1, 1, 0]"], "data.std: must be numbers above 0"),
    ],
)
def test_settings_of_pixels_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("smoke", overrides=overrides)
    assert message in str(caught.value)


def test_imagenet_is_a_name_for_its_numbers() -> None:
    named = load_config("smoke", overrides=["source=folder", "mean=imagenet", "std=imagenet"])
    assert (named.data.mean, named.data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
