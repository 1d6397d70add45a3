"""Images: every source gives the same thing, crops are torchvision's, batches depend on nothing but the step.

Shapes: B images, H x W pixels.
"""

import hashlib
import io
import math
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Normalizer, Order, TrainingBatch, training_batches
from cnnjepa.data.check import check_images
from cnnjepa.data.crops import Crops, draw_crops
from cnnjepa.data.decoding import decode
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.data.resample import crop_and_resize
from cnnjepa.data.source import Subset, stratified
from cnnjepa.data.synthetic import CLASS_NAMES, render
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import (
    AugmentationConfig,
    ConfigError,
    DataConfig,
    FolderData,
    HDF5Data,
    SyntheticData,
    TorchvisionData,
)

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cow")
TRAIN, VAL = 5, 2  # images a class


def picture(seed: int, height: int, width: int) -> Tensor:
    """A smooth random picture, uint8 [3, H, W]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return (fine[0].clamp(0, 1) * 255).round().to(torch.uint8)


def noise(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def encoded(image: Tensor | np.ndarray, kind: str = "PNG") -> bytes:
    """A picture uint8 [3, H, W], or an array [H, W(, C)], encoded by Pillow, which decodes nothing here."""
    buffer = io.BytesIO()
    array = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image
    Image.fromarray(array).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_set(root: Path, square: int | None = None, train: int = TRAIN, classes: tuple[str, ...] = CLASSES) -> Path:
    """An ImageFolder of JPEGs and PNGs of several sizes, or all of `square` pixels."""
    seed = 0
    for split, count in (("train", train), ("val", VAL)):
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                seed += 1
                height, width = (square, square) if square else (24 + 3 * (seed % 5), 20 + 5 * (seed % 7))
                image = picture(seed, height, width)
                jpeg = i % 2 == 0
                file = root / split / name / f"{i}.{'JPEG' if jpeg else 'png'}"
                file.write_bytes(encoded(image, "JPEG" if jpeg else "PNG"))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes."""
    return write_set(tmp_path_factory.mktemp("sizes") / "animals")


@pytest.fixture(scope="module")
def square_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 40 x 40 pixels."""
    return write_set(tmp_path_factory.mktemp("square") / "animals", square=40)


@pytest.fixture
def broken_folder(tmp_path: Path) -> Path:
    """Square images, of which one training JPEG is cut short and one validation PNG is empty."""
    root = write_set(tmp_path / "broken", square=40)
    cut = root / "train" / "bee" / "2.JPEG"
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "val" / "cow" / "1.png").write_bytes(b"")
    return root


BROKEN = ("train/bee/2.JPEG", "val/cow/1.png")


def archive(source: Path, target: Path, inside: str = "") -> Path:
    """A tar of `source`'s content below the folder `inside`, in reversed order."""
    with tarfile.open(target, "w:gz" if target.suffix in (".gz", ".tgz") else "w") as tar:
        for file in sorted(source.rglob("*"), reverse=True):
            if file.is_file():
                tar.add(file, arcname=f"{inside}{file.relative_to(source)}")
    return target


def config_of(path: Path, **settings: Any) -> FolderData:
    return FolderData(**{"path": path, "image_size": 32, "resident": "never", **settings})


def order_of(data: DataSet, batch_size: int = 4, rank: int = 0, world_size: int = 1, seed: int = 3) -> Order:
    return Order(data.train.labels.numel(), batch_size, rank, world_size, seed)


def batches(
    data: DataSet, config: DataConfig, order: Order, first: int, last: int, workers: int = 0
) -> list[TrainingBatch]:
    return list(training_batches(data, config, order, first, last, workers, CPU))


def stacked(found: list[TrainingBatch]) -> Tensor:
    return torch.stack([batch.pixels for batch in found])


# --- Folders and archives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz"])
@pytest.mark.parametrize("inside", ["", "./"])
def test_an_archive_is_the_directory(folder: Path, tmp_path: Path, name: str, inside: str) -> None:
    directory = open_sources(config_of(folder))
    packed = open_sources(config_of(archive(folder, tmp_path / name, inside)))
    for split, count in (("train", TRAIN), ("val", VAL)):
        one, other = directory[split], packed[split]
        assert other.class_names == one.class_names == list(CLASSES)
        assert torch.equal(one.labels, torch.arange(3).repeat_interleave(count))
        assert torch.equal(other.labels, one.labels)
        assert other.fingerprint() == one.fingerprint()
        for index in range(3 * count):
            assert torch.equal(other.load(index), one.load(index))
            assert other.name(index).endswith(one.name(index).removeprefix(f"{folder}/"))


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_a_folder_around_the_splits_in_an_archive_is_looked_through(folder: Path, tmp_path: Path, name: str) -> None:
    packed = open_sources(config_of(archive(folder, tmp_path / name, inside="deep/animals/")))
    directory = open_sources(config_of(folder))
    for split in ("train", "val"):
        assert torch.equal(packed[split].labels, directory[split].labels)
        assert torch.equal(packed[split].load(3), directory[split].load(3))
        assert packed[split].name(0).endswith(f"deep/animals/{split}/ant/0.JPEG")


