"""A folder of tar shards is one set: parts of a folder of images, or WebDataset shards as that library writes them."""

import gc
import io
import json
import re
import shutil
import subprocess
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import CLASSES, TRAIN, VAL, config_of, encoded, picture
from PIL import Image
from pixel_files import png16

from cnnjepa.data.open import open_data, open_sources
from cnnjepa.data.tar_shards import are_classes, split_of
from cnnjepa.schemas import ConfigError


@pytest.mark.parametrize("below", ["", "split"])
def test_shards_are_the_folder_from_which_they_were_made(image_folder: Path, tmp_path: Path, below: str) -> None:
    target = tmp_path / "shards"
    target.mkdir()
    for split in ("train", "val"):
        files = sorted((image_folder / split).rglob("*.*"))
        for number in range(3):
            with tarfile.open(target / f"{split}-{number:03d}.tar", "w") as tar:
                for file in files[number::3]:
                    tar.add(file, str(file.relative_to(image_folder / split if below else image_folder)))
    folder, found = open_sources(config_of(image_folder)), open_sources(config_of(target))
    for split, count in (("train", TRAIN), ("val", VAL)):
        assert list(found[split].class_names) == list(CLASSES)
        assert found[split].labels.numel() == count * len(CLASSES)
        assert found[split].fingerprint() == folder[split].fingerprint()
        for index in range(count * len(CLASSES)):
            assert torch.equal(found[split].load(index), folder[split].load(index))


def test_shards_of_images_without_labels_are_one_set(image_folder: Path, tmp_path: Path) -> None:
    for number, name in enumerate(CLASSES):
        with tarfile.open(tmp_path / f"part-{number}.tar", "w") as tar:
            for file in sorted((image_folder / "train" / name).iterdir()):
                tar.add(file, file.name)  # the same names in every shard
    (tmp_path / "README.txt").write_text("shards")
    sources = open_sources(config_of(tmp_path))
    assert sources["train"].labels.numel() + sources["val"].labels.numel() == TRAIN * len(CLASSES)
    assert not sources["train"].class_names and "without labels" in sources.found


@pytest.mark.parametrize(
    ("shard", "split"),
    [
        ("train-000.tar", "train"), ("imagenet_train_0001.tar", "train"), ("val/0000.tar", "val"),
        ("imagenet1k-validation-07.tar", "val"), ("pets.test.000.tar", "test"), ("trains-000.tar", ""),
        ("part-1.tar", ""), ("training/1.tar", "train"),
    ],
)  # fmt: skip
def test_the_name_of_a_shard_gives_its_split(shard: str, split: str) -> None:
    assert split_of(shard, "train", "val") == split


def test_split_names_of_the_config_come_first() -> None:
    assert split_of("pets-test-000.tar", "train", "test") == "test"
    assert split_of("coco-train2017-0.tar", "train2017", "val2017") == "train2017"


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, 24, 32).permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_webdataset(root: Path, label: Any, shards: int = 3, each: int = 4, split: str = "train") -> list[bytes]:
    """Shards as the library writes them; the encoded images in order. `label(i)` gives further fields."""
    webdataset = pytest.importorskip("webdataset")
    root.mkdir(exist_ok=True)
    images = []
    for number in range(shards):
        with webdataset.TarWriter(str(root / f"{split}-{number:06d}.tar")) as writer:
            for index in range(number * each, (number + 1) * each):
                images.append(jpeg(index))
                writer.write({"__key__": f"sample{index:06d}", "jpg": images[-1], **label(index)})
    return images


def decoded_by_the_library(root: Path, split: str = "train") -> list[tuple[bytes, Any]]:
    """(image, label) of every sample, in order, as the library reads them."""
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(root.glob(f"{split}-*.tar"))]
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # it leaves its last shard open
        found = [(sample["jpg"], sample.get("cls")) for sample in webdataset.WebDataset(urls, shardshuffle=False)]
        gc.collect()
    return found


