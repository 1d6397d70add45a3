"""Damaged JPEG files that libjpeg repairs are read, and each is named once."""

import ctypes
import os
import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from image_sets import batches, config_of, encoded, order_of, picture, write_set
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.cli.summary import print_summary
from cnnjepa.data import open_data
from cnnjepa.data.decoding import decode
from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.schemas import load_config
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.watcher import Watcher

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")

WHOLE = encoded(picture(1, 60, 60), "JPEG")
# Cut in the middle, with an end mark: libjpeg fills the rest with grey.
CUT = WHOLE[: len(WHOLE) * 2 // 3] + b"\xff\xd9"
REASON = "is damaged and was repaired while reading (Corrupt JPEG data: premature end of data segment)"


@pytest.fixture
def damaged_folder(tmp_path: Path) -> Path:
    """Square images, of which one training image is cut."""
    root = write_set(tmp_path / "damaged", square=40)
    cut = root / "train" / "bee" / "2.JPEG"
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3] + b"\xff\xd9")
    return root


def named_by(content: bytes, name: str) -> list[str]:
    with repaired_images() as found:
        decode(content, name)
    return found


def test_a_repaired_image_is_named_with_libjpegs_reason(capfd: pytest.CaptureFixture[str]) -> None:
    assert named_by(WHOLE, "whole.jpg") == []
    assert named_by(CUT, "cut.jpg") == [f"cut.jpg {REASON}"]
    assert capfd.readouterr() == ("", "")  # not a second time, without a name
    decode(CUT, "alone.jpg")  # nobody collects repairs
    assert capfd.readouterr() == ("", f"alone.jpg {REASON}\n")


def test_repairs_are_named_rightly_when_threads_decode_at_the_same_time() -> None:
    def look(number: int) -> list[str]:
        return named_by(WHOLE if number % 5 else CUT, str(number))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(look, range(200)))
    assert found == [[] if number % 5 else [f"{number} {REASON}"] for number in range(200)]


def test_what_other_libraries_print_meanwhile_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    libc = ctypes.CDLL(None)
    libc.perror(b"another library")  # prints to stderr as it is
    before = capfd.readouterr().err

    def decoding(content: bytes, kind: object) -> torch.Tensor:
        libc.perror(b"another library")
        return torch.zeros(3, 1, 1)

    monkeypatch.setattr("cnnjepa.data.decoding._jpeg", decoding)
    assert named_by(WHOLE, "whole.jpg") == []
    assert capfd.readouterr().err == before != ""


def test_a_forked_process_names_its_own_images() -> None:
    named_by(CUT, "parent")
    child = os.fork()
    if not child:
        os._exit(0 if named_by(CUT, "child") == [f"child {REASON}"] and not named_by(WHOLE, "child") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert named_by(CUT, "parent") == [f"parent {REASON}"]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_name_the_repaired_images_that_they_contain(damaged_folder: Path, workers: int) -> None:
    config = config_of(damaged_folder)
    data = open_data(config)
    order = order_of(data, batch_size=5)
    found = batches(data, config, order, 0, order.steps_per_epoch, workers)
    assert [name for batch in found for name in batch.repaired] == [f"{damaged_folder}/train/bee/2.JPEG {REASON}"]


def test_a_resident_set_names_them_when_it_is_decoded(damaged_folder: Path) -> None:
    data = open_data(config_of(damaged_folder, resident="always"))
    assert data.repaired == [f"{damaged_folder}/train/bee/2.JPEG {REASON}"]


def test_data_check_names_and_counts_them(damaged_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(damaged_folder / "train" / "bee" / "2.JPEG", damaged_folder / "train" / "ant" / "0.JPEG")  # the first
    found = CliRunner().invoke(app, ["data", "check", str(damaged_folder)])
    output = " ".join(found.output.split())
    assert found.exit_code == 0
    assert output.count(f"{damaged_folder}/train/bee/2.JPEG {REASON}") == 1
    assert "2 damaged images can be read only in part; replace or remove such files" in output
    assert capfd.readouterr().err == ""


def test_data_pack_names_them(damaged_folder: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["data", "pack", str(damaged_folder), str(tmp_path / "P"), "--shorter-side", "16"])
    output = " ".join(found.output.split())
    assert found.exit_code == 0 and output.count(f"{damaged_folder}/train/bee/2.JPEG {REASON}") == 1


class _Told(Watcher):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, text: str) -> None:
        self.warnings.append(text)


def test_a_run_names_a_repaired_image_once_and_counts_it_in_the_summary(
    damaged_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        "image_size=32", "batch_size=8", "runtime.epochs=3", "warmup_epochs=0", "linear_epochs=1", "workers=0",
        "held_out_lrs=[0.01]", "held_out_ks=[3]", "device=cpu", "floors=false", "resident=never",
    ]  # fmt: skip
    told = _Told()
    result = pretrain(load_config("smoke", data=damaged_folder, overrides=settings), tmp_path / "run", watcher=told)
    named = f"{damaged_folder}/train/bee/2.JPEG {REASON}"
    assert [text for text in told.warnings if "repaired" in text] == [named]
    assert result.repaired_images == (named,)
    print_summary(result, tmp_path / "run")
    assert "1 damaged image repaired while reading (named in result.json)" in capsys.readouterr().out
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["repaired"] == [named]