def test_a_folder_around_the_splits_does_not_change_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    packed = open_sources(config_of(archive(folder, tmp_path / "set.tar", inside="animals/")))
    assert packed["train"].fingerprint() == open_sources(config_of(folder))["train"].fingerprint()


def test_images_are_uint8_rgb_as_written(folder: Path) -> None:
    source = open_sources(config_of(folder))["train"]
    place = next(i for i in range(TRAIN) if source.name(i).endswith("ant/1.png"))
    image = source.load(place)
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    assert torch.equal(image, picture(2, image.shape[1], image.shape[2]))


def test_the_fingerprint_follows_names_and_sizes_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    moved = write_set(tmp_path / "elsewhere")
    first = open_sources(config_of(folder))["train"].fingerprint()
    assert open_sources(config_of(moved))["train"].fingerprint() == first
    file = moved / "train" / "ant" / "0.JPEG"
    file.write_bytes(file.read_bytes() + b"x")
    changed = open_sources(config_of(moved))["train"].fingerprint()
    file.rename(file.with_name("9.JPEG"))
    renamed = open_sources(config_of(moved))["train"].fingerprint()
    assert len({first, changed, renamed}) == 3
    assert open_data(config_of(moved)).fingerprint != open_data(config_of(folder)).fingerprint


def test_other_files_and_loose_images_are_not_taken(folder: Path, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / "loose.png").write_bytes((root / "train" / "ant" / "1.png").read_bytes())
    assert open_sources(config_of(root))["train"].labels.numel() == 3 * TRAIN


def test_splits_may_have_other_names(folder: Path) -> None:
    swapped = open_sources(config_of(folder, train_split="val", val_split="train"))
    assert swapped["train"].labels.numel() == 3 * VAL


def refused(config: DataConfig, batch_size: int = 2, processes: int = 1) -> str:
    with pytest.raises(ConfigError) as caught:
        open_data(config, batch_size, processes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_place_is_refused(tmp_path: Path) -> None:
    assert "data.path is not set" in refused(FolderData())
    message = refused(config_of(tmp_path / "none"))
    assert f"{tmp_path / 'none'} does not exist" in message and "--data" in message
    (tmp_path / "list.csv").write_text("a")
    assert "is a file; legal are" in refused(config_of(tmp_path / "list.csv"))


def test_an_empty_place_is_refused(tmp_path: Path) -> None:
    assert "holds no images below <split>/<class>/" in refused(config_of(tmp_path))
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert "holds no images" in refused(config_of(tmp_path))
    assert "holds no images" in refused(config_of(archive(tmp_path / "train", tmp_path / "empty.tar")))


def test_an_unknown_split_is_refused_with_the_nearest(folder: Path) -> None:
    message = refused(config_of(folder, val_split="valid"))
    assert "data.val_split 'valid'" in message and "it holds train, val" in message and "nearest is 'val'" in message


def test_one_class_is_refused(tmp_path: Path) -> None:
    message = refused(config_of(write_set(tmp_path / "one", classes=("ant",))))
    assert "all 5 training images are of one class (ant)" in message


def test_fewer_images_than_a_batch_are_refused(folder: Path) -> None:
    message = refused(config_of(folder), 16)
    assert "15 training images are fewer than a global batch of 16 (runtime.batch_size 16 on 1 process)" in message
    assert "a partial batch is dropped; legal for runtime.batch_size are 2 to 15" in message
    message = refused(config_of(folder), 4, 4)
    assert "a global batch of 16 (runtime.batch_size 4 on 4 processes)" in message and message.endswith("2 to 3")
    assert refused(config_of(folder), 2, 8).endswith("are none with 8 processes, so use at most 7")
    open_data(config_of(folder), 15)
    open_data(config_of(folder), 3, 5)


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "val" / "ant").rename(root / "val" / "elk")
    assert "classes that train lacks: elk" in refused(config_of(root))


