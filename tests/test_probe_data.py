"""Pretraining on one set and probing on others."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import encoded, picture, write_set
from test_unlabelled_runs import config_for, photos
from typer.testing import CliRunner

from cnnjepa.ablations.data_facts import Resolver
from cnnjepa.cli.app import app
from cnnjepa.cli.options import probe_data_sets, probed_on
from cnnjepa.cli.summary import print_summary
from cnnjepa.data.source import groups_of
from cnnjepa.schemas import ConfigError, PretrainConfig, Probes, TrialResult, load_config
from cnnjepa.schemas.hashing import probe_hash
from cnnjepa.schemas.load import read_config
from cnnjepa.schemas.probe_set import ProbeSet
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.probed_images import open_probe_sets


def weights(run: Path) -> dict[str, torch.Tensor]:
    method: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["method"]
    return method


def assert_same_encoder_and_figures(labelled: PretrainConfig, bare: PretrainConfig, at: Path) -> None:
    """The runs see the same images in the same order; one of them does not know their labels while it trains."""
    one, other = pretrain(labelled, at / "labelled"), pretrain(bare, at / "bare")
    trained, blind = weights(at / "labelled"), weights(at / "bare")
    assert trained.keys() == blind.keys() and all(torch.equal(trained[name], blind[name]) for name in trained)
    assert one.pretrain_hash != other.pretrain_hash  # other images, as far as a fingerprint can tell
    assert isinstance(one.probes, Probes) and one.probes.held_out and one.probes.published
    assert other.probes == one.probes and other.selection == one.selection and other.floors == one.floors
    assert other.diagnostics == one.diagnostics


@pytest.mark.medium
def test_labels_are_not_needed_to_train_and_probing_on_them_gives_the_same_figures(tmp_path: Path) -> None:
    root = photos(tmp_path / "labelled_set", *(f"{s}/{c}" for s in ("train", "val") for c in "ab"))
    for split in ("train", "val"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for number, file in enumerate(sorted((root / split).rglob("*.png"))):
            (tmp_path / "flat" / split / f"{number:05d}.png").write_bytes(file.read_bytes())
    assert_same_encoder_and_figures(
        config_for(root), config_for(tmp_path / "flat", f'probe.data=["{root}"]'), tmp_path / "runs"
    )


def flattened(archive: Path, root: Path, counts: dict[str, int], classes: int) -> tuple[Path, Path]:
    """A part of an archive as (a smaller archive with classes, the same images in one folder per split)."""
    taken: dict[tuple[str, str], int] = {}
    known: list[str] = []
    small = root / "photographs.tar"
    with tarfile.open(archive) as whole, tarfile.open(small, "w") as part:
        for member in whole:
            split, name = [*member.name.split("/"), "", ""][:2]
            if not member.isfile() or split not in counts:
                continue
            if name not in known and len(known) < classes:
                known.append(name)
            if name in known and taken.setdefault((split, name), 0) < counts[split]:
                taken[split, name] += 1
                content = whole.extractfile(member)
                assert content is not None
                part.addfile(member, content)
    with tarfile.open(small) as part:
        for split in counts:
            (root / "flat" / split).mkdir(parents=True)
            members = sorted((m for m in part if m.name.split("/")[-3] == split), key=lambda m: m.name)
            for number, member in enumerate(members):
                content = part.extractfile(member)
                assert content is not None
                (root / "flat" / split / f"{number:05d}.jpg").write_bytes(content.read())
    return small, root / "flat"


@pytest.mark.medium
def test_photographs_without_their_labels_give_the_same_encoder(photographs: Path, tmp_path: Path) -> None:
    labelled, flat = flattened(photographs, tmp_path, {"train": 12, "val": 4}, classes=4)
    settings = ["image_size=64", "runtime.epochs=1", "probe.every_epochs=0"]
    assert_same_encoder_and_figures(
        config_for(labelled, *settings), config_for(flat, *settings, f'probe.data=["{labelled}"]'), tmp_path / "runs"
    )


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unlabelled set, and two labelled ones of other sizes."""
    root = tmp_path_factory.mktemp("sets")
    photos(root / "flat", "x")
    write_set(root / "animals", train=8)
    photos(root / "shapes", *(f"{s}/{c}" for s in ("train", "val") for c in "ab"), count=11)
    return root


