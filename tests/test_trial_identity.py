"""A trial is the pair of pretrain and probe hash: arms that differ in their probes are trained once, each judged."""

import contextlib
import json
from pathlib import Path

import pytest
from rich.console import Console

from cnnjepa.ablations.archive import archive_study
from cnnjepa.ablations.data_facts import SetSize
from cnnjepa.ablations.driver import OnOutcome, run_study, trained, unfinished
from cnnjepa.ablations.estimate import estimates, training_of
from cnnjepa.ablations.plan import requested_trials
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.comparison import compare
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, records_of, status_of
from cnnjepa.ablations.study_tensorboard import StudyTensorBoard
from cnnjepa.ablations.trial_runner import run_trial
from cnnjepa.cli.study_tables import counts_line, outcome_table, status_table
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.study import Study
from cnnjepa.training.reprobe import reprobe
from tests.studies import planned, result_of, write_run, write_study
from tests.study_runs import SMALL

ENCODERS = Study(name="probed", preset="smoke", axes={"probe.encoder": ("target", "context")}, seeds=(0, 1))


class Here:
    """Runs trials in this process, one after another."""

    def __init__(self, folder: StudyFolder, pool: Pool) -> None:
        self._folder, self._pool = folder, pool
        self.rounds: list[list[str]] = []

    def run(self, records: list[TrialRecord], stop_file: Path, stopping: object, on_outcome: OnOutcome) -> None:
        self.rounds.append([record.label for record in records])
        for record in records:
            run = self._pool.folder(record.pretrain_hash).path
            on_outcome(record, run_trial(record, run, self._folder.log(record.key), stop_file))


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrialRecord], Here]:
    """A study over the probed encoder and a probe's setting, brought to its end."""
    from cnnjepa.ablations.data_facts import Resolver
    from cnnjepa.ablations.plan import baseline_arm, plan, requested_trials
    from cnnjepa.schemas.overrides import parse_override

    root = tmp_path_factory.mktemp("probed")
    study = Study(
        name="probed", preset="smoke", set=dict(map(parse_override, [*SMALL, "epochs=2"])),
        axes={"probe.encoder": ("target", "context"), "linear_epochs": (1, 2)},
    )  # fmt: skip
    requested = requested_trials(study)
    records = records_of(plan(requested, Resolver("cpu", 1)), baseline_arm(study, requested).label, 1)
    folder, pool = StudyFolder(root, study.name), Pool(root)
    folder.write(study, records)
    here = Here(folder, pool)
    outcomes = run_study(folder, pool, records, lambda stack: here, lambda: False)
    assert {key: outcome.status for key, outcome in outcomes.items()} == {r.key: "finished" for r in records}
    return root, records, here


@pytest.mark.medium
def test_arms_that_differ_in_their_probes_are_trained_once_and_each_is_probed(
    probed: tuple[Path, list[TrialRecord], Here],
) -> None:
    root, records, here = probed
    pool = Pool(root)
    assert len({r.pretrain_hash for r in records}) == 1 and len({r.probe_hash for r in records}) == 4
    assert unfinished(pool, records, False) == []
    assert here.rounds == [[record.label] for record in records]  # they share a run folder, so never two at once
    run = pool.folder(records[0].pretrain_hash)
    sessions = [json.loads(line) for line in (run.path / "sessions.jsonl").read_text().splitlines()]
    assert [session["first_step"] for session in sessions] == [0, 12, 12, 12]
    found = [status_of(pool, record).result for record in records]
    assert [result and result.probed_encoder for result in found] == ["target", "target", "context", "context"]
    assert [result and result.probe and result.probe["linear_epochs"] for result in found] == [1, 2, 1, 2]
    assert found[0] and found[2] and found[0].probes != found[2].probes


@pytest.mark.medium
def test_a_probe_by_hand_changes_no_arms_figures(probed: tuple[Path, list[TrialRecord], Here]) -> None:
    root, records, _ = probed
    pool = Pool(root)
    before = [status_of(pool, record) for record in records]
    run = pool.folder(records[0].pretrain_hash).path
    assert reprobe(run, overrides=["probe.encoder=context", "held_out_lrs=[0.02]"]).written
    assert [status_of(pool, record) for record in records] == before


def records_with(root: Path, figures: dict[str, float]) -> tuple[StudyFolder, Pool, list[TrialRecord]]:
    """The study over encoders; linear top-1 by arm, nothing for arms that are not named."""
    trials = planned(ENCODERS)
    write_study(root, ENCODERS, lambda arm, seed: None, trials)
    pool = Pool(root)
    for trial in trials:
        if trial.arm.label in figures:
            folder = pool.folder(trial.pretrain_hash)
            if not folder.begun:
                write_run(root, trial, None)
            value = figures[trial.arm.label] + trial.seed
            folder.write_result(result_of(trial, value, value, probed_encoder=trial.config.probed_encoder))
    folder = StudyFolder(root, ENCODERS.name)
    return folder, pool, folder.trials()


def text_of(shown: object) -> str:
    console = Console(width=160, record=True, quiet=True)
    console.quiet, console.file = False, open("/dev/null", "w")  # noqa: SIM115
    console.print(shown)
    console.file.close()
    return console.export_text()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if name in line)


