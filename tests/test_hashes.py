"""The hashes that name a run follow exactly the fields that change its numbers."""

from typing import Literal, get_args, get_origin

import pytest
from configs import resolved
from pydantic import BaseModel

from cnnjepa.schemas import (
    PretrainConfig,
    load_config,
    pretrain_hash,
    probe_hash,
)
from cnnjepa.schemas.fields import ConfigField, config_fields
from cnnjepa.schemas.overrides import flat, merge, nested


@pytest.mark.parametrize("section", ["runtime.device", "data.resident"])
def test_a_config_with_auto_left_cannot_be_hashed(section: str) -> None:
    config = load_config(
        "smoke", overrides=[f for f in ("device=cpu", "resident=always") if f.split("=")[0] not in section]
    )
    with pytest.raises(ValueError, match=section):
        pretrain_hash(config, "images", 1)


def test_the_hash_is_a_full_sha256() -> None:
    assert set(pretrain_hash(resolved(), "images", 1)) <= set("0123456789abcdef")
    assert len(pretrain_hash(resolved(), "images", 1)) == len(probe_hash(resolved())) == 64


def test_images_and_world_size_change_the_hash() -> None:
    hashes = {pretrain_hash(resolved(), images, world) for images in ("a", "b") for world in (1, 2, 4)}
    assert len(hashes) == 6


def test_two_processes_of_half_the_batch_are_another_run() -> None:
    """Batch-norm statistics are a process's own."""
    assert pretrain_hash(resolved("runtime.batch_size=32"), "a", 2) != pretrain_hash(
        resolved("runtime.batch_size=64"), "a", 1
    )


# A legal value other than the one in force, where it cannot be told from the type.
_OTHER = {
    "method.predictor.kernel_size": 5,
    "method.predictor.projection_dim": 64,
    "method.masking.scale": [0.16, 0.2],
    "method.masking.aspect": [0.75, 1.4],
    "method.ema.end": 0.999,
    "encoder.width": 0.25,
    "encoder.stages": 4,
    "data.image_size": 192,
    "data.path": "elsewhere",
    "data.train_images": 7,
    "data.val_images": 7,
    "data.augmentation.crop_scale": [0.3, 1.0],
    "data.augmentation.crop_ratio": [0.8, 1.2],
    "data.mean": [0.1, 0.2, 0.3],
    "data.std": [0.1, 0.2, 0.3],
    "data.range": [0.1, 0.9],
    "data.augmentation.vertical_flip": 0.5,
    "data.augmentation.quarter_turns": 0.5,
    "optimizer.betas": [0.8, 0.9],
    "optimizer.clip_norm": 1.0,
    "optimizer.lr_at_batch": [0.5, 7],
    "runtime.batch_size": 66,
    "runtime.threads": 3,
    "runtime.keep_epochs": [1],
    "runtime.device": "cuda",
    "data.resident": "never",
    "runtime.accumulation": 2,
    "runtime.cuda_graphs": True,
    "runtime.precision": "bf16",
    "probe.protocols": ["published"],
    "method.view.blur_sigma": [0.2, 1.0],
    "method.first_view.blur_sigma": [0.2, 1.0],
    "method.second_view.blur_sigma": [0.2, 1.0],
    "method.view.solarise": 0.3,
    "method.first_view.solarise": 0.3,
    "optimizer.weight_decay_end": 0.1,
    "optimizer.excluded": ["bias"],
    "schedule.warmup_start_factor": 0.2,
    "probe.held_out_lrs": [0.5],
    "probe.held_out_ks": [3],
    "probe.resize": 300,
    "probe.metrics": ["class_means"],
    "probe.data": ["elsewhere"],
    "probe.data_fingerprints": ["other"],
    "probe.held_out_groups": "other",
    "data.labels": "none",
    "data.groups": 1,
}


# Where images lie and whether they may be fetched says nothing about what they are; their fingerprint does.
_PLACES = {"data.path", "data.download"}


# What changes no number, and what the fingerprint of the images answers for.
_NOT_HASHED = {
    "data.groups",
    "data.labels",
    "data.on_error",
    "data.resident_limit_gib",
    "data.train_file",
    "data.train_split",
    "data.val_file",
    "data.val_fraction",
    "data.val_seed",
    "data.val_split",
    "optimizer.lr_at_batch",
    "probe.data",
    "runtime.checkpoint_every_steps",
    "runtime.images_every_epochs",
    "runtime.keep_epochs",
    "runtime.log_every_steps",
    "runtime.threads",
    "runtime.workers",
}
# Weights and runs from elsewhere, which must exist: test_warm_start.py and test_continued_runs.py.
_STARTS = {
    "encoder.init", "encoder.init_encoder", "encoder.init_fingerprint", "runtime.continues", "runtime.continues_hash",
}  # fmt: skip
# Probe settings that decide what is trained, and those on which no figure of a result depends.
_TRAINED_ON = {
    "random_init": ("probe.resize",),
    "supervised": ("probe.held_out_fraction", "probe.split_seed", "probe.held_out_groups"),
}


_NO_FIGURE = ("probe.every_epochs", "probe.online_images", "probe.feature_batch_size", "probe.data")