def test_more_images_than_there_are_are_refused(folder: Path) -> None:
    message = refused(config_of(folder, train_images=16))
    assert "data.train_images 16 is more than the 15 images" in message and "legal are 2 to 15" in message


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_a_truncated_archive_is_an_error_naming_it(folder: Path, tmp_path: Path, name: str) -> None:
    whole = archive(folder, tmp_path / name)
    with tarfile.open(whole) as tar:
        inside = tar.getmembers()[9].offset_data + 100
    size = whole.stat().st_size // 2 if name.endswith(".gz") else inside
    whole.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(ConfigError, match=f"archive .*{name} cannot be read"):
        open_sources(config_of(whole))


@pytest.mark.parametrize("into_header", [0, 100])
def test_an_archive_cut_between_two_images_is_an_error_naming_it(
    folder: Path, tmp_path: Path, into_header: int
) -> None:
    whole = archive(folder, tmp_path / "set.tar")
    with tarfile.open(whole) as tar:
        cut = tar.getmembers()[-2].offset + into_header
    whole.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"archive .*set\.tar cannot be read"):
        open_sources(config_of(whole))


def test_a_subset_is_even_over_classes(folder: Path) -> None:
    data = open_data(config_of(folder, train_images=7, val_images=3))
    assert sorted(Counter(data.train.labels.tolist()).values()) == [2, 2, 3]
    assert data.val.labels.tolist() == [0, 1, 2]
    assert data.train.name(0).endswith("train/ant/0.JPEG")
    assert data.classes == 3


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40), data=st.data())
def test_stratified_takes_the_first_of_each_class_in_turn(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(labels)))
    chosen = stratified(torch.tensor(labels), count).tolist()
    assert chosen == sorted(set(chosen)) and len(chosen) == count
    taken, there = Counter(labels[i] for i in chosen), Counter(labels)
    for label in there:
        members = [i for i in range(len(labels)) if labels[i] == label]
        assert [i for i in chosen if labels[i] == label] == members[: taken[label]]
        # A class has fewer than another's only where it has no more.
        assert taken[label] == there[label] or taken[label] >= max(taken.values()) - 1


def test_stratified_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="4 images asked for, 3 exist"):
        stratified(torch.tensor([0, 1, 1]), 4)


# --- Unreadable images --------------------------------------------------------------------------------------------


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


# --- HDF5 and torchvision -----------------------------------------------------------------------------------------


def write_hdf5(path: Path, images: list[bytes], labels: list[int], opaque: bool = False) -> None:
    """The authors' layout: groups `images` and `labels`, keys "0".."N-1", encoded bytes."""
    with h5py.File(path, "w") as file:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            stored = np.void(image) if opaque else np.frombuffer(image, dtype=np.uint8)
            file.create_dataset(f"images/{i}", data=stored)
            file.create_dataset(f"labels/{i}", data=label if opaque else np.array([label]))


@pytest.mark.parametrize("opaque", [False, True])
def test_hdf5_gives_the_images_and_labels_in_the_order_of_their_numbers(tmp_path: Path, opaque: bool) -> None:
    pictures = [picture(i, 24 + i, 30) for i in range(12)]  # twelve, so that "10" sorts before "2"
    files = [encoded(one) for one in pictures]
    labels = [i % 3 for i in range(12)]
    write_hdf5(tmp_path / "train.h5", files, labels, opaque)
    write_hdf5(tmp_path / "val.h5", files[:3], labels[:3], opaque)
    sources = open_sources(HDF5Data(path=tmp_path, image_size=32))
    assert sources["train"].labels.tolist() == labels
    assert sources["train"].class_names == ["0", "1", "2"]
    for i in range(12):
        assert torch.equal(sources["train"].load(i), pictures[i])
    assert sources["train"].name(10) == f"{tmp_path}/train.h5:images/10"
    assert sources["train"].fingerprint() != sources["val"].fingerprint()


def test_hdf5_serves_loader_processes(tmp_path: Path) -> None:
    files = [encoded(picture(i, 32, 32)) for i in range(8)]
    for split in ("train", "val"):
        write_hdf5(tmp_path / f"{split}.h5", files, [i % 2 for i in range(8)])
    config = HDF5Data(path=tmp_path, image_size=32, resident="never")
    data = open_data(config)
    data.train.load(0)  # a handle is open before the fork
    one = stacked(batches(data, config, order_of(data), 0, 3))
    assert torch.equal(one, stacked(batches(data, config, order_of(data), 0, 3, workers=2)))


