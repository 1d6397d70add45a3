"""The status of a study's trials, and what a failure shows."""

from pathlib import Path

import pytest
from rich.console import Console
from study_plans import put_result, study, written

from cnnjepa.ablations.data_facts import SetSize
from cnnjepa.ablations.driver import unfinished
from cnnjepa.ablations.estimate import estimates, probe_flops
from cnnjepa.ablations.plan import requested_trials
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import status_of
from cnnjepa.measuring.cost import method_cost
from cnnjepa.schemas import ProbeFigures, Probes, load_config
from cnnjepa.storage.locks import holder


def test_where_a_trial_stands(tmp_path: Path) -> None:
    _, (record, *_) = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    run = pool.folder(record.pretrain_hash)
    assert status_of(pool, record).state == "waiting"
    with run.locked():
        assert status_of(pool, record).state == "running" and holder(run.path)
    assert status_of(pool, record).state == "waiting" and not run.path.exists()
    run.path.mkdir(parents=True)
    (run.path / "config.yaml").write_text("")
    (run.path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 5, "epoch": 0.5, "loss": 0.7, "images_per_s": 100}\n'
        '{"kind": "probe", "step": 5, "knn_top1": 12.5}\n{"kind": "tra'
    )
    begun = status_of(pool, record)
    assert (begun.state, begun.progress, begun.loss, begun.knn) == ("begun", 0.25, 0.7, 12.5)
    assert begun.seconds_left == pytest.approx(0.75 * 2 * 6000 / 100)
    put_result(pool, record, "failed", error="disk full")
    assert status_of(pool, record).state == "failed" and status_of(pool, record).problem == "disk full"
    assert [r.pretrain_hash for r in unfinished(pool, [record], retry_failed=True)] == [record.pretrain_hash]
    assert unfinished(pool, [record], retry_failed=False) == []
    put_result(pool, record)
    assert status_of(pool, record).settled
    other_probe = record.model_copy(update={"probe_hash": "0" * 64})
    assert status_of(pool, other_probe).state == "begun"
    put_result(pool, other_probe)
    assert status_of(pool, other_probe).settled and status_of(pool, record).settled  # neither undoes the other
    (run.path / "result.json").write_text('{"status": "fin')
    assert status_of(pool, other_probe).settled  # it has a file of its own
    damaged = status_of(pool, record)
    assert damaged.state == "unreadable" and "result.json cannot be read" in str(damaged.problem)


def test_a_probe_that_fails_does_not_take_another_result_with_it(tmp_path: Path) -> None:
    _, (record, *_) = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    put_result(pool, record)
    other = record.model_copy(update={"probe_hash": "0" * 64})
    put_result(pool, other)
    put_result(pool, other, "failed", error="disk full")  # nothing takes the place of figures
    assert status_of(pool, record).settled and status_of(pool, other).settled
    third = record.model_copy(update={"probe_hash": "1" * 64})
    put_result(pool, third, "failed", error="disk full")
    assert [status_of(pool, r).state for r in (record, other, third)] == ["finished", "finished", "failed"]
    assert unfinished(pool, [record, other, third], retry_failed=False) == []
    assert unfinished(pool, [record, other, third], retry_failed=True) == [third]


def test_a_failure_under_one_probe_is_not_a_failure_under_another_and_makes_room_for_figures(tmp_path: Path) -> None:
    _, (record, *_) = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    folder = pool.folder(record.pretrain_hash)
    put_result(pool, record, "failed", error="disk full")
    (folder.path / "config.yaml").write_text("")
    other = record.model_copy(update={"probe_hash": "0" * 64})
    assert [status_of(pool, r).state for r in (record, other)] == ["failed", "begun"]
    put_result(pool, other)
    assert [status_of(pool, r).state for r in (record, other)] == ["failed", "finished"]
    first = folder.read_result()
    assert first and first.probe_hash == other.probe_hash  # result.json has the figures
    folder.forget_failure(other.probe_hash)  # which are no failure
    folder.forget_failure(record.probe_hash)
    assert [status_of(pool, r).state for r in (record, other)] == ["begun", "finished"]
    put_result(pool, record)
    assert [status_of(pool, r).state for r in (record, other)] == ["finished", "finished"]
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


def test_the_estimated_probes_are_those_that_are_made() -> None:
    config, size = load_config("demo"), SetSize(6000, 2000, 16)
    cost = method_cost(config)
    bare = probe_flops(config, cost, size, untrained=False, pixels=False)
    fits = 1 + 5.5  # one rate under `published`; five under `held_out` and half of a refit
    neighbours = 2 * 2 * 6000 * (2000 + 600)  # a feature: both protocols, against validation and held-out images
    heads = {dim: (4 * 6000 * 16 * 90 * fits + neighbours) * dim for dim in (96, 3072)}
    assert bare == pytest.approx((8000 + 3 * 6000) * cost.encoder_flops + heads[96])  # three online probes
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
    from cnnjepa.cli.study_tables import failures, outcome_table, status_table
    from cnnjepa.cli.terminal import console, say

    asked = study(axes={"arm": {"[/odd] one": {"predictor.depth": 1}}})
    _, (record,) = written(tmp_path, asked)
    pool = Pool(tmp_path)
    put_result(pool, record, "failed", error="[/src/pair.cc:1] closed [bold]", log_tail="a [/b] c")
    where = console()
    statuses = {record.key: status_of(pool, record)}
    for shown in (outcome_table(asked, pool, [record]), status_table([record], statuses)):
        where.print(shown)
    for line in failures(pool, [record], {}):
        say(where, *line)
    out = capsys.readouterr().out
    assert out.count("[/odd] one") == 3 and "[/src/pair.cc:1] closed [bold]" in out and "a [/b] c" in out
