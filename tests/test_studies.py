"""Studies: what may be asked, which trials come of it, what is refused; and where trials stand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.data_facts import DataFacts, Resolver, SetSize
from cnnjepa.ablations.driver import distinct, unfinished
from cnnjepa.ablations.estimate import estimates, probe_flops
from cnnjepa.ablations.flag_studies import masking_study, predictor_study
from cnnjepa.ablations.plan import PlannedTrial, baseline_arm, plan, requested_trials
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.published import published, published_set
from cnnjepa.ablations.resources import Capacity, Resources, resources_per_trial
from cnnjepa.ablations.study_files import changed, read_study, shipped_studies, shipped_text, validated
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, records_of, standing_of
from cnnjepa.measuring.cost import method_cost
from cnnjepa.schemas import ConfigError, PretrainConfig, ProbeFigures, Probes, TrialResult, load_config
from cnnjepa.schemas.study import Study
from cnnjepa.storage.locks import holder


class KnownImages(Resolver):
    """Resolves without opening any images."""

    def facts(self, config: PretrainConfig) -> DataFacts:
        return DataFacts("images", "f" * 64, True, SetSize(6000, 2000, 16))


RESOLVER = KnownImages("cpu", 1)


def study(**fields: Any) -> Study:
    return validated({"name": "s", "preset": "smoke", **fields}, "test")


def trials_of(asked: Study) -> list[PlannedTrial]:
    return plan(requested_trials(asked), RESOLVER)


def baseline_of(asked: Study) -> str:
    return baseline_arm(asked, requested_trials(asked)).label


# --- Arms and plan -----------------------------------------------------------------------------------------------


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


def test_a_hash_is_the_same_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_studies as t; "
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


# --- What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"predictor.dept": [1]}, "axis predictor.dept: there is no such config field; nearest is 'predictor.depth'"),
        ({"predictor.depth": []}, "axis 'predictor.depth' is empty"),
        ({"predictor.depth": 3}, "axis 'predictor.depth' is 3; give a list of values"),
        ({"predictor.depth": [1, 2, 1]}, "axis 'predictor.depth' has 1 twice"),
        ({"predictor.depth": [0]}, r"arm depth=0: method.predictor.depth: 0 is not valid"),
        ({"kernel_size": [3, 4]}, "arm kernel_size=4: .* must be odd"),
        ({"loss": {"l2": {"loss.nam": "l2"}}}, "axis loss, arm l2: loss.nam: there is no such config field"),
        ({"loss": {"l2": "yes"}}, "axis 'loss', arm 'l2': give what it changes"),
        ({"name": ["adamw"]}, "axis name: ambiguous; it could be"),
        ({"runtime.seed": [1, 2]}, "axis runtime.seed: seeds are repetitions, not settings"),
        ({"predictor.depth": [1], "method.predictor.depth": [2]}, "axis predictor.depth and .* are one field"),
        ({"loss": {"a": {"loss.name": "l2", "method.loss.name": "cosine"}}}, "axis loss, arm a: loss.name and .* are"),
        ({"arm": {"a": {"runtime.seed": 1}}}, "axis arm, arm a: runtime.seed: seeds are repetitions"),
        ({"predictor.depth": [1], "arm": {"x": {"predictor.depth": 2}}}, "is set by another axis too"),
        ({}, "axes"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_named(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials_of(study(axes=axes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": [0, 0]}, "seeds: must be distinct"),
        ({"name": "a/b"}, "name: 'a/b' is not valid"),
        ({"presett": "smoke"}, "presett: no such field; must be one of .*nearest is 'preset'"),
        ({"published": "depth"}, "published: 'depth' is not valid; must be one of"),
        ({"preset": "smok"}, "preset 'smok' does not exist; .*nearest is 'smoke'"),
        ({"baseline": {"predictor.depth": 9}}, "baseline: axis 'predictor.depth' has no 9; must be one of 1, 2"),
        ({"baseline": {"kernel": 9}}, "baseline names axis 'kernel'; the axes are predictor.depth"),
        ({"seeds": ["a", "b"]}, "^test: seeds.0: 'a' is text; write a whole number\nseeds.1: 'b' is text; [^\n]*$"),
        ({"set": {"runtime.seed": 7}}, "set: runtime.seed: seeds are repetitions"),
        ({"set": {"threads": 7}}, "set: runtime.threads: every process has as many threads as CPUs"),
        ({"set": {"depht": 1}}, "set: depht: there is no such config field; nearest is 'depth'"),
    ],
)
def test_a_wrong_field_of_a_study_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials_of(study(**{"axes": {"predictor.depth": [1, 2]}, **fields}))


def test_a_study_file_that_is_not_one_is_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.yaml", "- 1", "must hold fields"),
        ("b.yaml", "axes: [", "is not valid YAML"),
        ("c.yaml", "axes: {predictor.depth: }", "axis 'predictor.depth' is None"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_study(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"study 'predictor_dept' does not exist; .*nearest is 'predictor_depth'"):
        read_study("predictor_dept")


def test_a_trial_that_fits_no_machine_is_refused_at_once() -> None:
    cluster = Capacity([(16.0, 4.0), (16.0, 4.0), (8.0, 0.0)])
    assert cluster.trials(Resources(4, 1, 1)) == 8
    assert cluster.trials(Resources(4, 0.5, 1)) == 8  # sixteen by GPUs, eight by CPUs
    assert cluster.trials(Resources(2, 8, 8)) == 1
    for resources in (Resources(1, 5, 1), Resources(17, 0, 1), Resources(1, 9, 9), Resources(4, 20, 20)):
        with pytest.raises(ConfigError, match=r"more than there is .*lower --gpus-per-trial"):
            cluster.trials(resources)


@pytest.mark.parametrize("resources", [Resources(1, 1.5, 1), Resources(1, 3, 2)])
def test_a_broken_number_of_gpus_above_one_is_refused(resources: Resources) -> None:
    with pytest.raises(ConfigError, match=r"is 1.5 per process, which must be a whole number or a fraction below 1"):
        Capacity([(8.0, 8.0)]).trials(resources)


def test_what_a_trial_takes_by_default() -> None:
    gpus = Capacity([(32.0, 4.0)])
    assert resources_per_trial(gpus, 1, None, None, on_cpu=False, side_by_side=True) == Resources(8, 1.0, 1)
    assert resources_per_trial(gpus, 4, None, None, on_cpu=False, side_by_side=True) == Resources(8, 4.0, 4)
    assert resources_per_trial(gpus, 1, 0.5, None, on_cpu=False, side_by_side=True) == Resources(4, 0.5, 1)
    assert resources_per_trial(gpus, 1, None, None, on_cpu=True, side_by_side=True) == Resources(1, 0.0, 1)
    laptop = Capacity([(2.0, 0.0)])
    assert resources_per_trial(laptop, 1, None, None, on_cpu=False, side_by_side=True) == Resources(1, 0.0, 1)
    assert resources_per_trial(laptop, 1, None, None, on_cpu=False, side_by_side=False) == Resources(2, 0.0, 1)
    assert resources_per_trial(laptop, 2, None, None, on_cpu=False, side_by_side=False) == Resources(1, 0.0, 2)


def test_a_config_that_wants_a_gpu_is_refused_where_trials_get_none() -> None:
    with pytest.raises(ConfigError, match=r"arm depth=1: runtime.device=cuda: trials are given no GPU here"):
        trials_of(study(set={"runtime.device": "cuda"}, axes={"predictor.depth": [1]}))


def test_fewer_images_than_a_global_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="6000 training images are fewer than a global batch of 8192"):
        asked = study(set={"runtime.batch_size": 4096}, axes={"predictor.depth": [1]})
        plan(requested_trials(asked), KnownImages("cpu", 2))


# --- The study's folder ------------------------------------------------------------------------------------------


def written(root: Path, asked: Study) -> tuple[StudyFolder, list[TrialRecord]]:
    records = records_of(trials_of(asked), baseline_of(asked), 1)
    folder = StudyFolder(root, asked.name)
    folder.refuse_other_study(asked, records, extend=False)
    folder.write(asked, records)
    return folder, records


def test_a_study_reads_back_as_written(tmp_path: Path) -> None:
    asked = study(axes={"predictor.depth": [1, 2], "masking.scale": [[0.15, 0.2]]}, seeds=[0, 1])
    folder, records = written(tmp_path, asked)
    assert folder.study() == asked and folder.trials() == records
    assert [r.baseline for r in records] == [r.arm.startswith("depth=2") for r in records]


def test_a_changed_study_is_refused_and_what_differs_is_shown(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    before = (folder.path / "trials.json").read_bytes()
    for other, message in (
        (study(axes={"predictor.depth": [1, 3]}), r"axis predictor.depth: there \[1, 2\], asked \[1, 3\]"),
        (
            study(axes={"predictor.depth": [1, 2]}, set={"optimizer.lr": 0.1}),
            r"set.optimizer.lr: there \(none\)",
        ),
        (
            study(axes={"predictor.depth": [1, 2]}, seeds=[0, 1]),
            r"(?s)seeds: there \[0\], asked \[0, 1\].*--extend",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            written(tmp_path, other)
    assert (folder.path / "trials.json").read_bytes() == before
    larger = study(axes={"predictor.depth": [1, 2, 3]}, seeds=[0, 1])
    folder.refuse_other_study(larger, records_of(trials_of(larger), "depth=2", 1), extend=True)
    with pytest.raises(ConfigError, match="holds another study"):
        smaller = study(axes={"predictor.depth": [1]})
        folder.refuse_other_study(smaller, records_of(trials_of(smaller), "depth=1", 1), extend=True)


def test_what_was_claimed_stays_in_a_study_that_grows(tmp_path: Path) -> None:
    claim = {"says": "One is worse.", "arm": {"predictor.depth": 1}, "expect": "worse"}
    axes = {"predictor.depth": [1, 2, 3]}
    folder, _ = written(tmp_path, study(axes=axes, claims=[claim], baseline={"predictor.depth": 2}))
    for changes, legal in (
        ({}, True), ({"claims": [claim, {**claim, "says": "Another."}]}, False), ({"claims": []}, False),
        ({"claims": [{**claim, "expect": "better"}]}, False), ({"baseline": {"predictor.depth": 3}}, False),
    ):  # fmt: skip
        fields = {"claims": [claim], "baseline": {"predictor.depth": 2}, **changes}
        larger = study(axes=axes, seeds=[0, 1], **fields)
        asked = larger, records_of(trials_of(larger), "depth=2", 1), True
        if legal:
            folder.refuse_other_study(*asked)
        else:
            with pytest.raises(ConfigError, match="they and the baseline stay as they are"):
                folder.refuse_other_study(*asked)
    unclaimed, _ = written(tmp_path / "without", study(axes=axes))
    late = study(axes=axes, seeds=[0, 1], claims=[claim])
    with pytest.raises(ConfigError, match="there is no claiming afterwards"):
        unclaimed.refuse_other_study(late, records_of(trials_of(late), "depth=2", 1), extend=True)


def test_a_claim_about_the_arm_that_becomes_the_baseline_is_refused() -> None:
    claim = {"says": "Two are worse.", "arm": {"predictor.depth": 2}, "expect": "worse"}
    with pytest.raises(ConfigError, match=r"claim 'Two are worse\.' is about the baseline"):
        baseline_of(study(axes={"predictor.depth": [1, 2]}, claims=[claim]))


def test_other_images_under_the_same_settings_are_another_study(tmp_path: Path) -> None:
    class OtherImages(KnownImages):
        def facts(self, config: PretrainConfig) -> DataFacts:
            return super().facts(config)._replace(fingerprint="e" * 64)

    asked = study(axes={"predictor.depth": [1]})
    folder, _ = written(tmp_path, asked)
    changed_images = records_of(plan(requested_trials(asked), OtherImages("cpu", 1)), "depth=1", 1)
    with pytest.raises(ConfigError, match=r"(?s)depth=1 seed 0: there .* now .*the images"):
        folder.refuse_other_study(asked, changed_images, extend=False)


def test_a_study_that_is_not_there_offers_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no study; `cnnjepa ablate predictor --depths 1,2 --root .*` makes one"
    ):
        StudyFolder(tmp_path, "depth").study()
    written(tmp_path, study(name="depths", axes={"predictor.depth": [1]}))
    with pytest.raises(ConfigError, match="there are depths; nearest is 'depths'"):
        StudyFolder(tmp_path, "depth").study()


# --- Where trials stand ------------------------------------------------------------------------------------------


def put_result(pool: Pool, record: TrialRecord, status: str = "finished", **fields: Any) -> None:
    folder = pool.folder(record.pretrain_hash)
    folder.path.mkdir(parents=True, exist_ok=True)
    result = {
        "pretrain_hash": record.pretrain_hash, "probe_hash": record.probe_hash, "method": "cnnjepa", "encoder": "e",
        "dataset": "images", "seed": record.seed, "status": status, **fields,
    }  # fmt: skip
    folder.write_result(TrialResult.model_validate(result))


def test_where_a_trial_stands(tmp_path: Path) -> None:
    _, (record, *_) = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    run = pool.folder(record.pretrain_hash)
    assert standing_of(pool, record).state == "waiting"
    with run.locked():
        assert standing_of(pool, record).state == "running" and holder(run.path)
    assert standing_of(pool, record).state == "waiting" and not run.path.exists()
    run.path.mkdir(parents=True)
    (run.path / "config.yaml").write_text("")
    (run.path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 5, "epoch": 0.5, "loss": 0.7, "images_per_s": 100}\n'
        '{"kind": "probe", "step": 5, "knn_top1": 12.5}\n{"kind": "tra'
    )
    begun = standing_of(pool, record)
    assert (begun.state, begun.progress, begun.loss, begun.knn) == ("begun", 0.25, 0.7, 12.5)
    assert begun.seconds_left == pytest.approx(0.75 * 2 * 6000 / 100)
    put_result(pool, record, "failed", error="disk full")
    assert standing_of(pool, record).state == "failed" and standing_of(pool, record).problem == "disk full"
    assert [r.pretrain_hash for r in unfinished(pool, [record], retry_failed=True)] == [record.pretrain_hash]
    assert unfinished(pool, [record], retry_failed=False) == []
    put_result(pool, record)
    assert standing_of(pool, record).settled
    other_probe = record.model_copy(update={"probe_hash": "0" * 64})
    assert standing_of(pool, other_probe).state == "begun"
    put_result(pool, other_probe)
    assert standing_of(pool, other_probe).settled and standing_of(pool, record).settled  # neither undoes the other
    (run.path / "result.json").write_text('{"status": "fin')
    assert standing_of(pool, other_probe).settled  # it has a file of its own
    damaged = standing_of(pool, record)
    assert damaged.state == "unreadable" and "result.json cannot be read" in str(damaged.problem)


def test_a_probe_that_fails_does_not_take_another_result_with_it(tmp_path: Path) -> None:
    _, (record, *_) = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    put_result(pool, record)
    other = record.model_copy(update={"probe_hash": "0" * 64})
    put_result(pool, other)
    put_result(pool, other, "failed", error="disk full")  # nothing takes the place of figures
    assert standing_of(pool, record).settled and standing_of(pool, other).settled
    third = record.model_copy(update={"probe_hash": "1" * 64})
    put_result(pool, third, "failed", error="disk full")
    assert [standing_of(pool, r).state for r in (record, other, third)] == ["finished", "finished", "failed"]
    assert unfinished(pool, [record, other, third], retry_failed=False) == []
    assert unfinished(pool, [record, other, third], retry_failed=True) == [third]


def test_a_failure_under_one_probe_is_not_a_failure_under_another_and_makes_room_for_figures(tmp_path: Path) -> None:
    _, (record, *_) = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    folder = pool.folder(record.pretrain_hash)
    put_result(pool, record, "failed", error="disk full")
    (folder.path / "config.yaml").write_text("")
    other = record.model_copy(update={"probe_hash": "0" * 64})
    assert [standing_of(pool, r).state for r in (record, other)] == ["failed", "begun"]
    put_result(pool, other)
    assert [standing_of(pool, r).state for r in (record, other)] == ["failed", "finished"]
    first = folder.read_result()
    assert first and first.probe_hash == other.probe_hash  # result.json has the figures
    folder.forget_failure(other.probe_hash)  # which are no failure
    folder.forget_failure(record.probe_hash)
    assert [standing_of(pool, r).state for r in (record, other)] == ["begun", "finished"]
    put_result(pool, record)
    assert [standing_of(pool, r).state for r in (record, other)] == ["finished", "finished"]
    assert [r.probe_hash for r in folder.results()] == [other.probe_hash, record.probe_hash]


def test_a_damaged_study_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cnnjepa.cli.study_status import list_studies

    written(tmp_path, study(name="sound", axes={"predictor.depth": [1]}))
    folder, _ = written(tmp_path, study(name="broken", axes={"predictor.depth": [1]}))
    (folder.path / "trials.json").write_text("[]")
    list_studies(Console(width=200), tmp_path)
    out = capsys.readouterr().out
    assert "sound  1 waiting" in out and "broken  unreadable:" in out and "lists no trials" in out


def test_the_outcome_counts_only_what_finished(tmp_path: Path) -> None:
    from cnnjepa.cli.study_tables import outcome_notes, outcome_table

    asked = study(axes={"predictor.depth": [1, 2]}, seeds=[0, 1])
    _, records = written(tmp_path, asked)
    pool = Pool(tmp_path)
    values = iter([50.0, 60.0, 70.0, 99.0])
    for record, status in zip(records, ["finished", "finished", "finished", "collapsed"], strict=True):
        figures = ProbeFigures(linear_top1=next(values), knn_top1=None if record.seed == 1 else 40.0)
        put_result(pool, record, status, val_images=2000, probes=Probes(held_out=figures).model_dump())
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(outcome_table(asked, pool, records))
    console.file.close()
    text = console.export_text()
    one, two = (next(line for line in text.splitlines() if f"depth={depth}" in line) for depth in (1, 2))
    assert one.split()[:6] == ["depth=1", "2", "60.0", "±14.1", "40.0", "±2.1"]  # 50 and 70; k-NN of one
    assert [word for word in two.split() if word != "(baseline)"][:4] == ["depth=2", "1", "60.0", "±2.1"]
    assert outcome_notes(pool, records) == ["depth=2: 1 collapsed"]


def test_the_reckoned_probes_are_those_that_are_made() -> None:
    config, size = load_config("demo"), SetSize(6000, 2000, 16)
    cost = method_cost(config)
    bare = probe_flops(config, cost, size, untrained=False, pixels=False)
    fits = 1 + 5.5  # one rate under `published`; five under `held_out` and half of a refit
    neighbours = 2 * 2 * 6000 * (2000 + 600)  # a feature: both protocols, against validation and held-out images
    heads = {dim: (4 * 6000 * 16 * 90 * fits + neighbours) * dim for dim in (96, 3072)}
    assert bare == pytest.approx((8000 + 3 * 6000) * cost.encoder_flops + heads[96])  # three glances
    untrained = probe_flops(config, cost, size, untrained=True, pixels=False) - bare
    assert untrained == pytest.approx(8000 * cost.encoder_flops + heads[96])
    pixels = probe_flops(config, cost, size, untrained=False, pixels=True) - bare
    assert pixels == pytest.approx(heads[3072])


def test_floors_are_estimated_once_per_study() -> None:
    configs = [
        config
        for _, _, config in requested_trials(study(preset="demo", axes={"predictor.depth": [1, 2]}, seeds=[0, 1]))
    ]
    hours = [e.probe_hours or 0 for e in estimates(configs, SetSize(6000, 2000, 16), 100.0)]
    first, other_seed, again = hours[0], hours[1], hours[3]
    assert first > other_seed > again  # pixels and untrained; untrained of another seed; neither
    cheap = study(preset="demo", axes={"predictor.depth": [1, 2]}, seeds=[0, 1], set={"probe.floors": ["untrained"]})
    configs = [config for _, _, config in requested_trials(cheap)]
    without = [e.probe_hours or 0 for e in estimates(configs, SetSize(6000, 2000, 16), 100.0)]
    assert without == pytest.approx([other_seed, other_seed, again, again])


def test_an_error_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cnnjepa.cli.study_tables import failures, outcome_table, standings_table
    from cnnjepa.cli.terminal import console, say

    asked = study(axes={"arm": {"[/odd] one": {"predictor.depth": 1}}})
    _, (record,) = written(tmp_path, asked)
    pool = Pool(tmp_path)
    put_result(pool, record, "failed", error="[/src/pair.cc:1] closed [bold]", log_tail="a [/b] c")
    where = console()
    standings = {record.key: standing_of(pool, record)}
    for shown in (outcome_table(asked, pool, [record]), standings_table([record], standings)):
        where.print(shown)
    for line in failures(pool, [record], {}):
        say(where, *line)
    out = capsys.readouterr().out
    assert out.count("[/odd] one") == 3 and "[/src/pair.cc:1] closed [bold]" in out and "a [/b] c" in out


# --- TensorBoard -------------------------------------------------------------------------------------------------


def test_tensorboard_follows_every_trial_under_its_arms_name(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from cnnjepa.ablations.study_tensorboard import StudyTensorBoard

    folder, records = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    run = pool.folder(records[0].pretrain_hash).path
    run.mkdir(parents=True)
    line = '{{"kind": "train", "step": {step}, "epoch": 1.0, "loss": {loss}, "images_per_s": 10}}\n'
    (run / "metrics.jsonl").write_text(line.format(step=1, loss=0.5) + line.format(step=2, loss=0.25) + '{"ki')
    board = StudyTensorBoard(folder, pool, records)
    standings = {record.key: standing_of(pool, record) for record in records}
    board.update(standings)
    again = run / "metrics.jsonl.tmp"  # cut back by a resume, and since grown beyond what was read
    again.write_text(
        line.format(step=1, loss=0.5) + line.format(step=2, loss=0.123456789) + line.format(step=3, loss=1)
    )
    again.replace(run / "metrics.jsonl")
    board.update(standings)
    (run / "metrics.jsonl").write_text(line.format(step=1, loss=0.75))
    board.update(standings)
    put_result(pool, records[0], probes=Probes(held_out=ProbeFigures(knn_top1=40.0)).model_dump())
    board.update({record.key: standing_of(pool, record) for record in records})
    board.close()
    (shown,) = (folder.path / "tensorboard").iterdir()
    assert shown.name == "depth=1, seed 0"
    events = EventAccumulator(str(shown))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.75)]
    assert [e.value for e in events.Scalars("probe/knn_top1")] == [40.0]
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"predictor.depth" in hparams and b"seed" in hparams


# --- Text that people write --------------------------------------------------------------------------------------


def test_seeds_and_set_replace_those_of_a_file() -> None:
    asked = changed(read_study("sampler"), {"seeds": [3, 4], "set": {"optimizer.lr": 0.1}})
    assert [(arm.label, seed) for arm, seed, _ in requested_trials(asked)] == [
        ("sampler=faithful", 3), ("sampler=faithful", 4), ("sampler=unbiased", 3), ("sampler=unbiased", 4)
    ]  # fmt: skip
    assert all(config.optimizer.lr == 0.1 for _, _, config in requested_trials(asked))


def test_a_study_is_yaml_that_people_can_read(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, study(axes={"loss": {"l2": {"loss.name": "l2"}, "cosine": {"loss.name": "cosine"}}}))
    assert yaml.safe_load((folder.path / "study.yaml").read_text())["axes"]["loss"]["l2"] == {"loss.name": "l2"}
    assert json.loads((folder.path / "trials.json").read_text())[0]["arm"] == "l2"


def test_a_plan_says_what_its_seeds_can_tell_apart_and_what_more_could() -> None:
    from cnnjepa.cli.study_tables import power_line

    line = power_line(3, 1)
    assert line is not None and "Holm over 2 tests" in line and "3 seeds 4.6, 5 seeds 2.1, 8 seeds 1.3" in line
    single = power_line(1, 3)
    assert single is not None and single.startswith("one seed allows no test; ") and "1 seeds" not in single
    assert power_line(5, 0) is None
