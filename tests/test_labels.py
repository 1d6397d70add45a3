"""Labels of arms, values and encoders: different ones never share a label."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import create_trial

from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.figures.accuracy_along_axis import series_along
from cnnjepa.ablations.search.storage import distributions
from cnnjepa.cli.search_view import show
from cnnjepa.schemas import load_config
from cnnjepa.schemas.numbers import counted, digits_apart, duration, exact, quantity
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.study import Study
from tests.studies import write_study


def labels(**axes: Any) -> list[str]:
    return [arm.label for arm in arms_of(Study(name="s", preset="smoke", axes=axes))]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=8, unique=True))
def test_different_numbers_have_different_names_that_read_back(numbers: list[float]) -> None:
    assert [float(exact(number)) for number in numbers] == numbers
    assert len(set(map(exact, numbers))) == len(numbers)
    digits = digits_apart(numbers, 3)
    assert len({f"{number:.{digits}g}" for number in numbers}) == len(numbers)


@pytest.mark.parametrize(
    ("number", "text"), [(0.1, "0.1"), (1e-5, "1e-05"), (3.0, "3"), (0.1234567, "0.1234567"), (1000001.0, "1000001.0")]
)
def test_a_number_is_written_with_the_digits_that_it_takes(number: float, text: str) -> None:
    assert exact(number) == text


def test_values_that_differ_in_the_seventh_digit_are_two_arms() -> None:
    assert labels(**{"optimizer.lr": [0.1234567, 0.1234568, 0.1]}) == ["lr=0.1234567", "lr=0.1234568", "lr=0.1"]
    scales = [[0.15, 0.2000001], [0.15, 0.2000002]]
    assert labels(**{"masking.scale": scales}) == ["scale=0.15–0.2000001", "scale=0.15–0.2000002"]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"predictor.depth": [1, "1"]}, ["predictor.depth=1", 'predictor.depth="1"']),
        ({"probe.resize": [None, "none"]}, ["probe.resize=null", 'probe.resize="none"']),
        ({"floors": [True, "true"]}, ["floors=true", 'floors="true"']),
        ({"encoder.stem": ["1", 1, '"1"']}, ['encoder.stem="1"', "encoder.stem=1", 'encoder.stem="\\"1\\""']),
    ],
)
def test_values_of_different_kinds_that_print_alike_are_told_by_their_kind(
    axes: dict[str, Any], expected: list[str]
) -> None:
    assert labels(**axes) == expected


def test_named_arms_with_commas_in_their_names_are_told_by_their_axes() -> None:
    first = {"a, b": {"predictor.depth": 1}, "a": {"predictor.depth": 2}}
    second = {"c": {"optimizer.lr": 0.1}, "b, c": {"optimizer.lr": 0.2}}
    assert labels(one=first, two=second) == [
        'one="a, b", two="c"', 'one="a, b", two="b, c"', 'one="a", two="c"', 'one="a", two="b, c"'
    ]  # fmt: skip


@pytest.mark.medium
def test_a_report_has_a_row_for_each_of_two_arms_that_are_close(tmp_path: Path) -> None:
    study = Study(name="close", preset="smoke", axes={"optimizer.lr": (0.0060001, 0.00600012)}, seeds=(0, 1))
    write_study(tmp_path, study, lambda arm, seed: (50.0 + seed if arm == "lr=0.0060001" else 70.0 + seed, 40.0))
    build_report(tmp_path, ["close"], tmp_path / "out")
    rows = (tmp_path / "out" / "tables" / "close_accuracy_held_out.csv").read_text().splitlines()
    found = {line.split(",")[0]: line for line in rows[1:]}
    assert "50.5" in found["lr=0.0060001"] and "70.5" in found["lr=0.00600012"]


@pytest.mark.medium
def test_pictures_along_two_axes_that_end_alike_are_two_files(tmp_path: Path) -> None:
    axes = {"first_view.blur": (0.1, 0.2), "second_view.blur": (0.1, 0.2)}
    study = Study(name="grid", preset="demo-byol", axes=axes)
    write_study(tmp_path, study, lambda arm, seed: (50.0, 40.0))
    build_report(tmp_path, ["grid"], tmp_path / "out")
    drawn = {path.name for path in (tmp_path / "out" / "figures").glob("grid_along_*_held_out.png")}
    assert drawn == {f"grid_along_{axis}.blur_held_out.png" for axis in ("first_view", "second_view")}


def test_encoders_of_nearly_the_same_width_have_their_own_names() -> None:
    names = [load_config("smoke", overrides=[f"width={w}"]).encoder.short_name for w in (0.125, 0.25)]
    assert names == ["resnet18/small/3 stages/x0.125", "resnet18/small/3 stages/x0.25"]
    config = load_config("smoke").encoder
    close = [config.model_copy(update={"width": width}).short_name for width in (0.12500001, 0.12500002)]
    assert close == ["resnet18/small/3 stages/x0.12500001", "resnet18/small/3 stages/x0.12500002"]


def test_a_searchs_tables_keep_close_values_apart(capsys: pytest.CaptureFixture[str]) -> None:
    ranges = {"lr": "choice(0.12341, 0.12342)", "ema.start": "uniform(0.9991, 0.9999)"}
    space = SearchSpace.model_validate({"name": "s", "preset": "smoke", "space": ranges})
    study = optuna.create_study(direction="maximize")
    for lr, start, value in ((0.12341, 0.99921, 40.0), (0.12342, 0.99922, 60.0), (0.12341, 0.99985, 50.0)):
        params = dict(zip(distributions(space), (lr, start), strict=True))
        study.add_trial(create_trial(params=params, distributions=distributions(space), value=value))
    show(study, space)
    out = capsys.readouterr().out
    by_value = [line.split() for line in out.partition("by value")[2].splitlines()]
    assert [line[-5:] for line in by_value if line and line[-5:][0] in ("0.12341", "0.12342")] == [
        ["0.12341", "2", "45.00", "40.00", "50.00"], ["0.12342", "1", "60.00", "60.00", "60.00"]
    ]  # fmt: skip
    halves = [line[-7:-4] for line in by_value if "to" in line and "from" not in line]
    assert halves == [["0.9991", "to", "0.9995"], ["0.9995", "to", "0.9999"]]
    assert "0.99921" in out and "0.99922" in out  # the best trials


def test_lines_along_an_axis_keep_the_text_1_and_the_number_1_apart() -> None:
    choices = [{"predictor.depth": depth, "encoder.stem": stem} for stem in (1, "1", "half") for depth in (2, 1)]
    rows = [SimpleNamespace(estimates=True, arm=SimpleNamespace(choices=one)) for one in choices]
    lines = series_along(SimpleNamespace(rows=rows), "predictor.depth")  # type: ignore[arg-type]
    assert {
        name: [(value, row.arm.choices["encoder.stem"]) for value, row in line] for name, line in lines.items()
    } == {
        "encoder.stem=1": [(1.0, 1), (2.0, 1)],
        'encoder.stem="1"': [(1.0, "1"), (2.0, "1")],
        'encoder.stem="half"': [(1.0, "half"), (2.0, "half")],
    }
    different = series_along(SimpleNamespace(rows=rows[2:]), "predictor.depth")  # type: ignore[arg-type]
    assert list(different) == ["stem=1", "stem=half"]


@pytest.mark.parametrize(("number", "text"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1200, "1,200 epochs")])
def test_one_of_something_is_in_the_singular(number: int, text: str) -> None:
    assert counted(number, "epoch") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (99.94, "99.9 s"), (264, "4.4 min"), (46_800, "13.0 h"), (7_200_000, "2,000.0 h")],
)
def test_a_duration_is_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(None, "B", "–"), (0, "", "0"), (12, "FLOP", "12 FLOP"), (1_234_567, "", "1.23 M"), (2.5e15, "FLOP", "2.5 PFLOP")],
)
def test_a_quantity_has_three_digits_and_a_prefix(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