def test_several_sets_are_keyed_by_name_and_enter_the_probe_hash_only(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = f'probe.data=["{sets / "animals"}", "{sets / "shapes"}"]'
    bare = pretrain(config_for(sets / "flat", "probe.every_epochs=0"), tmp_path / "run")
    found = pretrain(config_for(sets / "flat", "probe.every_epochs=0", both), tmp_path / "run", resume=True)
    assert found.pretrain_hash == bare.pretrain_hash and found.probe_hash != bare.probe_hash
    raw: dict[str, Any] = json.loads((tmp_path / "run" / "results" / f"{found.probe_hash}.json").read_text())
    names = ["folder-animals", "folder-shapes"]
    assert list(raw["probes"]) == list(raw["selection"]) == list(raw["floors"]) == list(raw["probe_sets"]) == names
    assert raw["probe_sets"]["folder-animals"] | {"fingerprint": ""} == {
        "fingerprint": "", "classes": 3, "train_images": 24, "val_images": 6, "protocols": ["published", "held_out"],
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(raw["probe"]) and str(sets) not in json.dumps(raw)
    assert [one.name for one in found.by_set] == names and found.first_set.val_images == 6
    assert TrialResult.model_validate(raw) == found
    print_summary(found, tmp_path / "run")
    shown = capsys.readouterr().out
    assert all(f"{name}, " in shown for name in names) and "floor: untrained encoder" in shown
    again = Resolver("cpu", 1)(config_for(sets / "flat", "probe.every_epochs=0", both))[1]
    assert (again.pretrain_hash, again.probe_hash) == (found.pretrain_hash, found.probe_hash)


def test_the_probe_hash_follows_the_images_and_not_their_place(sets: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(sets / "animals")

    def name(path: Path) -> str:
        return Resolver("cpu", 1)(config_for(sets / "flat", f'probe.data=["{path}"]'))[1].probe_hash

    assert name(sets / "animals") == name(moved) != name(sets / "shapes")
    assert probe_hash(load_config("demo", overrides=["every_epochs=0"])).startswith("030e981c19e5")


def test_sets_that_cannot_be_probed_are_refused_before_training(sets: Path, tmp_path: Path) -> None:
    def message(*paths: Path) -> str:
        listed = json.dumps([str(path) for path in paths])
        with pytest.raises(ConfigError) as caught:
            pretrain(config_for(sets / "flat", f"probe.data={listed}"), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    assert "flat (probe.data) has no labels, which probes need" in message(sets / "flat")
    assert "the same images are given twice" in message(sets / "animals", sets / "animals")
    assert "none (probe.data): data.path" in message(sets / "none")


def test_the_option_is_that_of_train_ablate_and_search(sets: Path, tmp_path: Path) -> None:
    missing = ["--probe-data", str(tmp_path / "none")]
    commands = (
        ["train", "--preset", "smoke"], ["ablate", "predictor", "--depths", "1"],
        ["search", "--space", "optimizer.lr=log(1e-4, 1)"],
    )  # fmt: skip
    for words in commands:
        found = CliRunner().invoke(app, [*words, *missing])
        assert isinstance(found.exception, ConfigError) and f"{missing[1]} does not exist" in str(found.exception), (
            words
        )
    run = tmp_path / "run"
    asked = ["train", "--preset", "smoke", "--data", str(sets / "flat"), "--out", str(run)]
    for setting in ("image_size=32", "batch_size=8", "runtime.epochs=1", "warmup_epochs=0", "floors=false"):
        asked += ["--set", setting]
    done = CliRunner().invoke(
        app, [*asked, "--probe-data", str(sets / "animals"), "--probe-data", str(sets / "shapes")]
    )
    assert done.exit_code == 0, done.output
    assert list(json.loads((run / "result.json").read_text())["probes"]) == ["folder-animals", "folder-shapes"]


@pytest.fixture(scope="module")
def table(sets: Path) -> Path:
    """Labels of the unlabelled set, which are not those of its folders, and patients."""
    rows = [f"{i:02d}.png,{'even' if i % 2 == 0 else 'odd'},p{i // 2}" for i in range(20)]
    file = sets / "parity.csv"
    file.write_text("\n".join(["path,label,patient", *rows]))
    return file


def test_a_set_is_labelled_by_a_table_and_grouped(sets: Path, table: Path, tmp_path: Path) -> None:
    entry = {"path": str(sets / "flat"), "labels": str(table), "groups": "patient"}
    config = config_for(sets / "shapes", f"probe.data=[{json.dumps(entry)}]")
    ((name, data),) = open_probe_sets(config).items()
    train = data.train
    assert (name, list(train.class_names)) == ("folder-flat", ["even", "odd"])
    for index in range(train.labels.numel()):
        assert train.labels[index] == int(Path(train.name(index)).stem) % 2
    groups = groups_of(train)
    assert groups is not None and groups.unique().numel() == train.labels.numel() // 2  # two images per patient

    def name_of(**changed: str | None) -> str:
        other = {key: value for key, value in {**entry, **changed}.items() if value is not None}
        return Resolver("cpu", 1)(config_for(sets / "shapes", f"probe.data=[{json.dumps(other)}]"))[1].probe_hash

    (tmp_path / "copy.csv").write_text(table.read_text())
    assert name_of() == name_of(labels=str(tmp_path / "copy.csv")) != name_of(groups=None)


def test_the_option_takes_the_table_of_a_set(sets: Path, table: Path, tmp_path: Path) -> None:
    given = f"{sets / 'flat'}:labels={table}"
    assert probed_on([given]) == {"probe.data": [{"path": str(sets / "flat"), "labels": str(table)}]}
    assert probed_on([f"{sets / 'animals'}:groups=-1:labels=folders"]) == {
        "probe.data": [{"path": str(sets / "animals"), "groups": -1, "labels": "folders"}]
    }
    odd = tmp_path / "a:labels=b"
    odd.mkdir()
    assert probed_on([str(odd)]) == {"probe.data": [str(odd)]}  # a path of that name is meant
    assert probe_data_sets([given]) == [f'probe.data=[{{"path": "{sets / "flat"}", "labels": "{table}"}}]']
    asked = ["train", "--preset", "smoke", "--data", str(sets / "shapes"), "--out", str(tmp_path / "run")]
    for setting in ("image_size=32", "batch_size=8", "runtime.epochs=1", "warmup_epochs=0", "floors=false"):
        asked += ["--set", setting]
    done = CliRunner().invoke(app, [*asked, "--probe-data", given])
    assert done.exit_code == 0, done.output
    raw = json.loads((tmp_path / "run" / "result.json").read_text())
    assert raw["probe_sets"]["folder-flat"]["classes"] == 2
    assert read_config(tmp_path / "run" / "config.yaml").probe.data == (
        ProbeSet(path=sets / "flat", labels=str(table)),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{sets}/none:labels=x.csv", "none does not exist; give a directory of labelled images"),
        ("{sets}/flat:labels={sets}/none.csv", "labels {sets}/none.csv does not exist"),
        ("{sets}/flat:labels=none", "probe.data.0.labels: 'none': probes need labels"),
    ],
)
def test_a_wrong_set_is_named(sets: Path, tmp_path: Path, given: str, said: str) -> None:
    words = ["train", "--preset", "smoke", "--data", str(sets / "shapes"), "--out", str(tmp_path / "run")]
    words += ["--set", "runtime.batch_size=8", "--set", "image_size=32"]
    found = CliRunner().invoke(app, [*words, "--probe-data", given.format(sets=sets)])
    assert isinstance(found.exception, ConfigError) and said.format(sets=sets) in str(found.exception)
    assert not (tmp_path / "run").exists()


def test_an_entry_with_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"probe.data.0.label: no such field; must be one of path, labels, groups"):
        load_config("smoke", overrides=['probe.data=[{"path": "x", "label": "y.csv"}]'])


def test_a_run_kept_in_memory_is_probed_on_a_set_of_several_sizes(sets: Path, tmp_path: Path) -> None:
    from cnnjepa.training.reprobe import reprobe

    run = tmp_path / "run"
    pretrain(config_for(sets / "shapes", "data.resident=always", "probe.every_epochs=0", "runtime.epochs=1"), run)
    (sets / "animals" / "train" / "ant" / "0.JPEG").write_bytes(encoded(picture(1, 30, 44), "JPEG"))
    probed = reprobe(run, data_path=sets / "animals")
    assert probed.written is None and probed.result.first_set.probes.held_out is not None
    added = reprobe(run, overrides=[f'probe.data=["{sets / "animals"}"]'])
    assert added.written is not None and added.result.first_set.probes == probed.result.first_set.probes
