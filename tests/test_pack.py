"""Packed sets: what is in them, going on after a kill, and what is refused."""

import contextlib
import gc
import io
import os
import pickle
import shutil
import signal
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from runs import in_process
from torch.nn import functional as F
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.data import open_data, pack, verify
from cnnjepa.data.decoding import decode
from cnnjepa.data.open import open_sources
from cnnjepa.data.shards import Shards
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, DataConfig, FolderData, HDF5Data

SIDE, QUALITY = 48, 95
CLASSES = ("ant", "bee", "cow")
TRAIN, VAL = 6, 2  # images a class


def drawn(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth picture, uint8 [H, W, 3]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0].clamp(0, 1)
    return (fine * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def encoded(seed: int) -> tuple[bytes, str]:
    """Small and large, JPEG and PNG, upright and lying, by turns; with the ending."""
    large, jpeg, upright = seed % 3 != 0, seed % 2 == 0, seed % 5 < 2
    sides = (90 + seed, 120) if large else (SIDE, SIDE + seed)
    buffer = io.BytesIO()
    Image.fromarray(drawn(seed, *(sides[::-1] if upright else sides))).save(buffer, "JPEG" if jpeg else "PNG")
    return buffer.getvalue(), ".JPEG" if jpeg else ".png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, seed = tmp_path_factory.mktemp("source") / "animals", 0
    for split, count in (("train", TRAIN), ("val", VAL)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                content, ending = encoded(seed)
                (root / split / name / f"{i}{ending}").write_bytes(content)
                seed += 1
    return root


def pack_all(config: DataConfig, dest: Path, in_shard: int = 5, skip: bool = False) -> pack.Packing:
    """Packs and reads back, with shards small enough that there are several."""
    pack._LEAST_IN_SHARD = in_shard
    assert isinstance(config, FolderData | HDF5Data)
    dest.mkdir(exist_ok=True)
    packing = pack.prepare(config, dest, SIDE, QUALITY, skip)
    for _ in pack.pack(packing, threads=2):
        pass
    for _ in verify.verify(packing, threads=2):
        pass
    return packing


def config_of(path: Path) -> FolderData:
    return FolderData(path=path, image_size=32, resident="never")


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("packed") / "animals"
    pack_all(config_of(folder), dest)
    return dest


def test_a_packed_set_is_the_source_with_large_images_shrunk(folder: Path, packed: Path) -> None:
    before, after = open_sources(config_of(folder)), open_sources(config_of(packed))
    assert sum(name.endswith(".tar") for name in files(packed)) == 5
    for split in ("train", "val"):
        one, other = before[split], after[split]
        assert other.class_names == one.class_names == list(CLASSES)
        assert torch.equal(one.labels, other.labels)
        for index in range(one.labels.numel()):
            original, found = one.load(index), other.load(index)
            assert other.name(index).startswith(f"{packed}/{one.name(index).removeprefix(f'{folder}/')}")
            if min(original.shape[1:]) <= SIDE:
                assert other.read(index) == one.read(index)  # type: ignore[attr-defined]
                continue
            height, width = found.shape[1:]
            assert min(height, width) == SIDE
            assert max(height, width) == int(SIDE * max(original.shape[1:]) / min(original.shape[1:]))
            # Pillow's resize, an implementation of its own, and Pillow's JPEG of it.
            picture = Image.fromarray(original.permute(1, 2, 0).numpy()).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=QUALITY)
            expected = decode(buffer.getvalue(), "expected").float()
            assert (found.float() - expected).abs().mean() < 0.3


def test_any_tar_program_reads_the_shards_and_the_fingerprint_is_the_extracted_folders(
    packed: Path, tmp_path: Path
) -> None:
    for shard in sorted(packed.glob("*.tar")):
        with tarfile.open(shard) as tar:
            tar.extractall(tmp_path, filter="data")
    extracted, shards = open_data(config_of(tmp_path)), open_data(config_of(packed))
    assert extracted.train.labels.tolist() == shards.train.labels.tolist()
    assert extracted.fingerprint == shards.fingerprint


def pack_and_die(source: Path, dest: Path, at_event: int) -> None:
    """Is killed (SIGKILL) before the `at_event`-th sync, rename or image encoded."""
    torch.set_num_threads(1)
    from cnnjepa.storage import atomic_files as writing

    seen = 0

    def counted(original):  # type: ignore[no-untyped-def]
        def watched(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += 1
            if seen == at_event:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return watched

    writing.os.fsync, writing.os.replace = counted(os.fsync), counted(os.replace)
    pack.encode_jpeg = counted(pack.encode_jpeg)
    pack_all(config_of(source), dest)


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.parametrize("at_event", [1, 2, 3, 6, 8, 9, 10, 25, 45, 51])
def test_packing_killed_anywhere_goes_on_to_the_same_files(
    folder: Path, packed: Path, tmp_path: Path, at_event: int
) -> None:
    dest = tmp_path / "packed"
    assert in_process(pack_and_die, folder, dest, at_event) == -signal.SIGKILL
    if (dest / "pack.json").exists():
        with pytest.raises(ConfigError, match="not packed to its end; run `cnnjepa data pack"):
            open_data(config_of(dest))
    pack_all(config_of(folder), dest)
    assert files(dest) == files(packed)


def test_hdf5_is_packed_in_the_order_of_its_labels(tmp_path: Path) -> None:
    labels = [i % 11 for i in range(22)]  # so that "10" sorts before "2"
    for split in ("train", "val"):
        with h5py.File(tmp_path / f"{split}.h5", "w") as file:
            for i, label in enumerate(labels):
                file[f"images/{i}"], file[f"labels/{i}"] = np.frombuffer(encoded(i)[0], np.uint8), label
    source = HDF5Data(path=tmp_path, resident="never")
    pack_all(source, tmp_path / "packed")
    data = open_data(config_of(tmp_path / "packed"))
    assert data.train.labels.tolist() == sorted(labels) and data.classes == 11
    originals = open_sources(source)["train"]
    for place, index in ((0, 0), (1, 11), (2, 1), (3, 12)):  # of label 0, 0, 1, 1
        original, found = originals.load(index), data.train.load(place)
        assert torch.equal(found, original) == (index % 3 == 0)
        assert min(found.shape[1:]) == SIDE
        assert (found.float().mean((1, 2)) - original.float().mean((1, 2))).abs().max() < 1  # the same picture


def test_labels_with_a_gap_are_refused_because_packing_would_number_them_anew(tmp_path: Path) -> None:
    for split in ("train", "val"):
        with h5py.File(tmp_path / f"{split}.h5", "w") as file:
            for i, label in enumerate((0, 1, 3)):
                file[f"images/{i}"], file[f"labels/{i}"] = np.frombuffer(encoded(i)[0], np.uint8), label
    with pytest.raises(ConfigError, match="no training image has label 2; packing would number"):
        pack.prepare(HDF5Data(path=tmp_path), tmp_path / "packed", SIDE, QUALITY)


def test_a_set_that_every_run_would_refuse_is_not_packed(tmp_path: Path) -> None:
    for split, labels in (("train", (0, 1)), ("val", (0, 2))):
        with h5py.File(tmp_path / f"{split}.h5", "w") as file:
            for i, label in enumerate(labels):
                file[f"images/{i}"], file[f"labels/{i}"] = np.frombuffer(encoded(i)[0], np.uint8), label
    said = "val.h5:labels/1 is 2, and a label must be at most 1, because train.h5 has no label above that"
    with pytest.raises(ConfigError, match=said):
        pack.prepare(HDF5Data(path=tmp_path), tmp_path / "packed", SIDE, QUALITY)
    with pytest.raises(ConfigError, match=said):
        open_data(HDF5Data(path=tmp_path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
@pytest.mark.parametrize("size", [100, 2**20])  # refused when the shard is completed, when it is written
def test_a_full_disk_is_told_once_and_leaves_no_part_of_a_shard(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnjepa.storage.atomic_files.secrets.token_hex", lambda size: "0")
    path = tmp_path / "shard-00000.tar"
    (tmp_path / "shard-00000.tar.0.tmp").symlink_to("/dev/full")
    with (
        pytest.raises(RunError, match=rf"cannot write {path} \(No space left.*make room\) and run the same command"),
        pack._shard(path) as shard,
    ):
        shard.add(pack._Packed("train/ant/0.jpg", bytes(size), copied=True))
    assert not list(tmp_path.iterdir())


def open_shards(folder: Path) -> int:
    """This process's open files below `folder`; others come and go with the threads of whatever runs the tests."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found += Path(os.readlink(f"/proc/self/fd/{number}")).is_relative_to(folder.resolve())
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_readers_of_many_processes_share_a_sets_open_files(packed: Path) -> None:
    gc.collect()
    before = open_shards(packed)
    shards = Shards(packed)
    first = shards.scan().entries[0]
    content = shards.read(first)
    opened = open_shards(packed)
    assert opened == before + 1
    child = os.fork()
    if not child:
        code = 1
        try:
            code = int(shards.read(first) != content or open_shards(packed) != opened)
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert pickle.loads(pickle.dumps(shards)).read(first) == content  # opens its own
    assert open_shards(packed) == opened  # the copy has gone, and its file with it
    del shards
    assert open_shards(packed) == before


def test_an_unreadable_image_is_named_or_left_out(folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(folder, tmp_path / "set")
    cut = root / "train" / "bee" / "2.JPEG"
    cut.write_bytes(cut.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=rf"{cut} cannot be decoded .*--skip-unreadable leaves such images out"):
        pack_all(config_of(root), tmp_path / "packed")
    assert not list((tmp_path / "packed").glob("*.tmp"))
    found = verify.facts(pack_all(config_of(root), tmp_path / "packed", skip=True))
    assert (found.train, found.val) == (3 * TRAIN - 1, 3 * VAL)
    assert [name.split(" ")[0] for name in found.skipped] == [str(cut)]
    assert open_data(config_of(tmp_path / "packed")).train.labels.tolist() == [0] * 6 + [1] * 5 + [2] * 6


def test_what_a_folder_holds_is_not_mixed_with_anything_else(folder: Path, packed: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "set")
    (other / "val" / "ant" / "1.JPEG").unlink(missing_ok=True)
    (other / "val" / "ant" / "1.png").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"holds another set \(18 \+ 6 images\) than .* \(18 \+ 5"):
        pack.prepare(config_of(other), packed, SIDE, QUALITY)
    with pytest.raises(ConfigError, match="is packed with --quality 95, not 90"):
        pack.prepare(config_of(folder), packed, SIDE, 90)
    with pytest.raises(ConfigError, match="was not made by `cnnjepa data pack`"):
        pack.prepare(config_of(folder), folder, SIDE, QUALITY)
    (other / "pack.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"pack\.json is not what `cnnjepa data pack` writes"):
        pack.prepare(config_of(folder), other, SIDE, QUALITY)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "another's"])
def test_damage_is_found_and_mended(folder: Path, packed: Path, tmp_path: Path, damage: str) -> None:
    dest = shutil.copytree(packed, tmp_path / "packed")
    packing = pack.prepare(config_of(folder), dest, SIDE, QUALITY)
    shard = dest / "shard-00001.tar"
    whole = bytearray(shard.read_bytes())
    if damage == "flipped":
        whole[700] ^= 1
        shard.write_bytes(whole)
    elif damage == "cut":
        shard.write_bytes(whole[:-1])
    elif damage == "gone":
        shard.unlink()
    else:
        for ending in (".tar", ".json"):
            shutil.copyfile(dest / f"shard-00002{ending}", shard.with_suffix(ending))
    with pytest.raises((RunError, ConfigError), match=r"shard-00001\.tar"):
        for _ in verify.verify(packing, threads=1):
            pass
    pack_all(config_of(folder), dest)
    assert files(dest) == files(packed)


def test_the_command_packs_goes_on_and_reads_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_LEAST_IN_SHARD", 5)
    words = ["data", "pack", str(folder), str(tmp_path / "packed"), "--shorter-side", str(SIDE)]
    early = CliRunner().invoke(app, [*words, "--verify"])
    assert isinstance(early.exception, ConfigError) and "without --verify" in str(early.exception)
    absent = CliRunner().invoke(app, ["data", "pack", str(tmp_path / "none"), str(tmp_path / "packed")])
    assert isinstance(absent.exception, ConfigError) and f"SOURCE {tmp_path / 'none'} does" in str(absent.exception)
    for more in ([], [], ["--verify"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.exception
        assert "18 + 6 images in 5 shards" in done.output and "8 of them copied unchanged" in done.output
    assert open_data(config_of(tmp_path / "packed")).train.labels.numel() == 18