def changed(config: PretrainConfig, field: ConfigField) -> PretrainConfig | None:
    """`config` with another legal value of `field`; None for a choice among one."""
    if field.path in _STARTS:
        return None
    tree = config.model_dump(mode="json")
    now, annotation = flat(tree)[field.path], field.info.annotation
    if field.path in ("data.channels", "data.dtype") and config.data.source == "synthetic":
        return None  # drawn in 8-bit RGB
    if field.path == "probe.encoder":  # `auto` is one of the two, and not every method has both
        both = ["target", "context"] if hasattr(config.method, "ema") else []
        other = next((encoder for encoder in both if encoder != config.probed_encoder), None)
    elif field.path in _OTHER:
        other = _OTHER[field.path]
    elif get_origin(annotation) is Literal:
        others = [value for value in get_args(annotation) if value not in (now, "auto")]
        other = others[0] if others else None
    elif field.path == "data.channels":
        return PretrainConfig.model_validate(
            merge(tree, {"data": {"channels": 4, "mean": [0.5] * 4, "std": [0.5] * 4}})
        )
    else:
        other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 0.5, str: lambda v: v + "x"}[
            type(now)
        ](now)
    return None if other is None else PretrainConfig.model_validate(merge(tree, nested(field.path, other)))


def parts(section: BaseModel) -> set[type[BaseModel]]:
    """The classes of a section and of everything in it."""
    inner = [value for name in type(section).model_fields if isinstance(value := getattr(section, name), BaseModel)]
    return {type(section)}.union(*(parts(value) for value in inner))


def assert_hashes_follow_the_numbers(config: PretrainConfig) -> int:
    """Changes every field in turn; gives how many."""
    in_force, looked_at = parts(config), 0
    for field in config_fields():
        if field.owner not in in_force:
            continue
        other = changed(config, field)
        if other is None or field.path.endswith((".strategy", ".source")):
            continue
        looked_at += 1
        same = pretrain_hash(config, "images", 1) == pretrain_hash(other, "images", 1)
        numbers_stay = (
            field.path in _PLACES
            or (field.path.startswith("probe.") and field.path not in _TRAINED_ON.get(config.method.name, ()))
            or field.path in _NOT_HASHED
        )
        assert same == numbers_stay, field.path
        judged_alike = field.path in _NO_FIGURE or (
            not field.path.startswith("probe.") and field.path != "runtime.precision"
        )
        assert (probe_hash(config) == probe_hash(other)) == judged_alike, field.path
    return looked_at


@pytest.mark.medium
@pytest.mark.parametrize("source", ["folder", "hdf5", "torchvision", "synthetic"])
def test_exactly_the_fields_that_change_the_numbers_change_the_pretrain_hash(source: str) -> None:
    assert assert_hashes_follow_the_numbers(resolved(f"source={source}")) > 60


@pytest.mark.parametrize("method", ["simclr", "byol", "vicreg"])
def test_the_same_holds_for_other_methods_and_lars(method: str) -> None:
    config = resolved(f"method.name={method}", "optimizer.name=lars", "probe.floors=false")
    assert assert_hashes_follow_the_numbers(config) > 60


@pytest.mark.parametrize("method", ["random_init", "supervised"])
def test_probe_settings_that_decide_what_is_trained_are_in_the_pretrain_hash(method: str) -> None:
    assert assert_hashes_follow_the_numbers(resolved(f"method.name={method}")) > 40


def test_random_init_without_a_resize_keeps_its_name_and_probes_keep_theirs_at_the_defaults() -> None:
    """Written down before these settings moved into and out of the hashes."""
    overrides = ["device=cpu", "resident=always", "method.name=random_init"]
    smoke = load_config("smoke", overrides=overrides)
    before = "8f22d561743845b0f02f217b395db89acb3ba1bac4b5aa810c6b89699153a670"
    assert pretrain_hash(smoke, "images", 1) == before
    other = load_config("smoke", overrides=[*overrides, "probe.resize=40"])
    assert pretrain_hash(other, "images", 1).startswith("c9d587459feb")
    assert probe_hash(load_config("demo", overrides=["every_epochs=0"])).startswith("030e981c19e5")


def test_runs_from_before_there_were_other_methods_keep_their_names() -> None:
    """Written down before `method` and `optimizer` became unions; a checkpoint of then must still be resumed."""
    before = {
        "demo": ("d0c2574497e48f50c6b2ca6fa85e8c452ea52d3f9192a07492f30f034cdc93a1", "030e981c19e5"),
        "in100": ("3d16fcb42bbff2b2ea0be251d0c9ab8b1a98e3c179618b7b9f1232b19cfa1bab", "94cf80e74c3c"),
        "tiny64": ("a6d7ed6fc585cc213e77e9814fd3a4df86bd468d1caadd92fdd6481fc2809278", "a5b1533ea25d"),
    }
    for preset, (pretrained, probed) in before.items():
        then = ["optimizer.lr=0.006"] if preset == "tiny64" else []  # its rate of then
        config = load_config(preset, overrides=["device=cpu", "resident=always", *then])
        assert pretrain_hash(config, "images", 1) == pretrained
        assert probe_hash(config).startswith(probed)


def test_the_backend_of_the_run_is_part_of_its_name() -> None:
    assert pretrain_hash(resolved("backend=masked"), "a", 1) != pretrain_hash(resolved("backend=packed"), "a", 1)
