"""The JSON Schema of config files accepts what `--config` reads, and names what it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnnjepa.schemas import load_config, preset_names
from cnnjepa.schemas.json_schema import config_file_schema
from cnnjepa.schemas.load import preset_text
from cnnjepa.schemas.overrides import merge, nested
from cnnjepa.schemas.yaml_text import read_yaml, write_yaml

jsonschema = pytest.importorskip("jsonschema")

RESULTS = Path(__file__).resolve().parents[1] / "results"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = config_file_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def complaints(validator: Any, tree: Any) -> list[str]:
    return [error.message for error in validator.iter_errors(tree)]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_accepted_as_a_file_and_as_a_run_writes_it(name: str, validator: Any) -> None:
    assert not complaints(validator, read_yaml(preset_text(name), name))
    assert not complaints(validator, read_yaml(write_yaml(load_config(name).model_dump(mode="json")), name))


def test_every_kept_runs_config_is_accepted(validator: Any) -> None:
    kept = sorted(RESULTS.glob("*/studies/*/trials.jsonl"))
    configs = [json.loads(line)["trial"]["config"] for path in kept for line in path.read_text().splitlines()]
    assert len(configs) > 50
    for config in configs:
        assert not complaints(validator, read_yaml(write_yaml(config), "config.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "probe: {floors: untrained, protocols: held_out, held_out_lrs: 0.01}",
        "probe: {floors: [pixels]}\nruntime: {keep_epochs: 2}",
        "optimizer: {momentum: 0.8}",  # a part of a file laid over a preset that has LARS
        "method: {masking: {ratio: 0.5}}",
        "method: {name: cnnjepa, masking: {strategy: block, scale: [0.5, 0.6]}}",
        "extends: tiny64\nencoder: {arch: custom, module: 'mine:Net', total_stride: 4}",
        "data: {source: folder, path: ~/d}",
        "method: {name: 'mine.methods:Own', temperature: 0.1, masking: {strategy: 'mine:Rings', rings: 3}}",
        "method: {masking: {strategy: 'mine:Rings', rings: 3}}",
        "encoder: {arch: 'mine:Net'}\ndata: {source: 'mine:Images', image_size: 64}",
        "runtime: {threads: null, batch_size: 64.0}",
    ],
)
def test_parts_of_a_config_and_single_values_are_accepted(text: str, validator: Any) -> None:
    assert not complaints(validator, read_yaml(text, "file"))


@pytest.mark.parametrize(
    "text",
    [
        "extends: nothing",
        "runtim: {epochs: 3}",
        "runtime: {epochs: '3'}",
        "runtime: {epochs: 0}",
        "runtime: {epochs: 2.5}",
        "runtime: {compile: yes}",
        "runtime: {keep_epochs: [a]}",
        "optimizer: {name: adam}",
        "optimizer: {name: 'mine:Sgd'}",
        "method: {name: 'mine methods:Own'}",
        "optimizer: {name: adamw, momentum: 0.9}",
        "optimizer: {lr: fast}",
        "optimizer: {lrr: 0.1}",
        "method: {masking: {strategy: random, num_blocks: 4}}",
        "method: {name: byol, predictor: {depth: 2}}",
        "method: {predictor: {depth: two}}",
        "encoder: {arch: resnet19}",
        "encoder: {arch: vit_tiny, stem: half}",
        "encoder: {arch: custom, total_stride: 4}",
        "data: {mean: median}",
        "data: {range: [0.1, 0.2, 0.3]}",
        "data: {source: folder, train_split: 2012}",
        "probe: {floors: random}",
        "probe: {protocols: []}",
        "probe: 3",
    ],
)
def test_wrong_values_are_rejected(text: str, validator: Any) -> None:
    assert complaints(validator, read_yaml(text, "file"))


def test_what_the_schema_rejects_no_run_could_have(validator: Any) -> None:
    """Every field of a full config, with values of other kinds."""
    from cnnjepa.schemas import ConfigError, PretrainConfig
    from cnnjepa.schemas.overrides import flat

    base = load_config("smoke").model_dump(mode="json")
    for path in flat(base):
        for value in ("words", True, {"a": 1}):
            try:
                changed = merge(base, nested(path, value))
            except ConfigError:  # fields of a metric that the config does not have
                assert path == "probe.metrics"
                continue
            if complaints(validator, changed):
                with pytest.raises((ConfigError, ValueError)):
                    PretrainConfig.model_validate(changed)
