"""A file of features holds what the encoder computes, whoever computes it and however often it is killed."""

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from image_sets import encoded, picture
from runs import in_process, small_config, train_alone
from typer.testing import CliRunner

from cnnjepa import signals
from cnnjepa.cli.app import app
from cnnjepa.data.batches import Normalizer
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.embedding.embed import embed
from cnnjepa.embedding.feature_file import open_features
from cnnjepa.embedding.request import EmbedRequest
from cnnjepa.errors import ImageError, RunError, Stopped
from cnnjepa.pretrained import load_encoder
from cnnjepa.references.preprocessing import PreprocessingOverrides
from cnnjepa.schemas import ConfigError, load_config, read_config

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with ten training and three validation images each, not square."""
    root = tmp_path_factory.mktemp("embed") / "photos"
    for split, count in (("train", 10), ("val", 3)):
        for other, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                content = encoded(picture(100 * other + 20 * len(split) + i, 40, 48))
                (root / split / name / f"{i}.png").write_bytes(content)
    return root


def asked(out: Path, photos: Path, **changes: Any) -> EmbedRequest:
    request = EmbedRequest("random:smoke", out, photos, batch_size=4, part_images=8, device="cpu")
    return replace(request, **changes)


def test_the_vectors_are_the_run_s_encoder_on_normalised_crops(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = ("epochs=1", "every_epochs=0", "warmup_epochs=0", "train_images=32", "data.range=[10,250]", "probe.resize=36")
    train_alone(small_config(*few), run)
    embed(EmbedRequest(str(run), tmp_path / "f.parquet", photos, batch_size=5, device="cpu"))
    found = open_features(tmp_path / "f.parquet")
    assert found.names[:2] == ["train/cat/0.png", "train/cat/1.png"] and found.names[-1] == "val/dog/2.png"
    assert found.labels == ["cat"] * 10 + ["dog"] * 10 + ["cat"] * 3 + ["dog"] * 3
    config = read_config(run / "config.yaml")
    images = open_sources(load_config("smoke", data=photos).data)
    normalize, encoder = Normalizer(config.data, torch.device("cpu")), load_encoder(run)
    with torch.no_grad():
        by_hand = torch.cat(
            [
                encoder(normalize(batch.pixels)).mean((2, 3))
                for source in images.values()
                for batch in evaluation_batches(source, config.data, 36, 7)
            ]
        )
    assert torch.allclose(found.vectors, by_hand, atol=1e-6) and by_hand.std() > 0.01


def test_every_format_has_the_same_features(photos: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "a.npy", "a.h5", "b.hdf5"):
        embed(asked(tmp_path / name, photos))
    files = [open_features(tmp_path / name) for name in ("a.parquet", "a.npy", "a.h5", "b.hdf5")]
    for file in files[1:]:
        assert torch.equal(file.vectors, files[0].vectors)
        assert (file.names, file.labels, file.index) == (files[0].names, files[0].labels, files[0].index)
        assert file.facts == files[0].facts
    assert files[0].facts["encoder"]["label"] == "random:smoke"
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as table:
        assert next(iter(csv.DictReader(table))) == {
            "index": "0", "name": "train/cat/0.png", "split": "train", "label": "cat",
        }  # fmt: skip
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.names == ["index", "name", "split", "label", "features"]
    assert np.array_equal(np.stack(table["features"].to_numpy()), files[0].vectors.numpy())
    assert not list(tmp_path.glob("*.parts"))


def test_dense_maps_average_to_the_vectors(photos: Path, tmp_path: Path) -> None:
    embed(asked(tmp_path / "v.npy", photos))
    embed(asked(tmp_path / "m.h5", photos, dense=True))
    embed(asked(tmp_path / "m.npy", photos, dense=True, dtype="float16"))
    with h5py.File(tmp_path / "m.h5") as file:
        maps = file["features"][:]
    halves = np.load(tmp_path / "m.npy")
    assert maps.shape == (26, 32, 8, 8) and maps.dtype == np.float32 and halves.dtype == np.float16
    assert np.array_equal(maps.astype(np.float16), halves)
    assert np.allclose(maps.mean((2, 3)), np.load(tmp_path / "v.npy"), atol=1e-6)
    assert torch.allclose(
        open_features(tmp_path / "m.h5").vectors, open_features(tmp_path / "v.npy").vectors, atol=1e-6
    )


def test_a_run_s_own_images_are_the_default(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_alone(small_config("epochs=1", "every_epochs=0", "warmup_epochs=0", "train_images=32"), run)
    found = embed(EmbedRequest(str(run), tmp_path / "f.npy", split="val", device="cpu"))
    assert (found.rows, open_features(found.path).names[0]) == (48, "synthetic val image 0")


def _killed_after(request: EmbedRequest, images: int) -> None:
    def tick(done: int, total: int) -> None:
        if done >= images:
            os.kill(os.getpid(), signal.SIGKILL)

    embed(request, tick)


def test_parts_that_a_kill_left_behind_a_finished_file_are_deleted(photos: Path, tmp_path: Path) -> None:
    request = asked(tmp_path / "f.npy", photos)
    embed(request)
    left = tmp_path / "f.npy.parts"
    left.mkdir()
    (left / "00000000.npz").write_bytes(b"a part")
    found = embed(request)
    assert found.existed and found.rows == 26 and not left.exists()


@pytest.mark.parametrize("name", ["f.parquet", "f.npy", "f.h5"])
def test_a_file_is_read_some_rows_at_a_time(
    name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnjepa.embedding.feature_file._ROWS", 7)
    embed(asked(tmp_path / name, photos))
    file = open_features(tmp_path / name)
    sizes = [len(block) for block in file._blocks()]
    assert sum(sizes) == 26 and max(sizes) <= 8
    assert torch.equal(file.vectors, torch.from_numpy(np.concatenate(list(file._blocks()))))


@pytest.mark.kills
@pytest.mark.parametrize("name", ["f.parquet", "f.npy", "f.h5"])
def test_a_killed_embedding_continues_and_has_the_same_bytes(name: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    embed(asked(tmp_path / "whole" / name, photos))
    request = asked(tmp_path / name, photos)
    assert in_process(_killed_after, request, 12) == -signal.SIGKILL
    assert not request.out.exists()
    (tmp_path / f"{name}.parts" / f"joined{request.out.suffix}").write_bytes(b"killed while joining")
    ticks: list[tuple[int, int]] = []
    found = embed(request, lambda done, total: ticks.append((done, total)))
    assert ticks[0] == (8, 26) and ticks[-1] == (26, 26)
    assert found.rows == 26 and found.complete
    assert request.out.read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / f"{name}.parts").exists()


def test_parts_are_written_while_images_are_still_read(photos: Path, tmp_path: Path) -> None:
    request = asked(tmp_path / "f.npy", photos)
    seen: list[tuple[int, int]] = []
    embed(request, lambda done, total: seen.append((done, len(list((tmp_path / "f.npy.parts").glob("*.npz"))))))
    assert seen == [(0, 0), (4, 0), (8, 0), (12, 1), (16, 1), (20, 2), (24, 2), (26, 3)]


def test_processes_of_torchrun_share_the_work_and_the_last_one_joins(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(asked(tmp_path / "whole.parquet", photos))
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    request, images = asked(tmp_path / "f.parquet", photos), []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        found = embed(request, lambda done, total: images.append(total))
        assert found.complete == (rank == "0")
    assert {*images} == {10, 16}
    assert request.out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.processes
def test_several_processes_write_the_same_bytes_and_pass_on_errors(photos: Path, tmp_path: Path) -> None:
    embed(asked(tmp_path / "whole.parquet", photos))
    ticks: list[tuple[int, int]] = []
    found = embed(asked(tmp_path / "f.parquet", photos, processes=2), lambda *tick: ticks.append(tick))
    assert found.rows == 26 and max(ticks) == (26, 26)
    assert found.path.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    damaged = _damaged(tmp_path)
    with pytest.raises(ImageError, match=r"process \d: .*3.png"):
        embed(asked(tmp_path / "d.parquet", damaged, processes=2, part_images=4))


def _damaged(folder: Path) -> Path:
    """Eight images without labels, of which the fourth cannot be read."""
    (folder / "damaged").mkdir()
    for i in range(8):
        content = encoded(picture(i, 40, 40))
        (folder / "damaged" / f"{i}.png").write_bytes(content[: 90 if i == 3 else None])
    return folder / "damaged"


def test_an_unreadable_image_is_named_or_left_out(tmp_path: Path) -> None:
    damaged = _damaged(tmp_path)
    with pytest.raises(ImageError, match=r"3.png"):
        embed(asked(tmp_path / "f.parquet", damaged))
    (tmp_path / "f.parquet.parts" / "settings.json").unlink()
    found = embed(asked(tmp_path / "f.parquet", damaged, sets=("on_error=skip",)))
    assert (found.rows, found.skipped) == (7, 1)
    features = open_features(found.path)
    assert "3.png" not in features.names and features.labels is None and sorted(features.names)[3] == "4.png"
    again = embed(asked(tmp_path / "f.parquet", damaged, sets=("on_error=skip",)))
    assert again == found._replace(existed=True)


def test_other_files_are_never_replaced(photos: Path, tmp_path: Path) -> None:
    request = asked(tmp_path / "f.npy", photos)
    embed(request)
    with pytest.raises(
        ConfigError, match=r"f.npy exists with other content \(dtype\); delete it, or give another name"
    ):
        embed(replace(request, dtype="float16"))
    (tmp_path / "notes.parquet").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"notes.parquet exists with other content; delete it"):
        embed(replace(request, out=tmp_path / "notes.parquet"))
    (tmp_path / "g.csv").touch()
    with pytest.raises(ConfigError, match=r"g.csv exists and would be replaced"):
        embed(replace(request, out=tmp_path / "g.npy"))
    (tmp_path / "h.npy.parts").mkdir()
    settings = {**open_features(request.out).facts, "batch_size": 9}
    (tmp_path / "h.npy.parts" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds unfinished features of other settings \(batch_size\); delete it"):
        embed(replace(request, out=tmp_path / "h.npy"))


def test_features_that_the_type_cannot_hold_are_refused(photos: Path, tmp_path: Path) -> None:
    large = PreprocessingOverrides(std=(1e-7,) * 3)
    with pytest.raises(RunError, match=r"features of train/cat/0.png are not finite in float16; try --dtype float32"):
        embed(asked(tmp_path / "f.npy", photos, overrides=large, dtype="float16"))


def test_a_stop_signal_keeps_the_finished_parts(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, seen = asked(tmp_path / "f.npy", photos), []
    monkeypatch.setattr(signals, "received", lambda: "SIGTERM" if seen[-1] >= 12 else None)
    with pytest.raises(Stopped, match="SIGTERM"):
        embed(request, lambda done, total: seen.append(done))
    monkeypatch.setattr(signals, "received", lambda: None)
    embed(request, lambda done, total: seen.append(done))
    assert seen[4] == 8


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["random:smoke", "--data", "photos", "--out", "f.txt"], "the ending must be one of .parquet, .npy, .h5"),
        (["random:smoke", "--data", "photos", "--out", "f.parquet", "--dense"], "a table cannot hold maps"),
        (["random:smoke", "--data", "photos", "--out", "no/f.npy"], "the folder no does not exist"),
        (["random:smoke", "--out", "f.npy"], "give --data PATH: encoder random:smoke is not a run"),
        (["random:smoke", "--data", "nowhere", "--out", "f.npy"], "--data nowhere does not exist"),
        (["random:smok", "--data", "photos", "--out", "f.npy"], "nearest is 'smoke'"),
        (["random:smoke", "--data", "photos", "--out", "f.npy", "--set", "data.mean=[0,0,0]"], "does not apply here"),
        (["random:smoke", "--data", "photos", "--out", "f.npy", "--image-size", "big"], "--image-size big: give"),
        (["random:smoke", "--data", "photos", "--out", "f.npy", "--encoder", "target"], "is not a run"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused(
    words: list[str], reason: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    found = CliRunner().invoke(app, ["embed", *words])
    assert isinstance(found.exception, ConfigError) and reason in str(found.exception)
    assert not list(photos.parent.glob("f.*"))


def test_the_command_tells_the_file_and_the_next_step(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["embed", "random:smoke", "--data", str(photos), "--out", "f.parquet", "--split", "val", "--device", "cpu"]
    for end in ("6 images\n", "6 images; it was complete already\n"):
        found = CliRunner().invoke(app, words)
        assert found.exit_code == 0, found.output
        assert f"f.parquet: {end}Search it with:  cnnjepa neighbours f.parquet IMAGE" in found.stdout