def test_a_corrupt_image_in_hdf5_is_named(tmp_path: Path) -> None:
    good = encoded(picture(0, 32, 32))
    write_hdf5(tmp_path / "train.h5", [good, good[:40]], [0, 1])
    write_hdf5(tmp_path / "val.h5", [good, good], [0, 1])
    with pytest.raises(ImageError, match=r"train\.h5:images/1 cannot be decoded"):
        open_sources(HDF5Data(path=tmp_path))["train"].load(1)


def test_hdf5_without_files_groups_or_keys_is_refused(tmp_path: Path) -> None:
    config = HDF5Data(path=tmp_path)
    assert "data.path is not set" in refused(HDF5Data())
    message = refused(config)
    assert "data.train_file" in message and "holds no .h5 file" in message
    (tmp_path / "train.h5").write_bytes(b"not hdf5")
    (tmp_path / "val.h5").write_bytes(b"not hdf5")
    assert "cannot be opened as HDF5" in refused(config)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_group("images")
    assert "lacks the group(s) labels" in refused(config)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_dataset("images/1", data=np.zeros(3, np.uint8))
        file.create_dataset("labels/1", data=0)
    assert "lacks a key between 0 and N-1" in refused(config)
    write_hdf5(tmp_path / "train.h5", [b"x", b"x"], [0, -1])
    assert "negative labels" in refused(config)


