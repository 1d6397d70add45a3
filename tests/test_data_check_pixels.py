"""`cnnjepa data check` prints sizes, depth, channels and values, and the settings that read such images."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pixel_files import file_of, npy, png16
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.data import open_data
from cnnjepa.data.open import open_sources
from cnnjepa.data.resample import resized
from cnnjepa.schemas import FolderData, load_config
from cnnjepa.schemas.pixels import PixelKind


def write(root: Path, encode: Any, arrays: list[NDArray[Any]], ending: str) -> Path:
    for number, array in enumerate(arrays):
        folder = root / ("train" if number < 4 else "val") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.{ending}").write_bytes(encode(array))
    return root


def grey_png(array: NDArray[Any]) -> bytes:
    return file_of(Image.fromarray(array[..., 0]), "PNG")


DRAW = np.random.default_rng(0)
SETS: dict[str, tuple[Any, list[NDArray[Any]], str, list[str]]] = {
    "16-bit grey": (png16, [DRAW.integers(300, 900, (9, 7, 1)).astype(np.uint16) for _ in range(6)], "png",
                    ["data.channels=1", "data.dtype=uint16", "data.range=percentile"]),
    "13 channels": (npy, [DRAW.integers(0, 50_000, (20, 16, 13)).astype(np.uint16) for _ in range(6)], "npy",
                    ["data.channels=13", "data.dtype=uint16"]),
    "float": (npy, [DRAW.standard_normal((9, 7)).astype(np.float32) * 5 for _ in range(6)], "npy",
              ["data.channels=1", "data.dtype=float32", "data.range=percentile"]),
    "8-bit grey": (grey_png, [DRAW.integers(0, 256, (9, 7, 1)).astype(np.uint8) for _ in range(6)], "png", []),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_the_check_names_form_and_values_and_the_settings_it_prints_read_the_set(kind: str, tmp_path: Path) -> None:
    encode, arrays, ending, settings = SETS[kind]
    path = write(tmp_path / "set", encode, arrays, ending)
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    height, width = arrays[0].shape[:2]
    assert f"6 images can be read (train 4, val 2); sizes {width}x{height}: 6" in text
    assert re.findall(r"--set (\S+)", text) == settings
    values = np.stack([array.reshape(height, width, -1) for array in arrays]).astype(np.float64)
    found = re.search(r"values (\S+) to (\S+) mean", text)
    assert found and (float(found[1]), float(found[2])) == pytest.approx((values.min(), values.max()), rel=1e-6)
    scale = {"uint8": 255, "uint16": 65535, "float32": 1}[arrays[0].dtype.name]
    for word, expected in (("mean per channel", values.mean((0, 1, 2))), ("standard deviation", values.std((0, 1, 2)))):
        shown = re.search(rf"{word}[^:]*: ((?:[-\d.e]+, )*[-\d.e]+)", text)
        assert shown
        numbers = json.loads(f"[{shown[1]}]")
        assert numbers == pytest.approx(list(expected / scale) * (len(numbers) // len(expected)), rel=1e-3)
    config = load_config(
        "smoke", overrides=["image_size=32", "train_images=null", "val_images=null", *settings], data=path
    )
    assert open_data(config.data).train.labels.numel() == 4


def test_images_of_another_form_than_the_first_are_named(tmp_path: Path) -> None:
    encode, arrays, ending, _ = SETS["16-bit grey"]
    path = write(tmp_path / "set", encode, arrays, ending)
    (path / "train" / "b" / "9.png").write_bytes(grey_png(np.full((9, 7, 1), 3, np.uint8)))
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    text = " ".join(done.output.split())
    assert done.exit_code == 1
    assert "train/b/9.png cannot be decoded (it has 8 bits per channel and data.dtype is uint16" in text
    assert "6 images can be read" in text


def test_packing_keeps_depth_channels_and_orientation(tmp_path: Path) -> None:
    deep = write(tmp_path / "deep", npy, SETS["13 channels"][1], "npy")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = [np.sort(DRAW.integers(0, 256, (60, 90, 3)).astype(np.uint8), axis=1) for _ in range(6)]
    lying = write(tmp_path / "lying", lambda a: file_of(Image.fromarray(a), "JPEG", exif=exif.tobytes()), turned, "jpg")
    for path, side, kind in ((deep, 8, PixelKind(13, "uint16")), (lying, 30, PixelKind())):
        packed = tmp_path / f"packed-{path.name}"
        done = CliRunner().invoke(app, ["data", "pack", str(path), str(packed), "--shorter-side", str(side)])
        assert done.exit_code == 0, done.output
        means = {"mean": (0.5,) * kind.channels, "std": (0.5,) * kind.channels}
        sources = [open_sources(FolderData(path=p, **kind._asdict(), **means))["train"] for p in (path, packed)]
        for index in range(4):
            before, after = (source.load(index).float() for source in sources)
            assert min(after.shape[1:]) == side and (after.shape[1] > after.shape[2])
            expected = resized(before, [side], "bicubic")
            error = (after - expected).abs()
            assert error.max() <= 0.51 if kind.dtype == "uint16" else error.mean() < 3
