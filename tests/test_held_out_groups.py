"""The probes' held-out part is made of whole groups where there are `data.groups`."""

from pathlib import Path

import pytest
import torch
from image_sets import encoded, picture
from test_unlabelled_runs import config_for

from cnnjepa.ablations.data_facts import Resolver
from cnnjepa.data import DataSet, open_data
from cnnjepa.data.held_out import grouped_labels, held_out_split, trained_images, training_set
from cnnjepa.data.source import groups_of
from cnnjepa.data.split_off import split_off
from cnnjepa.probes.assessment import _some_of_both_parts
from cnnjepa.probes.evaluate import split_rows
from cnnjepa.probes.features import extract
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.training.pretrain import pretrain

PATIENTS, IMAGES = 20, 5  # per class


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes and of 20 patients with 5 images each, validation images of others, and their table."""
    root = tmp_path_factory.mktemp("patients") / "set"
    root.mkdir()
    content = [encoded(picture(i, 32, 32)) for i in range(7)]
    rows = ["path,label,split,patient,hospital"]
    for split, count in (("train", PATIENTS), ("val", 3)):
        for name in "ab":
            for patient in range(count):
                for i in range(IMAGES):
                    file = f"{split}_{name}{patient:02d}_{i}.png"
                    (root / file).write_bytes(content[(patient + i) % 7] + bytes(patient))
                    rows.append(f"{file},{name},{split},{split}_{name}{patient:02d},{split}_{name}")
    (root.parent / "labels.csv").write_text("\n".join(rows))
    return root


def config_with(root: Path, groups: str | None, *overrides: str) -> PretrainConfig:
    by = [] if groups is None else [f"data.groups={groups}"]
    return config_for(root, f"data.labels={root.parent / 'labels.csv'}", *by, *overrides)


def patients_of(data: DataSet, rows: torch.Tensor) -> set[str]:
    return {Path(data.train.name(row)).name.split("_")[1] for row in rows.tolist()}


@pytest.mark.parametrize("resident", ["never", "always"])
def test_a_patient_is_on_one_side_of_the_probes_split_only(patients: Path, tmp_path: Path, resident: str) -> None:
    config = config_with(patients, "patient", f"resident={resident}")
    data = open_data(config.data)
    assert groups_of(data.train) is not None and data.resident == (resident == "always")
    features = extract(lambda pixels: pixels.float().mean((2, 3)), data.train, config, tmp_path)
    fit, held = (patients_of(data, rows) for rows in split_rows(features, config.probe))
    assert not fit & held and len(fit | held) == 2 * PATIENTS
    assert sorted(name[0] for name in held) == ["a", "a", "b", "b"]  # a tenth of the patients of each class


def test_without_groups_the_split_is_that_of_earlier_versions(patients: Path) -> None:
    labels = open_data(config_with(patients, None).data).train.labels
    for one, other in zip(held_out_split(labels, 0.1, 3), split_off(labels, 0.1, 3, "held_out"), strict=True):
        assert torch.equal(one, other)


def test_online_probes_hold_out_whole_groups_too(patients: Path) -> None:
    config = config_with(patients, "patient")
    train = open_data(config.data).train
    some = _some_of_both_parts(train, 60, config)
    held = held_out_split(train.labels, 0.1, 0, groups_of(train))[1]
    assert some.numel() == 60 and len(set(some.tolist()) & set(held.tolist())) == 6


def test_a_supervised_run_learns_from_no_image_of_a_held_out_patient(patients: Path) -> None:
    config = config_with(patients, "patient", "method.name=supervised")
    data = open_data(config.data)
    kept = training_set(config, data)
    held = held_out_split(data.train.labels, 0.1, config.probe.split_seed, groups_of(data.train))[1]
    learned = patients_of(kept, torch.arange(kept.train.labels.numel()))
    assert len(learned) == 36 and not learned & patients_of(data, held)
    assert trained_images(config, [100, 100], grouped_labels(data)) == kept.train.labels.numel() == 180


def test_groups_are_in_the_probe_hash_and_in_the_name_of_a_supervised_run_only(patients: Path) -> None:
    def names(groups: str | None, *overrides: str) -> tuple[str, str]:
        return Resolver("cpu", 1)(config_with(patients, groups, *overrides))[1][:2]

    plain, with_groups = names(None), names("patient")
    assert plain[0] == with_groups[0] and len({plain[1], with_groups[1], names("hospital")[1]}) == 3
    assert names(None, "method.name=supervised")[0] != names("patient", "method.name=supervised")[0]


def test_groups_of_images_without_labels_are_in_no_hash(patients: Path) -> None:
    config = config_for(patients, "data.labels=none", "data.groups=null")
    table = patients.parent / "bare.csv"
    rows = [f"{file.name},{file.name[:9]}" for file in patients.iterdir()]
    table.write_text("\n".join(["path,patient", *rows]))
    with_groups = config_for(patients, f"data.labels={table}", "data.groups=patient")
    assert Resolver("cpu", 1)(config)[1].probe_hash == Resolver("cpu", 1)(with_groups)[1].probe_hash


def test_groups_that_cannot_be_divided_are_refused_before_training(patients: Path, tmp_path: Path) -> None:
    config = config_with(patients, "hospital")  # a group per class
    with pytest.raises(ConfigError, match="whole groups of training images, and every group holds all images"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_group_is_refused_with_advice_that_also_holds_for_supervised_training() -> None:
    labels, groups = torch.tensor([0, 1] * 4), torch.full((8,), 5)
    with pytest.raises(ConfigError, match=r"these are of 1 group\(s\), .* only supervised training holds images out"):
        held_out_split(labels, 0.1, 0, groups)


@pytest.mark.medium
def test_a_run_with_groups_says_so_in_its_config_and_result(patients: Path, tmp_path: Path) -> None:
    result = pretrain(config_with(patients, "patient", "floors=false", "probe.every_epochs=1"), tmp_path / "run")
    written = load_config(file=tmp_path / "run" / "config.yaml").probe.held_out_groups
    data = open_data(config_with(patients, "patient").data)
    assert written == data.groups_fingerprint and result.probe and result.probe["held_out_groups"] == written
