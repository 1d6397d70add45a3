"""Whole runs on rectangular crops: tiles of 13 channels from the file to exports in other libraries, pictures, resumes.

Shapes: B images, K channels, H x W pixels.
"""

import copy
import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import features_by_card
from image_sets import CPU
from pixel_files import npy, tiff
from runs import assert_same_run, in_process, small_config, train_alone, train_and_die, train_until
from sparse_encoders import assert_same, relative

import cnnjepa
from cnnjepa.ablations.report.figures.features import Seen, draw_gallery
from cnnjepa.ablations.report.figures.mask_samples import _images, cell_rates, draw_picture
from cnnjepa.data import open_data
from cnnjepa.data.batches import Normalizer
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.encoders import build_backbone
from cnnjepa.encoders.vit import positions
from cnnjepa.export import export_run
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.schemas import ViTConfig, load_config, read_config
from cnnjepa.schemas.extent import height_width
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.storage.journal import panel
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.reprobe import reprobe
from cnnjepa.warm_start.matching import _same_positions

pytestmark = [pytest.mark.medium]

CHANNELS, SIZE = 13, (320, 192)
QUICK = (
    "train_images=null", "epochs=1", "warmup_epochs=0", "floors=false", "runtime.batch_size=4",
    "checkpoint_every_steps=100", "linear_epochs=1", "probe.every_epochs=0", "images_every_epochs=1",
)  # fmt: skip