def test_webdataset_shards_give_the_images_and_labels_that_the_library_gives(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "wds", lambda i: {"cls": 10 * (i % 3), "txt": "caption"})
    images = write_webdataset(tmp_path / "wds", lambda i: {"cls": 10 * (i % 3)}, shards=1, split="val")
    sources = open_sources(config_of(tmp_path / "wds"))
    for split in ("train", "val"):
        source = sources[split]
        expected = decoded_by_the_library(tmp_path / "wds", split)
        assert [source.read(i) for i in range(source.labels.numel())] == [image for image, _ in expected]  # type: ignore[attr-defined]
        assert source.labels.tolist() == [int(label) // 10 for _, label in expected]
        assert list(source.class_names) == ["0", "10", "20"]
    assert sources["val"].labels.numel() == len(images) == 4
    assert sources["train"].name(5).endswith("wds/train-000001.tar/sample000005.jpg")
    assert sources.found == "12 training and 4 validation images of 3 classes (4 WebDataset shards)"
    assert "12 without an image's ending" not in " ".join(sources.left_out.lines())


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (lambda i: {"json": {"label": f"class {i % 2}", "id": i}}, ["class 0", "class 1"]),
        (lambda i: {"json": {"class_id": i % 2}, "txt": "x"}, ["0", "1"]),
        (lambda i: {"cls": i % 2, "json": {"label": "other"}}, ["0", "1"]),
        (lambda i: {"json": {"caption": "none"}}, []),
        (lambda i: {"json": {"label": "the only one"}}, []),
    ],
)  # fmt: skip
def test_labels_come_from_cls_or_json(tmp_path: Path, label: Any, names: list[str]) -> None:
    write_webdataset(tmp_path / "wds", label)
    sources = open_sources(config_of(tmp_path / "wds"))
    assert list(sources["train"].class_names) == names
    total = sources["train"].labels.numel() + sources["val"].labels.numel()
    assert total == 12  # a share is held out, because no shard is called val


