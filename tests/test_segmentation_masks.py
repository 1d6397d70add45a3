"""Masks: those of the embedded images, folders of PNG files, their geometry, and what is refused."""

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import CPU
from PIL import Image
from pixel_files import chunk

from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.masks import read_mask
from cnnjepa.data.resident import ResidentSource
from cnnjepa.data.synthetic import render, render_masks
from cnnjepa.errors import ImageError
from cnnjepa.evaluation.run import planned_tasks, run_tasks
from cnnjepa.references.open import open_encoder
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.evaluation import requested_tasks


def test_drawing_masks_does_not_change_the_images() -> None:
    images, _ = render("val", 48, 32, 3)
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert digest == "ad585eea9ab545e39ed7f62ba1211dfb0b5dc8cad83ab0fb2c8af7ffd1886d5b"
    masks = render_masks("val", range(48), 32, 3)
    assert torch.equal(render("val", 48, 32, 3)[0], images)
    assert masks.shape == (48, 32, 32) and masks.dtype == np.uint8
    assert sorted(np.unique(masks).tolist()) == [0, 1, 2]


def test_a_mask_depends_on_its_own_index_only_and_is_the_same_scene_at_another_size() -> None:
    masks = render_masks("train", range(20), 32)
    assert np.array_equal(render_masks("train", [7, 3], 32), masks[[7, 3]])
    fine = render_masks("train", range(20), 64)
    assert (fine[:, ::2, ::2] == masks).mean() > 0.95
    assert not np.array_equal(render_masks("train", range(20), 32, 1), masks)


def test_the_image_changes_where_the_mask_does() -> None:
    """Pixels on both sides of an outline differ more than pixels within an object or on the cloth."""
    images, masks = render("train", 64, 64)[0].float(), render_masks("train", range(64), 64)
    step = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean(1)
    border = torch.from_numpy(masks[:, :, 1:] != masks[:, :, :-1])
    assert step[border].mean() > 1.5 * step[~border].mean()


