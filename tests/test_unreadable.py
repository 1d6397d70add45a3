"""Images that cannot be decoded are named, skipped or replaced as the config says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_sets import BROKEN, batches, config_of, encoded, noise, order_of, write_set

from cnnjepa.data import open_data
from cnnjepa.data.check import check_images
from cnnjepa.data.decoding import decode
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import (
    FolderData,
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_a_truncated_image_is_an_error_naming_it_in_one_line(kind: str, share: float) -> None:
    whole = encoded(noise(1, 32, 32)[0], kind)
    assert decode(whole, "whole").shape == (3, 32, 32)
    with pytest.raises(ImageError) as caught:
        decode(whole[: int(share * len(whole))], "somewhere/x.jpg")
    assert str(caught.value).startswith("somewhere/x.jpg cannot be decoded (")
    assert "\n" not in str(caught.value)


def test_text_is_no_image() -> None:
    with pytest.raises(ImageError, match=r"a\.jpg cannot be decoded"):
        decode(b"<html>404</html>", "a.jpg")


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3), (8, 9, 4)])
def test_grey_and_opaque_images_become_rgb(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    array[..., 3:] = 255
    image = decode(encoded(array), "x")
    assert image.shape == (3, 8, 9) and image.dtype == torch.uint8
    colour = array[..., None].repeat(3, 2) if array.ndim == 2 else array[..., :3]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), colour)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_training_image_stops_the_run_and_is_named(broken_folder: Path, workers: int) -> None:
    config = config_of(broken_folder)
    data = open_data(config)
    with pytest.raises(ImageError) as caught:
        batches(data, config, order_of(data, batch_size=5), 0, 3, workers)
    assert str(caught.value).startswith(f"{broken_folder}/{BROKEN[0]} cannot be decoded")
    assert "\n" not in str(caught.value)


def test_an_unreadable_image_stops_decoding_a_resident_set(broken_folder: Path) -> None:
    with pytest.raises(ImageError, match=BROKEN[0]):
        open_data(config_of(broken_folder, resident="always"))


@pytest.mark.parametrize("workers", [0, 1])
def test_skipping_takes_the_next_readable_image_in_the_loader_path(broken_folder: Path, workers: int) -> None:
    config = config_of(broken_folder, on_error="skip")
    data = open_data(config)
    found = batches(data, config, order_of(data, batch_size=5), 0, 6, workers)  # two epochs
    skipped = [name for batch in found for name in batch.skipped]
    assert len(skipped) == 2 and len(set(skipped)) == 1
    assert skipped[0].startswith(f"{broken_folder}/{BROKEN[0]} cannot be decoded")
    assert all(batch.pixels.shape == (5, 3, 32, 32) for batch in found)


def test_skipping_leaves_the_image_out_of_a_resident_set(broken_folder: Path) -> None:
    config = config_of(broken_folder, resident="always", on_error="skip")
    data = open_data(config)
    assert data.resident
    assert [name.split(" ")[0] for name in data.skipped] == [f"{broken_folder}/{name}" for name in BROKEN]
    assert data.train.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    assert data.val.labels.tolist() == [0, 0, 1, 1, 2]
    whole = open_sources(config)["train"]
    kept = [i for i in range(15) if not whole.name(i).endswith(BROKEN[0])]
    for place, index in enumerate(kept):
        assert torch.equal(data.train.load(place), whole.load(index))
        assert data.train.name(place) == whole.name(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_out_and_names_what_cannot_be_read(broken_folder: Path, workers: int) -> None:
    config = config_of(broken_folder, on_error="skip")
    found = list(evaluation_batches(open_sources(config)["val"], config, None, 4, workers))
    assert torch.cat([batch.places for batch in found]).tolist() == [0, 1, 2, 3, 4]
    (skipped,) = [name for batch in found for name in batch.skipped]
    assert skipped.startswith(f"{broken_folder}/{BROKEN[1]}")
    with pytest.raises(ImageError, match=BROKEN[1]):
        list(evaluation_batches(open_sources(config)["val"], config_of(broken_folder), None, 4, workers))


def unreadable(root: Path) -> FolderData:
    """A set without any readable image."""
    write_set(root, square=40)
    for file in root.rglob("*.*"):
        file.write_bytes(b"no image")
    return config_of(root, on_error="skip")


def test_a_set_without_any_readable_image_is_an_error(tmp_path: Path) -> None:
    config = unreadable(tmp_path / "none")
    data = open_data(config)
    with pytest.raises(RunError, match="no image of this set can be read"):
        batches(data, config, order_of(data), 0, 1)
    with pytest.raises(RunError, match="no image of this set can be read"):
        open_data(config.model_copy(update={"resident": "always"}))


def test_a_loader_process_sends_no_traceback(tmp_path: Path) -> None:
    config = unreadable(tmp_path / "none")
    data = open_data(config)
    with pytest.raises(RunError) as caught:
        batches(data, config, order_of(data), 0, 1, workers=1)
    assert "Traceback" not in str(caught.value)


def test_check_finds_exactly_the_unreadable_images(broken_folder: Path) -> None:
    checked = list(check_images(config_of(broken_folder), threads=3))
    assert [one.split for one in checked] == ["train"] * 15 + ["val"] * 6
    problems = [one for one in checked if one.problem]
    assert [(one.split, one.size) for one in problems] == [("train", None), ("val", None)]
    for one, name in zip(problems, BROKEN, strict=True):
        assert one.problem and one.problem.startswith(f"{broken_folder}/{name} cannot be decoded")
    assert {one.size for one in checked if not one.problem} == {(40, 40)}


def test_a_file_that_vanishes_is_an_image_error(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    source = open_sources(config_of(root))["train"]
    (root / "train" / "ant" / "0.JPEG").unlink()
    with pytest.raises(ImageError, match=r"ant/0\.JPEG cannot be read \(No such file"):
        source.load(0)