def test_every_table_shows_each_arms_own_figures(tmp_path: Path) -> None:
    _, pool, records = records_with(tmp_path, {"encoder=target": 60.0, "encoder=context": 30.0})
    statuses = {record.key: status_of(pool, record) for record in records}
    assert counts_line(records, statuses) == "4 finished"
    shown = text_of(outcome_table(ENCODERS, pool, records))
    assert "60.5 ±0.7" in row(shown, "encoder=target") and "30.5 ±0.7" in row(shown, "encoder=context")
    assert "30.0" in row(text_of(status_table(records, statuses)), "encoder=context")


def test_an_arm_that_is_not_probed_yet_is_begun_and_the_other_is_finished(tmp_path: Path) -> None:
    _, pool, records = records_with(tmp_path, {"encoder=target": 60.0})
    statuses = {record.key: status_of(pool, record) for record in records}
    assert counts_line(records, statuses) == "2 finished, 2 begun"
    left = unfinished(pool, records, False)
    assert {record.arm for record in left} == {"encoder=context"}
    assert trained(pool, left) == {training_of(record.config) for record in left}


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.medium
def test_a_report_compares_arms_that_differ_in_their_probes_and_gives_each_a_page(tmp_path: Path) -> None:
    folder, _, records = records_with(tmp_path, {"encoder=target": 60.0, "encoder=context": 30.0})
    study = read_study(folder)
    other = next(r for r in compare(study, "synthetic-32", "held_out").rows if not r.arm.baseline)
    assert other.differences["linear_top1"].mean == -30.0 and other.differences["linear_top1"].verdict != "same runs"
    (page, *_) = build_report(tmp_path, ["probed"], tmp_path / "out").pages
    text = page.read_text()
    data = json.loads(text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    assert set(data["trials"]) == {f"{r.pretrain_hash[:12]}-{r.probe_hash[:8]}" for r in records}
    figures = {t["uses"][0]["arm"]: t["sets"][0]["probes"]["held_out"]["linear_top1"] for t in data["trials"].values()}
    assert {arm: int(value) // 10 for arm, value in figures.items()} == {"encoder=target": 6, "encoder=context": 3}
    assert all(f'href="#trial/{name}"' in text for name in data["trials"])
    with pytest.raises(ConfigError, match="2 finished trials have names that begin with it"):
        build_report(tmp_path, ["probed"], tmp_path / "out", run=records[0].pretrain_hash[:12])
    build_report(tmp_path, ["probed"], tmp_path / "out", run=next(iter(data["trials"])))


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.medium
def test_an_archive_has_every_arms_figures(tmp_path: Path) -> None:
    _, pool, _ = records_with(tmp_path / "here", {"encoder=target": 60.0, "encoder=context": 30.0})
    archive_study(tmp_path / "here", "probed", tmp_path / "kept")
    kept = Pool(tmp_path / "kept")
    for record in StudyFolder(tmp_path / "kept", "probed").trials():
        one, other = (status_of(each, record).result for each in (pool, kept))
        assert one and other and one.probes == other.probes
    build_report(tmp_path / "here", ["probed"], tmp_path / "a")
    build_report(tmp_path / "kept", ["probed"], tmp_path / "b")
    tables = [(tmp_path / side / "tables" / "probed_accuracy_held_out.csv").read_text() for side in "ab"]
    assert tables[0] == tables[1] and "60.5" in tables[0] and "30.5" in tables[0]


def test_a_plan_counts_a_training_once() -> None:
    configs = [config for _, seed, config in requested_trials(ENCODERS) if seed == 0]
    first, second = estimates(configs, SetSize(6000, 2000, 16), 100.0)
    assert first.train_hours == pytest.approx(6000 * 2 / 100 / 3600) and first.disk_bytes > 0
    assert second.train_hours == 0 and second.disk_bytes == 0 and (second.probe_hours or 0) > 0
    done = {training_of(config) for config in configs}
    assert [e.train_hours for e in estimates(configs, SetSize(6000, 2000, 16), 100.0, 1, done)] == [0, 0]


def test_an_online_probe_is_shown_for_the_arm_whose_it_is_alone(tmp_path: Path) -> None:
    folder, pool, records = records_with(tmp_path, {})
    target, context = (next(r for r in records if name in r.arm) for name in ("target", "context"))
    run = pool.folder(target.pretrain_hash).path
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    lines = [
        {"kind": "train", "step": 5, "epoch": 1.0, "loss": 0.7, "images_per_s": 100},
        {"kind": "probe", "step": 5, "epoch": 1, "knn_top1": 12.5, "probe_hash": target.probe_hash},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (status_of(pool, target).knn, status_of(pool, context).knn) == (12.5, None)
    assert status_of(pool, context).loss == 0.7
    with contextlib.closing(StudyTensorBoard(folder, pool, records)) as board:
        board.update({record.key: status_of(pool, record) for record in records})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = {}
    for shown in (folder.path / "tensorboard").iterdir():
        events = EventAccumulator(str(shown))
        events.Reload()
        tags[shown.name] = "probe/knn_top1" in events.Tags()["scalars"]
    assert tags == {"encoder=target, seed 0": True, "encoder=context, seed 0": False}


def test_a_study_whose_probes_have_changed_is_another_study(tmp_path: Path) -> None:
    folder, _, records = records_with(tmp_path, {})
    changed = [record.model_copy(update={"probe_hash": "0" * 64}) for record in records]
    with pytest.raises(ConfigError, match=f"there .* probed as {records[0].probe_hash[:8]}, now .* probed as 00000000"):
        folder.refuse_other_study(ENCODERS, changed, extend=False)