def test_one_shard_is_a_set(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "wds", lambda i: {"cls": i % 2}, shards=1, each=8)
    sources = open_sources(config_of(tmp_path / "wds" / "train-000000.tar"))
    assert sources["train"].labels.numel() + sources["val"].labels.numel() == 8
    assert list(sources["train"].class_names) == ["0", "1"]
    assert sources["train"].name(0).endswith("train-000000.tar/sample000000.jpg")


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_members_that_share_a_key_are_one_sample(tmp_path: Path) -> None:
    seg = b"mask"
    members = [
        ("a/1.jpg", jpeg(1)), ("a/1.seg.png", seg), ("a/1.cls", b"0"), ("b/1.cls", b"1"), ("b/1.JPG", jpeg(2)),
        ("__notes__/x.jpg", b""), ("2.cls", b"1"), ("2.left.jpg", jpeg(3)), ("3.jpg", jpeg(4)), ("3.cls", b"0"),
        ("._3.jpg", b"mac"), ("4.jpg", jpeg(5)), ("5.txt", b"no image"),
    ]  # fmt: skip
    shard(tmp_path / "wds" / "train-0.tar", *members)
    shard(tmp_path / "wds" / "val-0.tar", ("1.jpg", jpeg(6)), ("1.cls", b"1"), ("2.jpg", jpeg(7)), ("2.cls", b"0"))
    sources = open_sources(config_of(tmp_path / "wds"))
    train = sources["train"]
    names = {train.name(i).partition("train-0.tar/")[2]: int(train.labels[i]) for i in range(train.labels.numel())}
    assert names == {"a/1.jpg": 0, "b/1.JPG": 1, "2.left.jpg": 1, "3.jpg": 0}
    assert sources.left_out.lines() == [
        "1 without an image's ending (.txt 1): train-0.tar/5.txt",
        "1 metadata of macOS (._*, __MACOSX): train-0.tar/._3.jpg",
        "1 further images of a WebDataset sample, of which one is used: train-0.tar/a/1.seg.png",
        "1 in WebDataset samples without a label: train-0.tar/4.jpg",
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.jpg", b"x"), ("1.cls", b"0"), ("1.jpg", b"y")], "the sample '1' has two fields called 'jpg'"),
        ([("1.jpg", b"x"), ("1.json", b"{")], r"1\.json is no JSON"),
    ],
)
def test_a_damaged_sample_is_refused_with_its_shard(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    shard(tmp_path / "wds" / "train-0.tar", *members)
    with pytest.raises(ConfigError, match=rf"wds/train-0\.tar cannot be read \({message}"):
        open_sources(config_of(tmp_path / "wds"))


def test_a_cut_shard_is_refused(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "wds", lambda i: {"cls": i % 2})
    last = tmp_path / "wds" / "train-000002.tar"
    last.write_bytes(last.read_bytes()[:-10240])
    with pytest.raises(ConfigError, match=r"train-000002\.tar cannot be read"):
        open_sources(config_of(tmp_path / "wds"))


def test_webdataset_shards_keep_16_bits_and_fit_in_memory(tmp_path: Path) -> None:
    images = [torch.full((8, 8, 1), 1000 + i, dtype=torch.uint16).numpy() for i in range(8)]
    members = []
    for i, one in enumerate(images):
        members += [(f"{i}.png", png16(one)), (f"{i}.cls", b"%d" % (i % 2))]
    shard(tmp_path / "wds" / "train-0.tar", *members)
    shard(tmp_path / "wds" / "val-0.tar", *members[:8])
    config = config_of(tmp_path / "wds", channels=1, dtype="uint16", resident="auto", image_size=8)
    data = open_data(config)
    assert data.resident and [int(data.train.load(i)[0, 0, 0]) for i in range(8)] == list(range(1000, 1008))


def test_labels_none_uses_every_sample(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "wds", lambda i: {"cls": i % 2} if i else {"json": json.dumps({})})
    labelled = open_sources(config_of(tmp_path / "wds"))
    bare = open_sources(config_of(tmp_path / "wds", labels="none"))
    counts = [sum(one[s].labels.numel() for s in ("train", "val")) for one in (labelled, bare)]
    assert counts == [11, 12] and not bare["train"].class_names
    with pytest.raises(ConfigError, match=r"carry the labels; use data\.labels=auto or none"):
        open_sources(config_of(tmp_path / "wds", labels="folders"))


# --- One archive per class ------------------------------------------------------------------------------------------


def archives_per_class(folder: Path, target: Path, names: tuple[str, ...] = CLASSES) -> Path:
    """The images of every class in an archive of its own, without folders, in a folder per split."""
    for split in ("train", "val"):
        (target / split).mkdir(parents=True)
        for name, called in zip(CLASSES, names, strict=True):
            with tarfile.open(target / split / f"{called}.tar", "w") as tar:
                for file in sorted((folder / split / name).iterdir()):
                    tar.add(file, file.name)
    return target


def test_an_archive_per_class_is_the_folder_from_which_it_was_made(image_folder: Path, tmp_path: Path) -> None:
    target = archives_per_class(image_folder, tmp_path / "classes")
    folder, found = open_sources(config_of(image_folder)), open_sources(config_of(target))
    for split, count in (("train", TRAIN), ("val", VAL)):
        assert list(found[split].class_names) == list(CLASSES)
        assert torch.bincount(found[split].labels).tolist() == [count] * 3
        assert found[split].fingerprint() == folder[split].fingerprint()
        assert all(torch.equal(found[split].load(i), folder[split].load(i)) for i in range(3 * count))


def test_imagenets_archives_are_classes_and_numbered_ones_are_parts(image_folder: Path, tmp_path: Path) -> None:
    wnids = ("n01440764", "n01443537", "n01484850")
    for names in ([f"train/{name}.tar" for name in wnids], ["cat.tar", "dog.tar"]):
        assert are_classes(names, "train", "val")
    for names in (["part-0.tar", "part-1.tar"], ["train-0.tar", "val-0.tar"]):
        assert not are_classes(names, "train", "val")
    archives_per_class(image_folder, tmp_path / "imagenet", wnids)
    (tmp_path / "imagenet" / "val").rename(tmp_path / "elsewhere")
    sources = open_sources(config_of(tmp_path / "imagenet" / "train"))
    assert list(sources["train"].class_names) == list(wnids)
    assert sources["train"].labels.numel() + sources["val"].labels.numel() == 3 * TRAIN
    numbered = archives_per_class(image_folder, tmp_path / "numbered", ("0", "1", "2")) / "train"
    assert not open_sources(config_of(numbered))["train"].class_names
    assert list(open_sources(config_of(numbered, labels="folders"))["train"].class_names) == ["0", "1", "2"]
    assert not open_sources(config_of(tmp_path / "imagenet" / "train", labels="none"))["train"].class_names


def test_archives_that_are_called_as_the_splits_of_the_config_are_no_classes(tmp_path: Path) -> None:
    for name in ("north-a", "north-b", "south-a"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for number in range(4):
                content = encoded(picture(number, 20, 20))
                member = tarfile.TarInfo(f"{name}{number}.png")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    sources = open_sources(config_of(tmp_path, train_split="north", val_split="south"))
    assert not sources["train"].class_names
    assert [sources[split].labels.numel() for split in ("train", "val")] == [8, 4]


def test_class_archives_next_to_files_are_refused_with_the_command_that_joins_them(
    image_folder: Path, tmp_path: Path
) -> None:
    """ImageNet as it is distributed: an archive per class for training, and a flat folder of validation images."""
    root = archives_per_class(image_folder, tmp_path / "imagenet", ("n01440764", "n01443537", "n01484850"))
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    for number, file in enumerate(sorted((image_folder / "val").rglob("*.*"))):
        shutil.copy(file, root / "val" / f"{number}{file.suffix}")
    with pytest.raises(ConfigError) as refused:
        open_sources(config_of(root))
    told = str(refused.value)
    assert "the training images are in archives (train/n01440764.tar, train/n01443537.tar" in told
    join = re.search(r"`(tar cf .*?)`", told)
    assert join
    subprocess.run(join[1].split(), cwd=root, check=True)
    shutil.rmtree(root / "val")
    sources = open_sources(config_of(root))
    assert list(sources["train"].class_names) == ["n01440764", "n01443537", "n01484850"]
    assert sources["train"].labels.numel() + sources["val"].labels.numel() == 3 * TRAIN
    assert sources.left_out.lines()[0].startswith("6 in the validation folder without labels: val/0.")


def test_an_archive_of_archives_is_refused_with_the_command_that_unpacks_it(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    archives_per_class(image_folder, tmp_path / "classes")
    with tarfile.open("whole.tar", "w") as tar:
        for name in CLASSES:
            tar.add(f"classes/train/{name}.tar", f"{name}.tar")
    with pytest.raises(ConfigError) as refused:
        open_sources(config_of(Path("whole.tar")))
    unpack = re.search(r"`(mkdir .*?) && (tar xf .*?)`", str(refused.value))
    assert unpack and "holds archives (ant.tar, bee.tar, cow.tar) and no images" in str(refused.value)
    for words in unpack.groups():
        subprocess.run(words.split(), check=True)
    assert list(open_sources(config_of(Path("whole")))["train"].class_names) == list(CLASSES)


def test_a_file_that_can_be_unpacked_is_refused_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "photos.tar.zst").write_bytes(b"compressed")
    with pytest.raises(ConfigError, match=r"it must be a directory, .*; unpack it with `zstd -d .*photos.tar.zst`"):
        open_sources(config_of(tmp_path / "photos.tar.zst"))


@pytest.mark.parametrize(
    ("ending", "tool"),
    [(".tar.gz", "gunzip -k"), (".tgz", "gunzip -k"), (".tar.zst", "zstd -d"), (".tar.xz", "unxz -k")],
)
def test_compressed_shards_are_refused_with_what_to_do(tmp_path: Path, ending: str, tool: str) -> None:
    for number in range(4):
        (tmp_path / f"train-{number}{ending}").write_bytes(b"compressed")
    shown = f"train-0{ending}, train-1{ending}, train-2{ending}, …"
    with pytest.raises(ConfigError) as refused:
        open_sources(config_of(tmp_path))
    assert str(refused.value) == (
        f"data.path {tmp_path} holds 4 compressed archive(s) ({shown}); their images cannot be read one by one. Unpack "
        f"each to a .tar (`{tool} train-0{ending}`), and keep the compressed ones elsewhere"
    )


def test_a_compressed_archive_called_tar_is_refused_in_a_folder_of_shards(image_folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        with tarfile.open(tmp_path / f"part-{number}.tar", "w:gz" if number else "w") as tar:
            tar.add(image_folder / "train", "train")
    with pytest.raises(ConfigError, match=r"part-1.tar is compressed, whatever its name; unpack it"):
        open_sources(config_of(tmp_path))
