"""The result file of a trial."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cnnjepa.schemas import (
    Cost,
    Probes,
    TrialResult,
)
from cnnjepa.schemas.fields import arms
from cnnjepa.schemas.overrides import flat


def result(**volatile: Any) -> TrialResult:
    return TrialResult(
        pretrain_hash="a",
        probe_hash="b",
        method="cnnjepa",
        encoder="resnet18",
        dataset="synthetic-32",
        seed=0,
        status="finished",
        final_loss=0.25,
        skipped_images=("x.jpg",),
        **volatile,
    )


def cost(seconds: float) -> Cost:
    return Cost(
        encoder_params=1,
        predictor_params=2,
        flops_per_image=3,
        train_seconds=seconds,
        gpu_hours=0,
        images_per_s=seconds,
        peak_memory_bytes=4,
    )


def test_two_equal_runs_share_everything_but_the_volatile_fields() -> None:
    one = result(cost=cost(1.0), software={"host": "a"}, started="2020", finished="2021")
    two = result(cost=cost(2.0), software={"host": "b"}, started="2030", finished="2031")
    assert one != two
    assert one.lasting() == two.lasting()
    assert set(TrialResult.model_fields) - set(one.lasting()) == {
        "cost",
        "software",
        "probe_software",
        "started",
        "finished",
        "final_loss",  # a mean over the logging interval, which is free to change
        "log_tail",
    }
    assert one.lasting() != result().model_copy(update={"epochs": 7}).lasting()


def test_a_result_survives_json_and_refuses_what_it_does_not_know() -> None:
    one = result(cost=cost(1.0), probes=Probes())
    assert TrialResult.model_validate_json(one.model_dump_json()) == one
    with pytest.raises(ValidationError):
        TrialResult.model_validate({**one.model_dump(), "accuracy": 0.0})
    with pytest.raises(ValidationError):
        TrialResult.model_validate({**one.model_dump(), "final_loss": float("nan")})


def test_the_contracts_names_stand_in_the_result() -> None:
    """Scripts and people read them; renaming one breaks both."""
    names = flat(json.loads(json.dumps(_names_of(TrialResult))))
    for protocol in ("published", "held_out"):
        for figure in ("linear_top1", "linear_top5", "knn_top1", "knn_top5"):
            assert f"probes.{protocol}.{figure}" in names
            assert f"floors.untrained.{protocol}.{figure}" in names
            assert f"floors.pixels.{protocol}.{figure}" in names
    for path in (
        "diagnostics.rankme",
        "diagnostics.feature_std",
        "cost.encoder_params",
        "cost.predictor_params",
        "cost.flops_per_image",
        "cost.train_seconds",
        "cost.gpu_hours",
        "cost.images_per_s",
        "cost.peak_memory_bytes",
        "pretrain_hash",
        "probe_hash",
        "method",
        "encoder",
        "dataset",
        "seed",
        "status",
        "error",
        "software",
        "started",
        "finished",
    ):
        assert path in names


def _names_of(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: _names_of(inner[0]) if (inner := arms(info.annotation)) else 0
        for name, info in model.model_fields.items()
    }
