"""Spaces of a search: ranges, arms of several fields, and refusals."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from searches import GRIDS, space

from cnnjepa.ablations.search.objective import refuse_unknown_metric
from cnnjepa.ablations.search.points import changes_of, check_search, loss_warning
from cnnjepa.cli.search_space import requested_space
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.space import SearchSpace


def test_a_space_is_read_as_people_write_it_and_reads_back() -> None:
    ranges = [
        "lr=log(1e-4,1e-1)", "depth = int(1, 1234567)", "strategy=choice(mixed, random)",
        "scale=choice([0.1, 0.2], [0.2, 0.3])",
    ]  # fmt: skip
    asked = requested_space(None, ranges, ["train_images=96"], {"preset": "smoke"})
    assert [str(r) for r in asked.space.values()] == [
        "log(0.0001, 0.1)", "int(1, 1234567)", "choice(mixed, random)", "choice([0.1, 0.2], [0.2, 0.3])",
    ]  # fmt: skip
    assert asked.set == {"data.train_images": 96} and asked.name == "search-smoke"
    assert SearchSpace.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("ranges", "flags", "message"),
    [
        ([], {}, "nothing to search: give SPACE.yaml or --space"),
        (["lr"], {}, "--space lr: write PATH=RANGE"),
        (["lrr=log(1,2)"], {}, "--space lrr: there is no such config field; nearest is 'lr'"),
        (["lr=lgo(1e-4,1)"], {}, r"space.lr: 'lgo\(1e-4,1\)' is not a range; it must be log"),
        (["lr=log(0,1)"], {}, r"space.lr: log needs bounds above 0"),
        (["lr=log(1,0.1)"], {}, r"space.lr: log needs two bounds, the lower first"),
        (["lr=log(1)"], {}, r"space.lr: log needs two bounds"),
        (["depth=int(1,2.5)"], {}, r"space.depth: int needs whole bounds"),
        (["strategy=choice(mixed)"], {}, r"choice needs at least two different values"),
        (["lr=choice(1e-3, 0.001)"], {}, r"space.lr: choice has 0.001 twice; give every value once"),
        (["lr=choice(1e-3, 0.1, 1.0e-3)"], {}, r"space.lr: choice has 0.001 twice"),
        (["lr=log(1e-4, 1:30)"], {}, r"space.lr: 'log\(1e-4, 1:30\)': '1:30' is no number; log needs two numbers"),
        (["lr=uniform(true, 2)"], {}, r"True is no number; uniform needs two numbers"),
        (["lr=log(1e-4, .inf)"], {}, r"space.lr.bounds.1: inf is not valid"),
        (["lr=log(1e-4,1)"], {"sampler": "grid"}, r"sampler grid needs choice\(…\), int"),
        (["depth=log(1,4)"], {}, r"--space method.predictor.depth=log\(1.0, 4.0\): method.predictor.depth: 3.12"),
        (["strategy=choice(mixed, mixd)"], {}, r"--space .*=choice\(mixed, mixd\): .*'mixd' is not valid"),
        (["lr=log(1e-4,1)", "optimizer.lr=log(1e-3,1)"], {}, "--space optimizer.lr: given twice"),
        (["lr=log(1e-4,1)", "lr=log(1e-3,1)"], {}, "--space lr: given twice"),
        (["lr=log(1e-4,1)"], {"preset": "smok"}, "preset 'smok' does not exist"),
    ],
)
def test_a_wrong_range_is_named(ranges: list[str], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_search(requested_space(None, ranges, [], flags), None)


def file_with(folder: Path, **settings: Any) -> Path:
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({"preset": "smoke", "space": settings}))
    return path


def test_named_arms_change_several_fields_together(tmp_path: Path) -> None:
    asked = requested_space(file_with(tmp_path, grid=GRIDS, lr="log(1e-4, 1e-1)"), [], [], {})
    check_search(asked, None)
    record = tmp_path / "search.yaml"
    record.write_text(yaml.safe_dump({**asked.model_dump(mode="json"), "images": "f" * 64, "processes": 1}))
    assert requested_space(record, [], [], {}) == asked
    assert SearchSpace.model_validate(asked.model_dump(mode="json")) == asked
    assert changes_of({"grid": "4x4", "lr": 0.1}, asked) == {
        "encoder.stem": "half", "method.masking.strategy": "random", "optimizer.lr": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": {"8x8": {"stem": "small"}}}, r"space.grid: named arms need at least two"),
        ({"grid": {"8x8": {"stem": "small"}, "same": {"stem": "small"}}}, r"space.grid: .* that change different"),
        (
            {"grid": {4: {"stem": "small"}, "4": {"stem": "half"}}},
            r"grid.yaml: '4' is given twice, in lines \d+ and \d+; give it once",
        ),
        ({"stem/stages": GRIDS}, r"space: 'stem/stages' names arms; must consist of letters"),
        ({"lr": GRIDS}, r"--space lr: is a config path; give the arms another name"),
        ({"grid": {"8x8": "small", "4x4": "half"}}, r"space.grid: .* is not a range; it must be log\(LOW, HIGH\)"),
        ({"grid": {**GRIDS, "2x2": {"stm": "half"}}}, r"grid, arm 2x2: stm: there is no such config field"),
        ({"grid": {**GRIDS, "2x2": {"stem": "hlf"}}}, r"--space grid, arm 2x2: encoder.stem: 'hlf' is not valid"),
        ({"grid": GRIDS, "stem": "choice(small, half)"}, r"--space encoder.stem: given twice"),
    ],
)
def test_wrong_named_arms_are_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_search(requested_space(file_with(tmp_path, **settings), [], [], {}), None)


def test_pruning_without_intermediate_probes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe.every_epochs is 0: --set probe.every_epochs=1, or --no-prune"):
        check_search(space(set={"probe.every_epochs": 0}), None)
    check_search(space(set={"probe.every_epochs": 0}, prune=False), None)


def test_a_search_without_the_figure_it_is_judged_by_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe.protocols must contain held_out"):
        check_search(space(set={"probe.protocols": ["published"]}), None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "knm"}, "'knm' is no objective; must be one of knn, linear, rankme, lidar, alpha_req, loss, or"),
        ({"objective": "metric:"}, "metric:NAME for a figure of probe.metrics"),
    ],
)
def test_an_objective_that_does_not_exist_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        requested_space(None, ["optimizer.lr=log(1e-4, 1e-1)"], [], fields)


def test_objectives_that_no_trial_could_have_are_refused() -> None:
    unpruned: dict[str, Any] = {"prune": False}
    for method in ("supervised", "random_init"):
        with pytest.raises(ConfigError, match=f"--objective loss: method {method} has no loss on held-out images"):
            check_search(space(objective="loss", set={"method.name": method}, **unpruned), None)
    with pytest.raises(ConfigError, match=r"--objective metric:class_mean_top1: probe.metrics is empty"):
        check_search(space(objective="metric:class_mean_top1", **unpruned), None)
    asked = space(objective="metric:class_mean", set={"probe.metrics": ["class_means"]}, **unpruned)
    with pytest.raises(ConfigError, match=r"has this figure; must be one of metric:class_mean_top1, metric:class_mean"):
        refuse_unknown_metric(asked, check_search(asked, None))
    known = space(objective="metric:class_mean_top1", set={"probe.metrics": ["class_means"]}, **unpruned)
    refuse_unknown_metric(known, check_search(known, None))
    check_search(space(objective="rankme", set={"probe.protocols": ["published"]}), None)


def test_a_search_that_compares_losses_of_different_meaning_is_warned_about() -> None:
    masks: Any = {"masking.min_keep": "int(3, 5)", "optimizer.lr": "log(1e-4, 1e-1)"}
    warning = loss_warning(space(objective="loss", space=masks))
    assert warning and warning.startswith("--objective loss compares losses of different method.masking.min_keep;")
    assert loss_warning(space(objective="loss")) is None and loss_warning(space(space=masks)) is None
