"""YAML by the core schema of 1.2, in files and words, and written so that it reads back equal."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.plan import requested_trials
from cnnjepa.ablations.step_cost_file import read_step_costs
from cnnjepa.ablations.study_files import read_study
from cnnjepa.cli.data import _images_at
from cnnjepa.cli.options import listed
from cnnjepa.cli.search_space import requested_space
from cnnjepa.schemas import ConfigError, load_config, preset_names, read_config
from cnnjepa.schemas.overrides import parse_override, replaced
from cnnjepa.schemas.study import Study
from cnnjepa.schemas.yaml_text import read_word, read_yaml, write_inline, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E+3", 1000.0), (".5", 0.5), ("2.", 2.0), ("-1.5e3", -1500.0), ("010", 10), ("-08", -8),
        ("0o17", 15), ("0x1F", 31), ("+7", 7), (".inf", math.inf), ("-.INF", -math.inf), ("true", True),
        ("FALSE", False), ("~", None), ("null", None), ("", None), ("1:30", "1:30"), ("no", "no"), ("yes", "yes"),
        ("on", "on"), ("Off", "Off"), ("y", "y"), ("2012-01-01", "2012-01-01"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1,000", "1,000"), ("=", "="), ("<<", "<<"), ("!!str 010", "010"), ("[1e-3, no]", [1e-3, "no"]),
        ("{1: 2, on: 3, 010: 4}", {"1": 2, "on": 3, "010": 4}),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read_yaml(text, "words")
    assert found == value and type(found) is type(value)


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["1e-4", "010", "08", "0o17", "1:30", "no", "on", "1_0", "2012-01-01", "~", "<<", "=", ".inf"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.medium
@settings(max_examples=300, deadline=None)
@given(_TREES)
def test_what_is_written_is_read_back_equal(tree: Any) -> None:
    for text in (write_yaml(tree), write_inline(tree)):
        found = read_yaml(text, "dump")
        assert found == tree and repr(found) == repr(tree)


@pytest.mark.parametrize("text", ["1e-4", "010", "08", "0o17", "1:30", "no", "on", "1_0", "2012-01-01", "3", "true"])
def test_text_that_looks_like_a_number_or_a_boolean_is_quoted_for_every_reader(text: str) -> None:
    assert write_inline(text) == f"'{text}'" and yaml.safe_load(write_yaml({"value": text})) == {"value": text}


@pytest.mark.parametrize("value", [1e-05, 1e16, 3e-4, 0.1, 1e22, 5e-324, -0.0])
def test_a_float_comes_back_as_the_same_float(value: float) -> None:
    found = read_yaml(write_yaml({"lr": value}), "dump")["lr"]
    assert type(found) is float and repr(found) == repr(value)
    assert yaml.safe_load(write_yaml({"lr": value})) == {"lr": value}


@pytest.mark.parametrize("name", preset_names())
def test_presets_mean_what_they_meant_under_yaml_1_1(name: str) -> None:
    """So that no run changes its name."""
    from cnnjepa.schemas.load import preset_text

    assert read_yaml(preset_text(name), name) == yaml.safe_load(preset_text(name))
    config = load_config(name)
    assert read_yaml(write_yaml(config.model_dump(mode="json")), name) == config.model_dump(mode="json")


# Keys


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("extends: demo\noptimizer: {lr: 0.001}\n\noptimizer: {weight_decay: 0.02}\n")
    with pytest.raises(ConfigError) as refusal:
        load_config(file=path)
    assert str(refusal.value) == f"config file {path}: 'optimizer' is given twice, in lines 2 and 4; give it once"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {b: 1, 'b': 2}", "'b' is given twice, in line 1"),
        ('a:\n  1: x\n  c: y\n  "1": z', "'1' is given twice, in lines 2 and 4"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x", "'<<' is given twice, in lines 3 and 4"),
        ("[1, 2]: x", "a key is a list or a mapping; keys must be names (line 1)"),
        ("a: !!int ten", "'ten' is marked as int and is none (line 1)"),
        ("a: " + "9" * 5000, "a number of 5,000 digits (line 1)"),
        ("\na: [1, 2", "is not valid YAML: line 2, column 9"),
        ("a: 1\n--- \nb: 2", "is not valid YAML: line 2, column 1: but found another document"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: &a [*a]", "recursive"),
        ("a: \0", "special characters are not allowed"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_what_is_not_ours_is_refused_by_origin(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_yaml(text, "study file s.yaml")
    assert str(refusal.value).startswith("study file s.yaml") and says in str(refusal.value)


def test_a_merged_mapping_gives_way_to_what_is_written_out() -> None:
    assert read_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", "file")["y"] == {"a": 1, "b": 3}


# Words of the command line


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("lr=1e-4", "optimizer.lr", 1e-4),
        ("seed=010", "runtime.seed", 10),
        ("train_split=2012", "data.train_split", "2012"),
        ("train_split=no", "data.train_split", "no"),
        ("train_split='2012'", "data.train_split", "2012"),
        ("data.path=/a b: c #1", "data.path", "/a b: c #1"),
        ("data.path=null", "data.path", None),
        ("runtime.epochs=3 # three", "runtime.epochs", "3 # three"),
        ("betas=[0.9, 1e-1]", "optimizer.betas", [0.9, 0.1]),
    ],
)
def test_a_word_is_read_as_it_is_written(word: str, path: str, value: Any) -> None:
    found = parse_override(word)
    assert found == (path, value) and type(found[1]) is type(value)


def test_lists_are_read_likewise() -> None:
    assert listed("010,1e-3,no,1:30", "--seeds") == [10, 1e-3, "no", "1:30"]
    with pytest.raises(ConfigError, match="--seeds '1,,2'"):
        listed("1,,2", "--seeds")


def test_a_hash_sign_begins_no_comment_in_a_word() -> None:
    assert read_word("#x", "--set a") == "#x" and read_word("[1, 2] # two", "--set a") == [1, 2]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("compile=no", "runtime.compile: 'no' is text; write true or false"),
        ("compile=on", "runtime.compile: 'on' is text; write true or false"),
        ("epochs=1:30", "runtime.epochs: '1:30' is text; write a whole number"),
        ("epochs='3'", "runtime.epochs: '3' is text; write a whole number"),
        ("epochs=true", "runtime.epochs: true is not a number; write a whole number"),
        ("epochs=1_000", "runtime.epochs: '1_000' is text; write a whole number"),
        ("lr=ten", "optimizer.lr: 'ten' is text; write a number"),
        ("betas=[0.9, yes]", "optimizer.betas.1: 'yes' is text; write a number"),
        ("epochs=3 # three", "runtime.epochs: '3 # three' is text; write a whole number"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_what_to_write(setting: str, says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_config("smoke", overrides=[setting])
    assert str(refusal.value) == says


def test_wrong_kinds_in_a_file_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("extends: tiny64\ndata: {train_split: 2012, val_split: true}\nruntime: {seed: no}\n")
    with pytest.raises(ConfigError) as refusal:
        read_config(path)
    assert str(refusal.value).splitlines() == [
        "data.train_split: 2012 is not text; write it in quotes: '2012'",
        "data.val_split: true is not text; write it in quotes: 'true'",
        "runtime.seed: 'no' is text; write a whole number",
    ]


def test_whole_numbers_may_have_an_exponent() -> None:
    assert load_config("smoke", overrides=["batch_size=1e2"]).runtime.batch_size == 100


@pytest.mark.parametrize(
    ("setting", "section", "name", "value"),
    [
        ("floors=untrained", "probe", "floors", ("untrained",)),
        ("protocols=held_out", "probe", "protocols", ("held_out",)),
        ("held_out_lrs=1e-2", "probe", "held_out_lrs", (0.01,)),
        ("held_out_ks=10", "probe", "held_out_ks", (10,)),
        ("keep_epochs=2", "runtime", "keep_epochs", (2,)),
    ],
)
def test_a_single_value_is_a_list_of_one(setting: str, section: str, name: str, value: object) -> None:
    config = load_config("smoke", overrides=[setting])
    assert getattr(getattr(config, section), name) == value
    assert config == load_config("smoke", overrides=[setting.replace("=", "=[") + "]"])


# Studies and searches


def study_file(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text("preset: smoke\n" + text)
    return path


def test_one_field_under_two_spellings_is_refused_in_a_study(tmp_path: Path) -> None:
    both = study_file(tmp_path, "set: {optimizer.lr: 0.001, lr: 0.5}\naxes: {predictor.depth: [1, 2]}\n")
    with pytest.raises(ConfigError, match=r"^set: optimizer\.lr and lr are one field, optimizer\.lr; give it once$"):
        requested_trials(read_study(str(both)))


def test_a_flag_replaces_a_setting_of_the_file_whatever_its_spelling() -> None:
    written = {"lr": 0.5, "epochs": 3}
    assert replaced(written, {"optimizer.lr": 0.1}, "set:") == {"epochs": 3, "optimizer.lr": 0.1}


def test_one_field_under_two_spellings_is_refused_in_a_search(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("preset: smoke\nset: {epochs: 3, runtime.epochs: 4}\nspace: {lr: 'log(1e-4, 1e-1)'}\n")
    with pytest.raises(ConfigError, match=r"set: epochs and runtime\.epochs are one field"):
        requested_space(path, [], [], {})
    path.write_text("preset: smoke\nspace: {lr: 'log(1e-4, 1e-1)', optimizer.lr: 'log(1e-3, 1)'}\n")
    with pytest.raises(ConfigError, match=r"--space lr and optimizer\.lr are one field"):
        requested_space(path, [], [], {})


def test_a_flag_replaces_a_range_of_the_file_whatever_its_spelling(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("preset: smoke\nspace: {lr: 'log(1e-4, 1e-1)'}\n")
    asked = requested_space(path, ["optimizer.lr=log(1e-3, 1)"], [], {})
    assert {key: str(span) for key, span in asked.space.items()} == {"lr": "log(0.001, 1.0)"}


def test_values_of_an_axis_in_two_spellings_are_one(tmp_path: Path) -> None:
    path = study_file(tmp_path, "axes: {optimizer.lr: [1e-3, 0.01, 1.0e-3]}\n")
    with pytest.raises(ConfigError, match=r"axis 'optimizer\.lr' has 0\.001 twice; give every value once"):
        read_study(str(path))
    with pytest.raises(ConfigError, match=r"--ratios '0\.4,0\.40': 0\.4 is given twice; give every value once"):
        listed("0.4,0.40", "--ratios")


def test_an_axis_of_words_that_are_no_booleans_is_refused_by_arm(tmp_path: Path) -> None:
    path = study_file(tmp_path, "axes: {predictor.depth: [yes, 2]}\n")
    with pytest.raises(ConfigError, match=r"^arm depth=yes: method\.predictor\.depth: 'yes' is text; write a whole"):
        requested_trials(read_study(str(path)))


def test_arms_with_numbers_for_names_keep_them(tmp_path: Path) -> None:
    axes = "axes:\n  grid:\n    010: {stem: half, min_keep: 1}\n    1e1: {stem: small}\n"
    study = read_study(str(study_file(tmp_path, axes + "baseline: {grid: 010}\n")))
    assert [arm.label for arm in arms_of(study)] == ["010", "1e1"]
    assert study.baseline == {"grid": "010"}
    assert Study.model_validate(read_yaml(write_yaml(study.model_dump(mode="json")), "study")) == study


def test_a_cost_file_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text('{"title": "a", "title": "b"}')
    with pytest.raises(ConfigError, match=r"'title' occurs twice"):
        read_step_costs(path)


@pytest.mark.parametrize("name", ["2012", "no", "null", "'a'", "1e-3", "a: b"])
def test_a_split_on_the_command_line_is_the_folders_name(name: str, tmp_path: Path) -> None:
    assert _images_at(tmp_path, "PATH", train_split=name).train_split == name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("space: [lr]", "space is ['lr']; write a mapping, config path: range"),
        ("space: 3", "space is 3; write a mapping, config path: range"),
        ("set: [lr]\nspace: {lr: 'log(1e-3, 1)'}", "set is ['lr']; write a mapping, config path: value"),
        ("set: true\nspace: {lr: 'log(1e-3, 1)'}", "set is True; write a mapping, config path: value"),
    ],
)
def test_a_search_of_the_wrong_shape_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"preset: smoke\n{text}\n")
    with pytest.raises(ConfigError) as refusal:
        requested_space(path, [], [], {})
    assert str(refusal.value) == f"search file {path}: {says}"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("drawing_seed=99999999999999999999999", "data.drawing_seed: 99999999999999999999999 is not valid"),
        ("threads=100000", "runtime.threads: 100000 is not valid"),
    ],
)
def test_numbers_that_no_machine_takes_are_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config("smoke", overrides=[setting])
    assert load_config("smoke", overrides=["drawing_seed=4611686018427387904"]).data.drawing_seed == 2**62
