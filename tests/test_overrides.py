"""`--set`: short paths, the order of flags, and the choice of another arm of a union."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from configs import refused, write
from hypothesis import given
from hypothesis import strategies as st

from cnnjepa.schemas import (
    BlockMasking,
    ConfigError,
    MixedMasking,
    MultiBlockMasking,
    RandomMasking,
    SyntheticData,
    load_config,
)
from cnnjepa.schemas.fields import config_fields
from cnnjepa.schemas.overrides import differences, flat, full_path, merge, nested


def endings(path: str) -> list[str]:
    """`a.b.c` → c, b.c, a.b.c."""
    names = path.split(".")
    return [".".join(names[-n:]) for n in range(1, len(names) + 1)]


def test_every_ending_is_either_unambiguous_or_refused_with_all_candidates() -> None:
    paths = sorted({field.path for field in config_fields()})
    for ending in sorted({ending for path in paths for ending in endings(path)}):
        meant = [path for path in paths if path == ending or path.endswith(f".{ending}")]
        if len(meant) == 1 or ending in paths:
            assert full_path(ending) == (ending if ending in paths else meant[0])
            continue
        with pytest.raises(ConfigError, match="ambiguous") as caught:
            full_path(ending)
        assert all(path in str(caught.value) for path in meant), ending


def test_design_md_endings_mean_what_it_says() -> None:
    assert full_path("predictor.depth") == full_path("depth") == "method.predictor.depth"
    assert full_path("optimizer.lr") == full_path("lr") == "optimizer.lr"
    assert full_path("strategy") == "method.masking.strategy"
    assert full_path("seed") == "runtime.seed"
    with pytest.raises(ConfigError, match=r"ambiguous; it could be data\.\S*name, .*optimizer\.name"):
        full_path("name")


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("depht", "depth"),
        ("predictor.dept", "predictor.depth"),
        ("lerning_rate", None),
        ("optimiser.lr", "optimizer.lr"),
        ("batchsize", "batch_size"),
    ],
)
def test_a_misspelt_key_gives_the_nearest(misspelt: str, nearest: str | None) -> None:
    message = refused(preset="demo", overrides=[f"{misspelt}=1"])
    assert "no such config field" in message
    if nearest:
        assert f"nearest is {nearest!r}" in message


@pytest.mark.parametrize("text", ["depth", "=3", "  =3", "lr=["])
def test_a_flag_without_key_or_value_is_refused(text: str) -> None:
    assert "--set" in refused(preset="demo", overrides=[text])


def test_numbers_are_read_as_people_write_them() -> None:
    config = load_config("demo", overrides=["lr=1e-3", "mean=[0, 0.5, 1]", "projection_dim=null", "compile=true"])
    assert config.optimizer.lr == 1e-3
    assert config.data.mean == (0, 0.5, 1)
    assert config.method.predictor.projection_dim is None
    assert config.runtime.compile is True


@pytest.mark.parametrize("preset", ["demo", "in100", "tiny64"])
def test_another_strategy_drops_the_old_arms_keys(preset: str) -> None:
    config = load_config(preset, overrides=["strategy=random"])
    assert config.method.masking == RandomMasking(ratio=load_config(preset).method.masking.ratio)
    assert isinstance(load_config(preset, overrides=["strategy=multi_block"]).method.masking, MultiBlockMasking)
    assert isinstance(load_config(preset, overrides=["strategy=block"]).method.masking, BlockMasking)


def test_another_source_drops_the_old_arms_keys_and_keeps_the_shared_ones() -> None:
    config = load_config("tiny64", overrides=["source=synthetic"])
    assert isinstance(config.data, SyntheticData)
    assert config.data.image_size == 64
    assert load_config("cifar", overrides=["source=folder"]).data.mean == (0.491, 0.482, 0.447)


def test_another_strategy_drops_keys_of_the_arm_that_was_only_implied(tmp_path: Path) -> None:
    file = write(tmp_path, "encoder: {stem: small}\ndata: {image_size: 64}\nmethod: {masking: {num_blocks: 3}}")
    assert load_config(None, file).method.masking == MixedMasking(num_blocks=3)
    assert load_config(None, file, ["strategy=random"]).method.masking == RandomMasking()


def test_the_order_of_flags_does_not_matter() -> None:
    flags = ["strategy=random", "ratio=0.7", "depth=1", "source=folder", "train_split=t"]
    configs = {load_config("demo", overrides=list(order)).model_dump_json() for order in itertools.permutations(flags)}
    assert len(configs) == 1


def test_the_last_of_two_equal_flags_wins() -> None:
    assert load_config("demo", overrides=["depth=1", "depth=2"]).method.predictor.depth == 2


_names = st.text("abcd", min_size=1, max_size=3)


_trees = st.recursive(
    st.dictionaries(_names, st.integers(), min_size=1, max_size=3),
    lambda inner: st.dictionaries(_names, st.one_of(st.integers(), inner), min_size=1, max_size=3),
    max_leaves=8,
)


@given(tree=_trees)
def test_a_tree_is_the_merge_of_its_leaves(tree: dict[str, Any]) -> None:
    rebuilt: dict[str, Any] = {}
    for path, value in flat(tree).items():
        rebuilt = merge(rebuilt, nested(path, value))
    assert rebuilt == tree


@given(tree=_trees, over=_trees)
def test_merging_keeps_what_is_laid_over_and_changes_no_input(tree: dict[str, Any], over: dict[str, Any]) -> None:
    before = json.dumps([tree, over])
    merged = flat(merge(tree, over))
    assert {path: merged.get(path) for path in flat(over)} == flat(over)
    assert merge(over, over) == over
    assert json.dumps([tree, over]) == before


def test_differences_name_the_paths_and_both_values() -> None:
    one = {"a.x": 1, "a.y": 2, "gone": 3, "null": None}
    other = {"a.x": 1, "a.y": 5, "new": 4}
    assert differences(one, other) == [("a.y", 2, 5), ("gone", 3, "(none)"), ("new", "(none)", 4)]
    assert differences(one, other, absent="–")[1] == ("gone", 3, "–")
    assert differences(one, one) == []