def write_cifar10(root: Path) -> np.ndarray:
    """Ten images a batch in CIFAR-10's pickled layout; gives the training pixels [50, 3, 32, 32]."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3072), dtype=np.uint8)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for n, name in enumerate(names):
        batch = {"data": pixels[10 * n : 10 * n + 10], "labels": [i % 10 for i in range(10)]}
        (base / name).write_bytes(pickle.dumps(batch))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    return pixels.reshape(60, 3, 32, 32)


def test_torchvisions_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path)
    for hook in ("_check_integrity",):  # these files are ours, so their checksums are not torchvision's
        monkeypatch.setattr(torchvision.datasets.CIFAR10, hook, lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())
    data = open_data(TorchvisionData(path=tmp_path, image_size=32))
    assert data.resident and data.name == "cifar10" and data.classes == 10
    assert data.train.labels.tolist() == list(range(10)) * 5
    assert data.train.class_names == [f"class {i}" for i in range(10)]
    for i in (0, 17, 49):
        assert np.array_equal(data.train.load(i).numpy(), pixels[i])
    assert np.array_equal(data.val.load(3).numpy(), pixels[53])


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "imagenette"])
def test_a_torchvision_set_that_is_not_there_is_refused(tmp_path: Path, name: Any) -> None:
    message = refused(TorchvisionData(path=tmp_path, name=name)).replace("\n", " ")
    assert f"data.path {tmp_path} does not hold {name}" in message and "data.download=true" in message
    assert "data.path is not set" in refused(TorchvisionData(name=name))
    assert list(tmp_path.iterdir()) == []


# --- Crops --------------------------------------------------------------------------------------------------------


def drawn_crops(
    height: int, width: int, count: int, config: AugmentationConfig, seed: int = 0, epoch: int = 0
) -> Crops:
    ones = torch.ones(count, dtype=torch.int64)
    return draw_crops(config, torch.arange(count), ones * height, ones * width, seed, epoch)


@pytest.mark.parametrize(("height", "width"), [(120, 80), (64, 64), (375, 500), (40, 300), (300, 40)])
def test_crops_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Area, aspect and place, by Kolmogorov-Smirnov and by quantiles. At 40 x 300 most draws do not fit, so that
    retries and the central fallback are in it too."""
    count = 4000
    config = AugmentationConfig()
    ours = drawn_crops(height, width, count, config)
    torch.manual_seed(1)
    stock = v2.RandomResizedCrop(8, scale=config.crop_scale, ratio=config.crop_ratio)
    image = torch.empty(3, height, width, dtype=torch.uint8)
    theirs = [stock.make_params([image]) for _ in range(count)]

    def figures(top: np.ndarray, left: np.ndarray, h: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
        centre_y, centre_x = (top + h / 2) / height, (left + w / 2) / width
        return {"area": h * w / (height * width), "aspect": np.log(w / h), "y": centre_y, "x": centre_x}

    one = figures(*(side.double().numpy() for side in ours[:4]))
    two = figures(*(np.array([p[name] for p in theirs], dtype=float) for name in ("top", "left", "height", "width")))
    for name in one:
        assert stats.ks_2samp(one[name], two[name]).pvalue > 1e-3, name
        error = math.sqrt((one[name].var() + two[name].var()) / count)
        assert one[name].mean() == pytest.approx(two[name].mean(), abs=4.5 * error + 1e-12), name
        spread = max(two[name].std(), 1e-9)
        whole_pixels = 1 / min(height, width) if name in "xy" else 0.0
        for q in (0.05, 0.25, 0.5, 0.75, 0.95):  # a quantile's sampling error is up to 5 % of the spread here
            expected = pytest.approx(np.quantile(two[name], q), abs=0.15 * spread + whole_pixels)
            assert np.quantile(one[name], q) == expected, (name, q)


@settings(deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    index=st.integers(0, 2**40),
    epoch=st.integers(0, 10**6),
    seed=st.integers(0, 2**40),
    least=st.floats(0.01, 1),
    most=st.floats(0.01, 1),
)
def test_crops_lie_inside_the_image(
    height: int, width: int, index: int, epoch: int, seed: int, least: float, most: float
) -> None:
    config = AugmentationConfig(crop_scale=(min(least, most), max(least, most)))
    crops = draw_crops(config, torch.tensor([index]), torch.tensor([height]), torch.tensor([width]), seed, epoch)
    top, left, h, w = (int(side) for side in crops[:4])
    assert 0 <= top < top + h <= height
    assert 0 <= left < left + w <= width


def test_every_place_of_a_crop_is_as_likely() -> None:
    """A quarter of 8 x 8 pixels, square, lies at one of 5 x 5 places."""
    crops = drawn_crops(8, 8, 5000, AugmentationConfig(crop_scale=(0.25, 0.25), crop_ratio=(1, 1)))
    assert (crops.height == 4).all() and (crops.width == 4).all()
    counts = torch.bincount(crops.top * 5 + crops.left, minlength=25)
    assert counts.numel() == 25
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_crop_depends_on_seed_epoch_and_image_alone() -> None:
    config = AugmentationConfig()
    whole = drawn_crops(60, 80, 64, config)
    one = draw_crops(config, torch.tensor([17]), torch.tensor([60]), torch.tensor([80]), 0, 0)
    assert [int(side[0]) for side in one] == [int(side[17]) for side in whole]
    for other in (drawn_crops(60, 80, 64, config, seed=1), drawn_crops(60, 80, 64, config, epoch=1)):
        assert not torch.equal(whole.top, other.top)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_flips_have_their_rate_and_do_not_follow_the_crop(rate: float) -> None:
    count = 10_000
    crops = drawn_crops(60, 80, count, AugmentationConfig(flip=rate))
    assert crops.flip.double().mean().item() == pytest.approx(rate, abs=4.5 * math.sqrt(rate * (1 - rate) / count))
    if 0 < rate < 1:
        together = torch.stack([crops.flip.double(), crops.left.double()])
        assert abs(torch.corrcoef(together)[0, 1].item()) < 5 / math.sqrt(count)


# --- Resampling ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    size=st.integers(1, 40),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    data=st.data(),
)
def test_resampling_is_torchvisions_antialiased_resize(
    height: int, width: int, size: int, interpolation: Any, data: st.DataObject
) -> None:
    images = noise(3, height, width)
    boxes = []
    for _ in range(3):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        boxes.append((top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))))
    flips = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))
    crops = Crops(*torch.tensor(boxes).T, torch.tensor(flips))
    ours = crop_and_resize(images, crops, size, interpolation, torch.float64)
    for i, (box, flip) in enumerate(zip(boxes, flips, strict=True)):
        mode = InterpolationMode(interpolation)
        stock = transforms.resized_crop(images[i].double(), *box, [size, size], mode, antialias=True)
        stock = transforms.horizontal_flip(stock) if flip else stock
        assert (ours[i] - stock.clamp(0, 255)).abs().max().item() < 1e-9


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "size"), [(60, 90, 24), (20, 30, 48), (48, 48, 48), (90, 20, 32)])
def test_resampling_up_down_and_not_at_all(height: int, width: int, size: int, interpolation: Any) -> None:
    images = noise(2, height, width)
    crops = Crops(*torch.tensor([[0, 0, height, width], [3, 5, height - 4, width - 7]]).T, torch.tensor([False, True]))
    ours = crop_and_resize(images, crops, size, interpolation, torch.float64)
    mode = InterpolationMode(interpolation)
    whole = transforms.resize(images[0].double(), [size, size], mode, antialias=True).clamp(0, 255)
    part = transforms.resize(images[1, :, 3 : height - 1, 5 : width - 2].double(), [size, size], mode, antialias=True)
    assert (ours[0] - whole).abs().max().item() < 1e-9
    assert (ours[1] - part.clamp(0, 255).flip(-1)).abs().max().item() < 1e-9
    if height == width == size:
        assert torch.equal(ours[0], images[0].double())
    single = crop_and_resize(images, crops, size, interpolation)
    assert single.dtype == torch.float32
    assert (single - ours).abs().max().item() < 1e-3


