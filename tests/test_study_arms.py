"""The arms of a study, its baseline, and the hashes of its trials."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_plans import baseline_of, study, trials_of

from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.data_facts import SetSize
from cnnjepa.ablations.driver import distinct
from cnnjepa.ablations.estimate import estimates
from cnnjepa.ablations.flag_studies import masking_study, predictor_study
from cnnjepa.ablations.plan import requested_trials
from cnnjepa.ablations.published import published, published_set
from cnnjepa.ablations.study_files import read_study, shipped_studies, shipped_text
from cnnjepa.ablations.study_folder import records_of


@settings(max_examples=40, deadline=None)
@given(
    depths=st.lists(st.integers(1, 32), min_size=1, max_size=3, unique=True),
    kernels=st.lists(st.integers(0, 15).map(lambda n: 2 * n + 1), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True),
)
def test_every_combination_is_planned_once(depths: list[int], kernels: list[int], seeds: list[int]) -> None:
    asked = study(axes={"predictor.depth": depths, "kernel_size": kernels}, seeds=seeds)
    trials = trials_of(asked)
    found = {
        (t.config.method.predictor.depth, t.config.method.predictor.kernel_size, t.config.runtime.seed) for t in trials
    }
    assert found == {(d, k, s) for d in depths for k in kernels for s in seeds}
    assert len(trials) == len(found) == len({t.pretrain_hash for t in trials})
    assert len({t.label for t in trials}) == len(trials)
    # All arms of the first seed come before the next.
    assert [t.seed for t in trials] == [s for s in seeds for _ in range(len(depths) * len(kernels))]


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(["predictor.depth", "optimizer.lr", "masking.ratio", "ema.start"]))
def test_a_hash_does_not_depend_on_the_order_of_fields(order: list[str]) -> None:
    values = {"predictor.depth": 2, "optimizer.lr": 0.01, "masking.ratio": 0.5, "ema.start": 0.99}
    asked = study(set={key: values[key] for key in order}, axes={"predictor.kernel_size": [3]})
    plain = study(set=values, axes={"predictor.kernel_size": [3]})
    assert [t.pretrain_hash for t in trials_of(asked)] == [t.pretrain_hash for t in trials_of(plain)]


@pytest.mark.processes
def test_a_hash_is_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import study_plans as t; "
        "print(t.trials_of(t.study(axes={'predictor.depth': [3]}))[0].pretrain_hash)"
    )
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.strip() == trials_of(study(axes={"predictor.depth": [3]}))[0].pretrain_hash


def test_arms_that_are_the_same_config_share_a_trial() -> None:
    asked = study(axes={"arm": {"plain": {}, "spelt out": {"predictor.depth": 2}, "deeper": {"predictor.depth": 3}}})
    trials = trials_of(asked)
    records = records_of(trials, "plain", 1)
    assert len(records) == 3 and len(distinct(records)) == 2
    assert records[0].pretrain_hash == records[1].pretrain_hash


def test_the_depth_3_arm_of_one_study_is_the_baseline_of_another() -> None:
    depth = trials_of(study(axes={"predictor.depth": [1, 3]}))
    kernel = trials_of(study(name="other", set={"predictor.depth": 3}, axes={"predictor.kernel_size": [3, 5]}))
    assert depth[1].pretrain_hash == kernel[0].pretrain_hash


def test_the_baseline_is_what_was_named_or_the_base_config_or_the_first() -> None:
    assert baseline_of(study(axes={"predictor.depth": [1, 2, 3]})) == "depth=2"  # the preset's
    assert baseline_of(study(axes={"predictor.depth": [1, 3]})) == "depth=1"
    assert baseline_of(study(axes={"predictor.depth": [1, 2]}, baseline={"predictor.depth": 1})) == "depth=1"


def test_labels_name_axes_by_their_shortest_distinct_ending() -> None:
    arms = arms_of(study(axes={"loss.name": ["l2"], "optimizer.name": ["adamw"], "masking.scale": [[0.1, 0.2]]}))
    assert arms[0].label == "loss.name=l2, optimizer.name=adamw, scale=0.1–0.2"


@pytest.mark.medium
def test_the_predictors_of_the_paper_have_their_parameters() -> None:
    asked = predictor_study([1, 2, 3, 4, 5, 6], None, None, "in100")
    each = estimates([config for _, _, config in requested_trials(asked)], None, None)
    assert [round(e.cost.predictor_params / 1e6, 1) for e in each] == [4.2, 8.4, 12.7, 16.9, 21.1, 25.3]
    assert all(e.hours is None for e in each) and asked.published == "predictor_depth"


def test_a_masking_flag_changes_the_strategies_that_have_it() -> None:
    asked = masking_study(["mixed", "multi_block", "random"], [0.4, 0.6], [2, 4], "smoke")
    assert list(asked.axes["masking"]) == [
        "mixed ratio=0.4 blocks=2", "mixed ratio=0.4 blocks=4", "mixed ratio=0.6 blocks=2", "mixed ratio=0.6 blocks=4",
        "multi_block blocks=2", "multi_block blocks=4", "random ratio=0.4", "random ratio=0.6",
    ]  # fmt: skip
    assert len({t.pretrain_hash for t in trials_of(asked)}) == 8


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_is_headed_and_legal(name: str) -> None:
    head = [line for line in shipped_text(name).splitlines() if line.startswith("# ")]
    assert [line.split()[1] for line in head[-3:]] == ["Paper:", "Cost:", "Run:"]
    assert "?" in head[0] or head[0].endswith("needed.")
    assert f"cnnjepa ablate {name} " in head[-1]
    asked = read_study(name)
    assert asked.name == name and asked.question.endswith("?")
    trials = len(arms_of(asked)) * len(asked.seeds)
    assert len({config.model_dump_json() for _, _, config in requested_trials(asked)}) == trials
    assert asked.published is None or published()["tables"][asked.published]["rows"]


def test_the_published_sets_are_those_of_the_presets() -> None:
    assert published_set("in100") == SetSize(126689, 5000, 100) and published_set("demo") is None


def test_a_plan_says_what_its_seeds_can_tell_apart_and_what_more_could() -> None:
    from cnnjepa.cli.study_tables import power_line

    line = power_line(3, 1)
    assert line is not None and "Holm over 2 tests" in line and "3 seeds 4.6, 5 seeds 2.1, 8 seeds 1.3" in line
    single = power_line(1, 3)
    assert single is not None and single.startswith("one seed allows no test; ") and "1 seeds" not in single
    assert power_line(5, 0) is None