def write(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """Write a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0] + [0] * 759)
    image.save(path)
    return path


def test_masks_of_every_kind_are_read_as_classes(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    for name, given, palette in (
        ("grey", values, False),
        ("palette", values, True),
        ("deep", values * np.uint16(1), False),
    ):
        assert read_mask(write(tmp_path / f"{name}.png", given, palette)).tolist() == values.tolist()
    assert read_mask(write(tmp_path / "bits.png", values == 1)).tolist() == (values == 1).astype(int).tolist()
    with pytest.raises(ConfigError, match=r"colour\.png has colours \(RGB\); a mask has one channel"):
        read_mask(write(tmp_path / "colour.png", np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(ConfigError, match=r"large\.png has the value 300; classes are 0 to 254"):
        read_mask(write(tmp_path / "large.png", np.array([[300]], np.uint16)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:50])
    with pytest.raises(ImageError, match=r"cut\.png cannot be read as a PNG mask \(it is cut short\)"):
        read_mask(tmp_path / "cut.png")
    (tmp_path / "photo.png").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ImageError, match=r"photo\.png cannot be read as a PNG mask \(it is no PNG file\)"):
        read_mask(tmp_path / "photo.png")


@pytest.mark.parametrize(
    ("bits", "row", "classes"),
    [(1, b"\x50", [0, 1, 0, 1]), (2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15])],
)
def test_grey_masks_of_few_bits_hold_classes_and_a_damaged_one_is_refused(
    tmp_path: Path, bits: int, row: bytes, classes: list[int]
) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))
    encoded = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    file = tmp_path / "mask.png"
    file.write_bytes(encoded)
    assert read_mask(file).tolist() == [classes]
    file.write_bytes(encoded.replace(b"IDAT\x78", b"IDAT\x79"))
    with pytest.raises(ImageError, match="the checksum of its IDAT chunk is wrong"):
        read_mask(file)


@pytest.mark.parametrize("shape", [(40, 40), (64, 96), (90, 50)])
def test_a_mask_is_resized_and_cropped_as_its_image(shape: tuple[int, int]) -> None:
    """An image whose pixels are 255 times its mask has, as the network sees it, the mask that comes with it."""
    mask = torch.zeros(shape, dtype=torch.uint8)
    mask[shape[0] // 3 :, shape[1] // 2 :] = 1
    image = (255 * mask).expand(3, *shape).contiguous()
    source = ResidentSource(image[None], torch.zeros(1, dtype=torch.int64), (), "drawn", str)
    (batch,) = evaluation_batches(source, FolderData(image_size=32), 40, 8, mask_of=lambda index, seen: mask)
    assert batch.masks is not None and batch.masks.shape == (1, 32, 32)
    assert set(batch.masks.unique().tolist()) == {0, 1}
    assert ((batch.pixels[0, 0] > 127) == batch.masks[0].bool()).float().mean() > 0.98


def cells(root: Path) -> Path:
    """Write 12 images of 32x32 with masks of the classes 0 and 1."""
    for number in range(12):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, number + 4 :] = 1
        write(root / "images" / f"{number}.png", np.repeat((60 + 100 * mask)[..., None], 3, 2).astype(np.uint8))
        write(root / "masks" / f"{number}.png", mask)
    return root


def refusal(on: Path, *flags: str) -> str:
    """Return the message for a set that cannot be segmented."""
    sections = requested_tasks(["segment"], ["segment.steps=2", *flags])
    with pytest.raises(ConfigError) as refused:
        list(run_tasks(planned_tasks([open_encoder("random:smoke")], [str(on)], sections, ["segment"], on), CPU))
    return str(refused.value)


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    small = cells(tmp_path / "small") / "masks" / "5.png"
    write(small, np.zeros((16, 32), np.uint8))
    assert refusal(tmp_path / "small") == (
        f"{small} is 32x16 pixels, and its image 32x32; a mask must have its image's size"
    )
    lacking = cells(tmp_path / "lacking")
    for number in (3, 4):
        (lacking / "masks" / f"{number}.png").unlink()
    assert refusal(lacking).startswith(f"{lacking}/images/3.png has no mask {lacking}/masks/3.png (and 1 other")
    strange = cells(tmp_path / "strange") / "masks"
    for number in range(12):
        write(strange / f"{number}.png", np.full((32, 32), number % 3, np.uint8))
    message = refusal(tmp_path / "strange", "segment.classes=2")
    assert message.startswith(f"{strange}/") and "has the value 2, and the classes are 0 to 1 (255: not" in message


def test_a_class_that_only_a_validation_mask_has_is_refused(tmp_path: Path) -> None:
    root = cells(tmp_path / "set")
    sections = requested_tasks(["segment"], ["segment.steps=2"])
    (planned,) = planned_tasks([open_encoder("random:smoke")], [str(root)], sections, ["segment"], tmp_path)
    name = Path(planned.images.val.name(0)).name
    write(root / "masks" / name, np.full((32, 32), 7, np.uint8))
    assert refusal(root) == (
        f"{root}/masks/{name} has the value 7, and the classes are 0 to 1 (255: not judged); correct the mask, or give "
        "the number of classes with --set segment.classes=N"
    )


def test_a_set_without_masks_is_refused_if_the_task_is_asked_for_and_left_out_otherwise(tmp_path: Path) -> None:
    root = cells(tmp_path / "set")
    (root / "masks").rename(tmp_path / "away")
    assert refusal(root / "images").startswith(
        f"task segment needs masks, and there are none for --on {root}/images; give their"
    )
    assert refusal(root / "images", f"segment.masks={tmp_path}/none").endswith("give the folder that holds the masks")
    (tmp_path / "empty").mkdir()
    assert "holds no masks" in refusal(root / "images", f"segment.masks={tmp_path}/empty")
    with pytest.raises(ConfigError, match="none of the tasks segment can be done"):
        planned_tasks([open_encoder("random:smoke")], [f"{root}/images"], requested_tasks(["segment"]), None, tmp_path)