# --- Training batches ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    images=st.integers(2, 60),
    batch=st.integers(1, 8),
    world=st.integers(1, 4),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_order_shows_every_image_at_most_once_an_epoch_and_drops_the_partial_batch(
    images: int, batch: int, world: int, seed: int, data: st.DataObject
) -> None:
    if images < batch * world:
        return
    orders = [Order(images, batch, rank, world, seed) for rank in range(world)]
    steps = orders[0].steps_per_epoch
    assert steps == images // (batch * world)
    ranks = [list(order.walk(0, 2 * steps)) for order in orders]
    for epoch in (0, 1):
        seen = [int(i) for walk in ranks for e, index in walk if e == epoch for i in index]
        assert len(seen) == len(set(seen)) == steps * batch * world
        assert set(seen) <= set(range(images)) and images - len(seen) < batch * world
    whole = list(Order(images, batch * world, 0, 1, seed).walk(0, 2 * steps))
    for step, (epoch, index) in enumerate(whole):
        assert all(walk[step][0] == epoch for walk in ranks)
        assert torch.equal(torch.cat([walk[step][1] for walk in ranks]), index)
    assert torch.cat([order.slots() for order in orders]).tolist() == list(range(batch * world))
    first = data.draw(st.integers(0, 2 * steps))
    resumed = list(orders[0].walk(first, 2 * steps))
    assert [e for e, _ in resumed] == [e for e, _ in ranks[0][first:]]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(resumed, ranks[0][first:], strict=True))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    epochs = [
        torch.cat([index for _, index in Order(40, 8, 0, 1, seed).walk(first, first + 5)])
        for seed, first in ((0, 0), (0, 5), (1, 0))
    ]
    assert all(sorted(one.tolist()) == list(range(40)) for one in epochs)
    assert len({tuple(one.tolist()) for one in epochs}) == 3


def test_batches_do_not_depend_on_the_number_of_loader_processes(folder: Path) -> None:
    config = config_of(folder)
    data = open_data(config)
    none, one, two = (batches(data, config, order_of(data), 0, 7, workers) for workers in (0, 1, 2))
    assert none[0].pixels.dtype == torch.uint8 and none[0].pixels.shape == (4, 3, 32, 32)
    assert torch.equal(stacked(none), stacked(one))
    assert torch.equal(stacked(none), stacked(two))
    assert len({hashlib.sha256(b.pixels.numpy().tobytes()).digest() for b in none}) == 7


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_loaded_crops_are_torchvisions_resized_crop(folder: Path, interpolation: Any) -> None:
    """Bit for bit, whatever the layout in memory that is cropped."""
    config = config_of(folder, augmentation=AugmentationConfig(interpolation=interpolation))
    data = open_data(config)
    (batch,) = batches(data, config, order_of(data, batch_size=15), 0, 1)
    ((_, index),) = order_of(data, batch_size=15).walk(0, 1)
    images = [data.train.load(int(i)) for i in index]
    sides = (torch.tensor([image.shape[side] for image in images]) for side in (1, 2))
    crops = draw_crops(config.augmentation, index, *sides, seed=3, epoch=0)
    for place, image in enumerate(images):
        box = [int(side[place]) for side in crops[:4]]
        stock = transforms.resized_crop(image.contiguous(), *box, [32, 32], InterpolationMode(interpolation))
        stock = transforms.horizontal_flip(stock) if crops.flip[place] else stock
        assert torch.equal(batch.pixels[place], stock)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)