def write_tiles(root: Path, ending: str) -> Path:
    """Two classes of 13-channel tiles of 16 bits, 336 x 208 pixels, which differ in the mean of the first channel."""
    draw, encode = np.random.default_rng(4), {"tif": tiff, "npy": npy}[ending]
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(("field", "water")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                tile = draw.integers(0, 2000, (336, 208, CHANNELS)).astype(np.uint16)
                tile[..., 0] += 3000 * label
                (root / split / name / f"{number}.{ending}").write_bytes(encode(tile))
    return root


DEEP = ("data.channels=13", "data.dtype=uint16", "image_size=[320,192]", "crop_ratio=[0.45,0.8]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 trained for an epoch on 320x192 crops of tiles of 13 channels: TIFF, or `.npy` without the extra."""
    folder = tmp_path_factory.mktemp("tiles")
    tiles = write_tiles(folder / "tiles", "tif" if importlib.util.find_spec("tifffile") else "npy")
    whole = ("arch=resnet18", "stages=4", "stem=imagenet", "width=1")
    pretrain(small_config(*QUICK, *DEEP, *whole, data=tiles), folder / "run")
    return folder / "run"


def test_a_run_on_tiles_is_recorded_with_height_and_width(run: Path) -> None:
    config = read_config(run / "config.yaml")
    assert config.data.image_size == SIZE and config.grid == (10, 6) and config.image_shape == (CHANNELS, *SIZE)
    assert "image_size: [320, 192]" in (run / "config.yaml").read_text().replace("\n  - ", ", ")
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished" and result["probes"]["held_out"]["linear_top1"] >= 0
    encoder = cnnjepa.load_encoder(run)
    with torch.no_grad():
        assert encoder(torch.zeros(1, CHANNELS, *SIZE)).shape == (1, 512, 10, 6)


def test_tiles_are_the_same_in_tiff_and_in_numpys_format(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    found = []
    for ending in ("tif", "npy"):
        config = small_config(*QUICK, *DEEP, data=write_tiles(tmp_path / ending, ending)).data
        (batch,) = evaluation_batches(open_data(config).val, config, None, 8)
        assert batch.pixels.shape == (4, CHANNELS, *SIZE) and batch.pixels.dtype == torch.uint16
        found.append(batch.pixels)
    assert torch.equal(*found)
    tile = np.load(tmp_path / "npy" / "val" / "water" / "1.npy")
    assert found[1][3, 0].float().mean() == pytest.approx(tile[..., 0].mean(), abs=25)


def test_packed_equals_masked_on_real_tiles(run: Path) -> None:
    """In float64, with the run's weights, normalisation and masks, gradients included."""
    config = read_config(run / "config.yaml")
    (batch,) = evaluation_batches(open_data(config.data).val, config.data, None, 8)
    images = Normalizer(config.data, CPU, channels_last=False)(batch.pixels[:2]).double()
    assert images.shape == (2, CHANNELS, *SIZE)
    context = sample_masks(config.method.masks, config.grid, torch.arange(2), 0, 1).context  # type: ignore[arg-type]
    backbone = cnnjepa.load_encoder(run, "context").double().train()
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, context)
    hidden = ~context.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(images)
    packed = PackedEncoder(copy.deepcopy(backbone)).eval()
    with torch.no_grad():
        assert torch.equal(packed(images, context), packed(images.masked_fill(hidden, 1e6), context))
        everything = torch.ones(2, 10, 6, dtype=torch.bool)
        assert relative(packed(images, everything), backbone.eval()(images)) < 1e-9


@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("to", ["torchvision", "timm", "safetensors", "onnx", "huggingface"])
def test_the_encoder_is_exported_and_loaded_by_what_its_card_says(
    to: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torchvision": ()}.get(to, ("timm", "safetensors")):
        pytest.importorskip(module)
    folder, error = export_run(run, to, tmp_path / "out", licence="Copernicus")
    assert error < 1e-5
    card = (folder / "README.md").read_text()
    assert "Inputs are 320x192 px (height x width) crops of 13 channel(s)" in card
    written = json.loads((folder / "encoder.json").read_text())["preprocessing"]
    assert written["input_size"] == [CHANNELS, *SIZE] and written["resize"] == 192
    if to == "huggingface":
        described = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
        assert described["input_size"] == [CHANNELS, *SIZE] and described["pool_size"] == [10, 6]
        assert described["crop_pct"] == 1.0
    images = torch.randn(2, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = cnnjepa.load_encoder(run)(images).mean((2, 3))
    features = features_by_card(folder, to, images, monkeypatch)
    assert relative(features, expected) < 1e-5


def test_the_run_is_probed_again_and_drawn(run: Path, tmp_path: Path) -> None:
    result = reprobe(run, overrides=["linear_epochs=2", "probe.resize=208"]).result
    assert result.probes and result.probes.held_out
    config = read_config(run / "config.yaml")
    assert _images(config).shape == (8, 3, *SIZE)
    facts = draw_picture(config, tmp_path / "masks.png", 2)
    assert facts["grid"] == "10x6 (320x192 px, stride 32)" and " of 60 over" in facts["target cells per sample"]
    assert (tmp_path / "masks.png").stat().st_size > 10_000


def test_rates_of_cells_are_maps_of_rows_and_columns() -> None:
    config = load_config("smoke", overrides=["image_size=[24,48]", "strategy=random"])
    context, target, counts = cell_rates(config, 5)
    assert context.shape == target.shape == (6, 12) and torch.allclose(context + target, torch.ones(6, 12).double())
    assert (counts == 72 - round(72 * 0.4)).all()


@pytest.mark.parametrize("size", ["[24,40]", "[320,64]"])
def test_pictures_without_images_show_synthetic_ones_of_the_size(size: str) -> None:
    """Sides above 256 px are scaled."""
    preset = ["demo", "in100"][size == "[320,64]"]
    config = load_config(preset, overrides=[f"image_size={size}", "probe.resize=null", "strategy=random"])
    images = _images(config)
    assert images.shape == (8, 3, *height_width(config.data.image_size)) and images.float().std() > 10


def test_the_panel_of_a_run_shows_rectangles_with_their_cells() -> None:
    views = (torch.full((2, 3, 8, 12), 200.0), torch.full((2, 3, 4, 8), 100.0))
    context = torch.zeros(2, 2, 3, dtype=torch.bool)
    context[0, 0, 2] = True
    picture = panel(views, Masks(context, ~context))
    assert picture.shape == (3, 4 * 8, 2 * 12)
    assert (picture[:, 8:12, :8] == 100).all() and (picture[:, 8:12, 8:12] == 128).all()
    assert (picture[:, 12:16, :12] == 128).all()  # below the smaller view
    assert (picture[:, 16:20, 8:12] == 200).all() and (picture[:, 16:20, :8] == 128).all()
    assert (picture[:, 24:28, 8:12] == 128).all() and (picture[:, 28:32, :12] == 200).all()


def test_the_gallery_keeps_the_aspect_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn, original = [], Axes.imshow

    def watched(self: Axes, picture: Any, **settings: Any) -> Any:
        drawn.append((picture.shape[:2], settings["extent"]))
        return original(self, picture, **settings)

    monkeypatch.setattr(Axes, "imshow", watched)
    pixels = torch.randint(0, 256, (6, 3, 40, 24), dtype=torch.uint8)
    seen = Seen(pixels, torch.randn(6, 8), torch.arange(6) % 2, ["ant", "bee"])
    assert draw_gallery(seen, "a run", "gallery") is not None
    assert drawn
    for (height, width), (left, right, bottom, top) in drawn:
        assert (right - left) / (bottom - top) == pytest.approx(width / height) and bottom - top == pytest.approx(1)


def test_position_codes_of_a_rectangle_are_recognised_in_weights() -> None:
    backbone = build_backbone(ViTConfig(arch="vit_tiny", patch_size=8, blocks=1), 0)
    codes = positions((5, 3), 192, torch.zeros(1))
    assert _same_positions(codes[None], backbone) and _same_positions(positions(4, 192, torch.zeros(1)), backbone)
    assert not _same_positions(codes.flip(0)[None], backbone) and not _same_positions(codes[:, :96], backbone)


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_of_rectangles_is_timms_and_starts_another_run(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    vit = ("method.name=ijepa", "arch=vit_tiny", "patch_size=8", "encoder.blocks=2", "masking.min_keep=2",
           "predictor.dim=48", "image_size=[64,40]", "train_images=32", "val_images=16")  # fmt: skip
    pretrain(small_config(*QUICK, *vit), tmp_path / "run")
    folder, error = export_run(tmp_path / "run", "timm", licence="drawn")
    assert error < 1e-5 and "img_size=(64, 40)" in (folder / "README.md").read_text()
    begun = small_config(*QUICK, *vit, f"encoder.init={folder / 'encoder.pt'}")
    pretrain(begun, tmp_path / "again")
    assert read_config(tmp_path / "again" / "config.yaml").encoder.init_fingerprint


@pytest.mark.parametrize(
    "settings",
    [("method.name=spark",), ("method.name=lejepa", "local_views=2", "slices=16"), ("method.name=byol",),
     ("method.name=vicreg", "hidden_dim=32", "output_dim=32"), ("method.name=supervised",),
     ("backend=masked", "strategy=multi_block")],
)  # fmt: skip
def test_every_method_trains_on_rectangles(settings: tuple[str, ...], tmp_path: Path) -> None:
    few = ("train_images=32", "val_images=16", "image_size=[24,40]", "crop_scale=[0.3,1]")
    result = pretrain(small_config(*QUICK, *few, "width=0.125", *settings), tmp_path / "run")
    assert result.status == "finished"


RECTANGLE = ("image_size=[32,48]", "crop_ratio=[1.1,2]", "quarter_turns=0.5")


def test_a_stopped_run_on_rectangles_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = small_config(*RECTANGLE, "epochs=2", "floors=false", "probe.every_epochs=0")
    train_alone(config, tmp_path / "whole")
    train_until(config, tmp_path / "stopped", 5)
    train_alone(config, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.slow
def test_a_killed_run_on_rectangles_resumes_bit_for_bit(tmp_path: Path) -> None:
    config, tally = small_config(*RECTANGLE), tmp_path / "tally.json"
    assert in_process(train_and_die, config, tmp_path / "whole", None, tally) == 0
    events = json.loads(tally.read_text())
    for moment in (events.index("train_step") + 3, len(events) - 3):
        killed = tmp_path / f"killed-{moment}"
        assert in_process(train_and_die, config, killed, moment, None) == -signal.SIGKILL
        assert in_process(train_alone, config, killed, True) == 0
        assert_same_run(killed, tmp_path / "whole")
