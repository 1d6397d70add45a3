"""Which points a search tries: each once, none for ever, all of a finite space and no more; without training."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState
from searches import opened, space

from cnnjepa.ablations.data_facts import Resolver
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.resources import Resources
from cnnjepa.ablations.search import proposals as module
from cnnjepa.ablations.search.points import trial_record
from cnnjepa.ablations.search.proposals import News, Proposals
from cnnjepa.ablations.search.settled_points import RunName, exhausted
from cnnjepa.ablations.search.storage import HASH, HOW, open_study, tried
from cnnjepa.ablations.trial_runner import ATTEMPTS
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.space import SearchSpace

SIX: Any = {"predictor.depth": [1, 2, 3], "predictor.kernel_size": [3, 5]}
DEPTH, KERNEL = "method.predictor.depth", "method.predictor.kernel_size"


def plain(choices: dict[str, Any]) -> RunName:
    return RunName(str(sorted(choices.items())), "probe")


class Search:
    """A search with `at_once` workers, whose trials end as `ends` says, without Ray."""

    def __init__(
        self,
        storage: Any,
        asked: SearchSpace,
        trials: int,
        name: Callable[[dict[str, Any]], RunName] = plain,
        holder: Callable[[str], str | None] = lambda run: None,
        pool: Pool | None = None,
    ) -> None:
        self.news: list[News] = []
        self.asked, self.study = asked, open_study(asked, storage, pool)
        self.proposals = Proposals(self.study, asked, trials, name, holder, self.news.append)
        self.begun: list[dict[str, Any]] = []

    def next(self) -> Trial | None:
        trial = self.proposals.next()
        if trial is not None:
            self.begun.append(trial.params)
        return trial

    def run(self, at_once: int = 1, ends: Callable[[dict[str, Any]], str] = lambda point: "finished") -> None:
        at_work: list[Trial] = []
        for _ in range(1000):
            while len(at_work) < at_once and (trial := self.next()):
                at_work.append(trial)
            if not at_work:
                assert self.proposals.over
                return
            trial = at_work.pop(0)
            self.proposals.end(trial, ends(trial.params), 1.0)
        pytest.fail("the search does not end")

    def ways(self) -> list[str]:
        return [trial.user_attrs[HOW] for trial in tried(self.study)]


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return opened(None if request.param == "sqlite" else f"journal:{tmp_path / 'j'}", tmp_path)


# --- Finite spaces -------------------------------------------------------------------------------------------------


@pytest.mark.medium
@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_space_of_six_is_six_trials_however_many_are_asked_for(sampler: str, at_once: int, storage: Any) -> None:
    search = Search(storage, space(space=SIX, sampler=sampler), trials=20)
    search.run(at_once)
    assert sorted((p[DEPTH], p[KERNEL]) for p in search.begun) == [(d, k) for d in (1, 2, 3) for k in (3, 5)]
    assert search.ways() == ["finished"] * 6 and exhausted(search.study, search.asked) == 6
    assert [news.how for news in search.news if news.ended] == ["finished"] * 6  # repeats are not shown


def test_an_exhausted_space_stays_so_and_a_part_of_it_is_completed(storage: Any) -> None:
    Search(storage, space(space=SIX), trials=4).run()
    second = Search(storage, space(space=SIX), trials=20)
    assert len(tried(second.study)) == 4 and exhausted(second.study, second.asked) is None
    second.run(at_once=2)
    assert len(second.begun) == 2 and len(tried(second.study)) == 6
    third = Search(storage, space(space=SIX), trials=20)
    assert third.proposals.over and third.next() is None


def test_a_trial_that_ends_makes_no_room_for_a_repeat_while_others_are_at_work(storage: Any) -> None:
    search = Search(storage, space(space=SIX), trials=20)
    at_work = [search.next() for _ in range(6)]
    assert all(at_work) and search.next() is None and not search.proposals.over
    for trial in at_work:
        assert trial and not search.proposals.over
        search.proposals.end(trial, "finished", 1.0)
    assert search.next() is None and search.proposals.over


def test_a_large_finite_space_is_not_listed(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "space_points", lambda asked: pytest.fail("listed"))
    search = Search(storage, space(space={"runtime.seed": "int(0, 10000000)"}), trials=3)
    search.proposals._repeats = 1  # as after a repeated proposal
    search.run()
    assert len({p["runtime.seed"] for p in search.begun}) == 3


def test_points_that_are_the_same_run_are_one_trial(storage: Any) -> None:
    one_per_depth = lambda choices: RunName(str(choices["predictor.depth"]), "probe")  # noqa: E731
    search = Search(storage, space(space=SIX), 20, name=one_per_depth)
    search.run(at_once=3)
    assert sorted(p[DEPTH] for p in search.begun) == [1, 2, 3]
    assert search.ways() == ["finished"] * 3 and exhausted(search.study, search.asked) == 6


def test_a_point_that_no_trial_can_have_is_refused_once(storage: Any) -> None:
    def name(choices: dict[str, Any]) -> RunName:
        if choices["predictor.depth"] == 2:
            raise ConfigError("depth 2 is not possible here")
        return plain(choices)

    search = Search(storage, space(space=SIX), 20, name=name)
    search.run()
    assert sorted(search.ways()) == ["finished"] * 4 + ["refused"] * 2
    assert {news.detail for news in search.news if news.how == "refused"} == {"depth 2 is not possible here"}


# --- Runs that are at work elsewhere -------------------------------------------------------------------------------


def test_a_run_that_another_process_trains_is_waited_for_while_others_are_tried(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)
    busy = {plain({"predictor.depth": 2, "predictor.kernel_size": 3}).pretrain_hash: "node7 process 5"}
    search = Search(storage, space(space=SIX, sampler="grid"), 20, holder=busy.get)
    at_work = [search.next() for _ in range(5)]
    assert [(p[DEPTH], p[KERNEL]) for p in search.begun] == [(1, 3), (1, 5), (2, 5), (3, 3), (3, 5)]
    (waits,) = [news for news in search.news if news.how == "waits"]
    assert waits.detail == "another process trains these settings (node7 process 5)" and not waits.ended
    for trial in at_work:
        assert trial
        search.proposals.end(trial, "finished", 1.0)
    assert search.next() is None and not search.proposals.over  # the sixth is still trained elsewhere
    busy.clear()
    search.run()
    assert search.begun[-1] == {DEPTH: 2, KERNEL: 3} and search.ways() == ["finished"] * 6
    assert len(search.study.trials) == 6


def test_a_trial_that_finds_its_folder_locked_is_the_same_trial_later(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)
    search = Search(storage, space(), trials=2)  # real numbers
    first = search.next()
    assert first
    search.proposals.looked(first, 12.0, 1)
    search.proposals.end(first, "busy", detail="in use by another process")
    again = search.next()
    assert again and again.number == first.number and again.params == first.params
    search.proposals.end(again, "finished", 5.0)
    search.run()
    assert len(search.study.trials) == 2 and search.ways() == ["finished"] * 2


def test_two_probes_of_one_network_are_not_at_work_together(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)
    one_run = lambda choices: RunName("run", str(choices["probe.encoder"]))  # noqa: E731
    search = Search(storage, space(space={"probe.encoder": ["target", "context"]}), 20, name=one_run)
    first = search.next()
    assert first and search.next() is None and search.news[-1].detail == "trial 0 trains the same network"
    search.proposals.end(first, "finished", 1.0)
    search.run()
    assert search.ways() == ["finished"] * 2


def test_a_search_that_stops_gives_back_what_waits_and_what_was_stopped(storage: Any) -> None:
    search = Search(storage, space(space=SIX), 20, holder=lambda run: "node7")
    assert search.next() is None
    search.proposals.close()
    free = Search(storage, space(space=SIX), 20)
    stopped = free.next()
    assert stopped
    free.proposals.end(stopped, "stopped")
    free.run(at_once=3)
    assert len(free.begun) == 7 and free.ways() == ["finished"] * 6


# --- Points whose processes die ------------------------------------------------------------------------------------


def test_a_point_whose_process_dies_is_recorded_as_failed_and_the_search_moves_on(storage: Any) -> None:
    search = Search(storage, space(space=SIX), trials=20)
    search.run(at_once=2, ends=lambda point: "died" if point == {DEPTH: 2, KERNEL: 5} else "finished")
    assert len(search.begun) == 6 and sorted(search.ways()) == ["died"] + ["finished"] * 5
    (news,) = [news for news in search.news if news.how == "died"]
    assert news.detail == f"its process died {ATTEMPTS} times; the point is not tried again" and news.ended
    (dead,) = [trial for trial in search.study.trials if trial.user_attrs[HOW] == "died"]
    assert dead.state == TrialState.FAIL
    again = Search(storage, space(space=SIX), trials=20)
    assert again.proposals.over and not again.study.get_trials(states=(TrialState.WAITING,))


def test_a_search_ends_when_one_trial_after_another_dies(storage: Any) -> None:
    search = Search(storage, space(), trials=20)
    search.run(at_once=2, ends=lambda point: "died")
    assert search.proposals.machines_fail and 5 <= len(search.begun) <= 6
    mixed = Search(storage, space(), trials=20)
    mixed.run(ends=lambda point: "died" if len(mixed.begun) % 3 else "finished")
    assert not mixed.proposals.machines_fail and len(tried(mixed.study)) == 20


def test_a_point_that_takes_its_driver_with_it_is_tried_three_times(storage: Any, tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    for attempt in range(ATTEMPTS):
        search = Search(storage, space(space=SIX), trials=20, pool=pool)  # and the driver is killed
        trial = search.next()
        assert trial and trial.params == search.begun[0] and trial.number == attempt
    lost = search.begun[0]
    search = Search(storage, space(space=SIX), trials=20, pool=pool)
    assert len(tried(search.study)) == 1
    search.run()
    assert len(search.begun) == 5 and lost not in search.begun


@pytest.mark.medium
def test_a_point_that_advances_is_resumed_however_often_its_driver_is_killed(storage: Any, tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    name: Any = lambda choices: RunName("run", "probe")  # noqa: E731
    checkpoints = pool.folder("run").checkpoints
    checkpoints.mkdir(parents=True)
    for attempt in range(2 * ATTEMPTS):
        search = Search(storage, space(), 20, name=name, pool=pool)
        trial = search.next()
        assert trial and trial.number == attempt
        (checkpoints / "last.pt").touch()
        os.utime(checkpoints / "last.pt", (time.time() + 1, time.time() + 1))
    assert tried(open_study(space(), storage, pool)) == []


# --- Real names ----------------------------------------------------------------------------------------------------


@pytest.mark.medium
def test_a_point_is_named_as_the_run_folder_that_its_trial_takes(storage: Any) -> None:
    asked, resolver = space(space=SIX), Resolver("cpu", 1)

    def name(choices: dict[str, Any]) -> RunName:
        record = trial_record(asked, choices, None, Resources(1, 0, 1), resolver)
        assert record.config.method.predictor.depth == choices["predictor.depth"]
        return RunName(record.pretrain_hash, record.probe_hash)

    search = Search(storage, asked, 20, name=name)
    search.run(at_once=2)
    runs = [trial.user_attrs[HASH] for trial in tried(search.study)]
    assert len(set(runs)) == 6 and {len(run) for run in runs} == {64}
    assert [t.state for t in search.study.trials if t.user_attrs[HOW] == "finished"] == [TrialState.COMPLETE] * 6


def test_optuna_is_told_only_what_ended(storage: Any) -> None:
    search = Search(storage, space(), trials=4)
    ends = iter([("finished", 3.0), ("finished", None), ("pruned", None), ("failed", None)])
    while trial := search.next():
        search.proposals.end(trial, *next(ends))
    states = [optuna.trial.TrialState[name] for name in ("COMPLETE", "FAIL", "PRUNED", "FAIL")]
    assert [trial.state for trial in search.study.trials] == states
    assert search.ways() == ["finished", "without a figure", "pruned", "failed"]