def test_an_epochs_first_batches_are_made_before_the_last_one_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pool of loader processes for the whole run, which is asked for the next epoch ahead of time."""
    config = config_of(folder)
    data = open_data(config)
    order = order_of(data, batch_size=3)  # five steps an epoch
    asked: list[int] = []
    started: list[int] = []
    walk, pool = Order.walk, torch.utils.data.DataLoader.__iter__

    def watched_walk(self: Order, first: int, last: int) -> Any:
        for epoch, index in walk(self, first, last):
            asked.append(epoch)
            yield epoch, index

    def watched_pool(self: Any) -> Any:
        started.append(1)
        return pool(self)

    monkeypatch.setattr(Order, "walk", watched_walk)
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", watched_pool)
    for step, _ in enumerate(training_batches(data, config, order, 0, 15, 1, CPU)):
        ahead = min(step + 1 + 4, 15)  # prefetch_factor, one loader process
        assert len(asked) == ahead and asked[-1] == (ahead - 1) // 5
    assert len(started) == 1


@pytest.mark.parametrize("resident", ["never", "always"])
def test_batches_can_be_taken_up_at_any_step(square_folder: Path, resident: str) -> None:
    config = config_of(square_folder, resident=resident)
    data = open_data(config)
    whole = stacked(batches(data, config, order_of(data), 0, 7))
    for first in range(7):
        assert torch.equal(stacked(batches(data, config, order_of(data), first, 7)), whole[first:])
    if resident == "never":
        assert torch.equal(stacked(batches(data, config, order_of(data), 4, 7, workers=2)), whole[4:])


@pytest.mark.parametrize("resident", ["never", "always"])
def test_two_ranks_see_together_what_one_process_sees_with_the_double_batch(square_folder: Path, resident: str) -> None:
    config = config_of(square_folder, resident=resident)
    data = open_data(config)
    whole = stacked(batches(data, config, order_of(data, batch_size=6), 0, 4))
    ranks = [stacked(batches(data, config, order_of(data, 3, rank, 2), 0, 4)) for rank in (0, 1)]
    together = torch.cat(ranks, 1)
    if resident == "never":
        assert torch.equal(together, whole)
    else:  # float32 matrix products may round differently in a batch of another size
        assert (together - whole).abs().max().item() < 1e-3


@pytest.mark.parametrize(("interpolation", "allowed"), [("bilinear", 1.01), ("bicubic", 1.15)])
def test_resident_and_loaded_images_see_the_same_crops(square_folder: Path, interpolation: str, allowed: float) -> None:
    """uint8 resampling rounds after each axis: half a grey level, times the sum of the second axis' absolute
    weights (1; bicubic at most 1.25), and half a level at the end, and a little for its 16-bit weights. (Where
    bicubic overshoots 0 or 255 it also cuts between the axes: up to 30 levels at black-and-white edges, of which
    these smooth pictures have none.)"""
    augmentation = AugmentationConfig(interpolation=interpolation)
    configs = [config_of(square_folder, resident=how, augmentation=augmentation) for how in ("never", "always")]
    sets = [open_data(config) for config in configs]
    assert [data.resident for data in sets] == [False, True]
    assert sets[0].fingerprint == sets[1].fingerprint
    loaded, resident = (
        stacked(batches(data, config, order_of(data), 0, 6)) for data, config in zip(sets, configs, strict=True)
    )
    assert resident.dtype == torch.float32
    assert (loaded.float() - resident).abs().max().item() < allowed


def test_auto_keeps_small_sets_of_one_size_and_no_others(folder: Path, square_folder: Path) -> None:
    assert open_data(config_of(square_folder, resident="auto")).resident
    assert not open_data(config_of(folder, resident="auto")).resident
    assert not open_data(config_of(square_folder, resident="auto", resident_limit_gib=1e-6)).resident
    message = refused(config_of(folder, resident="always"))
    assert "data.resident=always needs images of one size" in message and "resident=auto or never" in message


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    config = SyntheticData(image_size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = noise(2, 16, 16)
    normalize = Normalizer(config, CPU)
    stock = v2.functional.normalize(pixels.double() / 255, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    ours = normalize(pixels)
    assert (ours - stock).abs().max().item() < 1e-6
    assert ours.dtype == torch.float32 and ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize.undo(ours), pixels)


# --- Evaluation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resize", [None, 40])
def test_evaluation_resizes_crops_the_centre_and_keeps_the_order(
    folder: Path, resize: int | None, workers: int
) -> None:
    config = config_of(folder)
    source = open_sources(config)["train"]
    found = list(evaluation_batches(source, config, resize, 4, workers))
    assert [batch.pixels.shape[0] for batch in found] == [4, 4, 4, 3]
    assert torch.cat([batch.places for batch in found]).tolist() == list(range(15))
    pixels = torch.cat([batch.pixels for batch in found])
    stock = v2.Compose([v2.Resize(resize or 32, antialias=True), v2.CenterCrop(32)])
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, torch.stack([stock(source.load(i)) for i in range(15)]))


def test_evaluation_of_resident_images_is_the_same(square_folder: Path) -> None:
    for size, resize in ((40, None), (32, 40), (32, None)):
        pixels = []
        for resident in ("always", "never"):
            config = config_of(square_folder, resident=resident, image_size=size)
            found = list(evaluation_batches(open_data(config).val, config, resize, 4))
            assert torch.cat([batch.places for batch in found]).tolist() == list(range(6))
            pixels.append(torch.cat([batch.pixels for batch in found]))
        assert torch.equal(*pixels)


def test_a_subset_is_evaluated_in_its_own_places(folder: Path) -> None:
    config = config_of(folder)
    source = open_sources(config)["train"]
    subset = Subset(source, torch.tensor([2, 7, 11]))
    (batch,) = evaluation_batches(subset, config, None, 8)
    (whole,) = evaluation_batches(source, config, None, 16)
    assert batch.places.tolist() == [0, 1, 2]
    assert torch.equal(batch.pixels, whole.pixels[[2, 7, 11]])


# --- The synthetic set --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32, 64])
def test_synthetic_images_are_uint8_of_the_size_asked_for(size: int) -> None:
    images, labels = render("train", 20, size)
    assert images.shape == (20, 3, size, size) and images.dtype == torch.uint8
    assert labels.dtype == torch.int64 and labels.tolist() == [i % len(CLASS_NAMES) for i in range(20)]
    assert images.float().std(dim=(1, 2, 3)).min() > 1  # none is blank


def test_a_synthetic_image_does_not_depend_on_how_many_are_drawn() -> None:
    few, many = render("train", 5, 32)[0], render("train", 70, 32)[0]
    assert torch.equal(few, many[:5])
    assert torch.equal(many, render("train", 70, 32)[0])
    assert torch.unique(many.flatten(1), dim=0).shape[0] == 70


def test_splits_and_seeds_of_the_synthetic_set_share_no_image() -> None:
    drawn = torch.cat([render("train", 40, 32)[0], render("val", 40, 32)[0], render("train", 40, 32, seed=1)[0]])
    assert torch.unique(drawn.flatten(1), dim=0).shape[0] == 120


def test_the_synthetic_set_does_not_depend_on_threads() -> None:
    threads = torch.get_num_threads()
    try:
        drawn = []
        for count in (1, 2):
            torch.set_num_threads(count)
            drawn.append(render("val", 24, 32)[0])
        assert torch.equal(*drawn)
    finally:
        torch.set_num_threads(threads)


def test_synthetic_classes_are_balanced_and_named() -> None:
    classes = len(CLASS_NAMES)
    assert len(set(CLASS_NAMES)) == classes
    config = SyntheticData(train_images=4 * classes, val_images=2 * classes)
    data = open_data(config)
    assert data.resident and data.classes == classes and data.name == "synthetic-32"
    assert set(Counter(data.train.labels.tolist()).values()) == {4}
    assert set(Counter(data.val.labels.tolist()).values()) == {2}
    again = open_data(config)
    assert data.fingerprint == again.fingerprint
    assert data.fingerprint != open_data(config.model_copy(update={"drawing_seed": 1})).fingerprint


@pytest.mark.parametrize(
    "wrong", [("test", 1, 32, 0), ("train", -1, 32, 0), ("train", 1, 15, 0), ("train", 1, 257, 0), ("train", 1, 32, -1)]
)
def test_rendering_refuses_what_it_cannot_draw(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"choose|must be"):
        render(*wrong)


# --- Real photographs ---------------------------------------------------------------------------------------------


def test_the_photographs_beside_the_repository_are_read(photographs: Path) -> None:
    sources = open_sources(FolderData(path=photographs, image_size=64))
    for split, count in (("train", 37_000), ("val", 5_000)):
        labels = sources[split].labels
        assert labels.numel() == count
        assert len(sources[split].class_names) == 100
        assert torch.equal(labels.bincount(minlength=100), torch.full((100,), count // 100))
        for index in (0, count // 2, count - 1):
            assert sources[split].load(index).shape == (3, 64, 64)
    assert sources["train"].class_names == sources["val"].class_names
