"""Published numbers next to ours: each on its own data set, orderings against one data set."""

import itertools
from pathlib import Path

import pytest
from reports import DEPTHS, comparison, outcome, table
from studies import planned, write_study

from cnnjepa.ablations.method_study import method_study
from cnnjepa.ablations.plan import requested_trials
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.published_rows import counterparts, matched_rows, published_set_of, published_tables
from cnnjepa.schemas import load_config

pytestmark = [pytest.mark.medium, pytest.mark.usefixtures("blank_pictures")]


def test_published_numbers_stand_next_to_their_own_protocol_and_images_only(tmp_path: Path) -> None:
    write_study(tmp_path / "synthetic", DEPTHS, outcome)
    build_report(tmp_path / "synthetic", ["depths"])
    folder = tmp_path / "synthetic" / "studies" / "depths" / "report"
    for protocol in ("held_out", "published"):  # the images are synthetic
        assert not [name for name in table(folder, f"depths_accuracy_{protocol}")[0] if "published" in name]
    text = (folder / "tables" / "depths_accuracy_published.md").read_text(encoding="utf-8")
    assert (
        "No published accuracies are shown: they were measured on ImageNet-100, these images are synthetic-32" in text
    )
    assert "Ordering by linear against the published one on ImageNet-100, 4 arms: Kendall τ =" in text
    assert "4 arms cannot reach significance (perfect agreement gives p = 0.083)" in text

    write_study(tmp_path, DEPTHS, outcome, planned(DEPTHS, lambda config: "folder-imagenet100"))
    build_report(tmp_path, ["depths"])
    folder = tmp_path / "studies" / "depths" / "report"
    assert not [name for name in table(folder, "depths_accuracy_held_out")[0] if "published" in name]
    rows = {row["arm"]: row for row in table(folder, "depths_accuracy_published")}
    assert rows["depth=2"]["linear_top1_published"] == "73.22" and rows["depth=2"]["knn_top1_published"] == "59.22"
    # Protocol published is a point higher than held_out in these constructed results.
    ours = float(rows["depth=2"]["linear_top1_mean"])
    assert ours == pytest.approx(72.0)
    assert float(rows["depth=2"]["linear_top1_minus_published"]) == pytest.approx(72.0 - 73.22)
    text = (folder / "tables" / "depths_accuracy_published.md").read_text(encoding="utf-8")
    assert "epochs 2 (published: 201)" in text and "Published but not in this study: depth=5" in text


def test_a_published_row_stands_next_to_the_nearest_of_several_matching_arms() -> None:
    arms = {
        f"{conv}, {depth}": load_config("in100", overrides=[f"predictor.depth={depth}", f"predictor.conv={conv}"])
        for conv, depth in itertools.product(("separable", "dense"), (1, 2))
    }
    found = matched_rows(published_tables()["predictor_depth"], arms, "imagenet100")
    assert {label: (one.row.linear_top1, one.note, one.alone) for label, one in found.items()} == {
        "separable, 1": (64.86, "", True), "separable, 2": (73.22, "", True),
    }  # fmt: skip
    assert matched_rows(published_tables()["predictor_depth"], arms, "imagenet-1k") == {}
    only_in1k = matched_rows(published_tables()["predictor_depth_in1k"], arms, "imagenet-1k")
    assert {label: one.row.linear_top1 for label, one in only_in1k.items()} == {"separable, 2": 49.78}


MAIN = {
    "in100": {"cnnjepa": (73.26, 59.22), "simclr": (76.20, 67.26), "byol": (79.02, 68.20), "vicreg": (74.18, 64.32)},
    "in1k": {"cnnjepa": (54.23, 35.34), "simclr": (59.81, 45.31), "byol": (60.22, 45.38), "vicreg": (59.83, 46.82)},
}


@pytest.mark.parametrize("preset", ["in100", "in1k"])
def test_every_method_gets_the_row_of_its_own_data_set(preset: str, tmp_path: Path) -> None:
    name = {"in100": "folder-imagenet100", "in1k": "folder-imagenet"}[preset]
    study = method_study(preset, list(MAIN[preset]), {})
    arms = {str(arm.choices["method"]): config for arm, _, config in requested_trials(study)}
    main = published_tables()["main"]
    found = matched_rows(main, arms, name)
    assert {method: (one.row.linear_top1, one.row.knn_top1) for method, one in found.items()} == MAIN[preset]
    assert {one.note for one in found.values()} == {""}
    for elsewhere in ("folder-photos", "folder-tinyimagenet100", "synthetic-32", "cifar100"):
        assert matched_rows(main, arms, elsewhere) == {}
        of_one_set, ordering = counterparts(main, arms, elsewhere)
        assert of_one_set == preset and {one.row.dataset for one in ordering.values()} == {preset}

    # Our ordering is the published one of this data set exactly; mixed with the other's rows it would not be.
    ours = {f"method={method}": figures for method, figures in MAIN[preset].items()}
    trials = planned(study, lambda config: name)
    write_study(tmp_path, study, lambda arm, seed: ours.get(arm, MAIN[preset].get(arm)), trials)
    compared = comparison(tmp_path, study.name, "published")
    assert {metric: one.tau for metric, one in compared.agreements.items()} == {"linear_top1": 1.0, "knn_top1": 1.0}
    assert compared.ordered_on == preset


def test_a_published_data_set_is_known_by_its_name_or_by_its_sizes() -> None:
    names = {
        "in100": [
            "folder-imagenet100",
            "hdf5-ImageNet-100",
            "imagenet100-256px",
            "folder-in100",
            "folder-imagenet_100",
        ],
        "in1k": ["folder-imagenet", "imagenet-1k", "folder-ILSVRC2012", "folder-in1k", "imagenet1000", "imagenet-256"],
        None: ["folder-tinyimagenet100", "imagenet-10", "imagenet-200", "imagenette", "folder-photos", "synthetic-32"],
    }
    assert {name: published_set_of(name) for every in names.values() for name in every} == {
        name: known for known, every in names.items() for name in every
    }
    assert published_set_of("folder-photos", 126689, 5000) == "in100"
    assert published_set_of("folder-photos", 1281167, 50000) == "in1k"
    assert published_set_of("folder-photos", 126689, 50000) is None


def test_a_row_of_cnnjepa_matches_no_other_method() -> None:
    arms = {
        "wide": load_config("in100-simclr", overrides=["encoder.arch=wide_resnet50_2"]),
        "deep": load_config("in100-ijepa", overrides=["predictor.depth=6"]),
    }
    for name in ("main_authors_log", "predictor_depth"):
        assert matched_rows(published_tables()[name], arms, "imagenet100") == {}
