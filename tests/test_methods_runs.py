"""Other methods through the loop: every one to a result, resumed bit for bit, and what is refused."""

import json
import signal
from pathlib import Path

import pytest
import torch
from runs import assert_same_run, in_process, small_config, train_alone, train_and_die

import cnnjepa
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.step import train_step

HEADS = {"simclr": ("hidden_dim=32", "output_dim=16"), "byol": ("hidden_dim=32", "output_dim=16"),
         "vicreg": ("hidden_dim=32", "output_dim=32"),
         "lejepa": ("hidden_dim=32", "output_dim=8", "slices=16", "local_views=2"),
         "ijepa": ("masking.min_keep=4", "predictor.depth=2", "predictor.dim=48")}  # fmt: skip
VIT = ("arch=vit_tiny", "patch_size=4", "encoder.blocks=2")
LARS = ("optimizer.name=lars", "optimizer.lr=0.3", "weight_decay_end=1e-5")


def config_of(name: str, *more: str) -> PretrainConfig:
    heads = tuple(f"method.{text}" for text in HEADS.get(name, ()))
    return small_config(f"method.name={name}", *heads, *(VIT if name == "ijepa" else ()), *more)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg", "supervised", "lejepa", "spark", "ijepa"])
def test_a_run_ends_with_a_result_and_an_encoder(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(config_of(name, "floors=false", "images_every_epochs=1"), run)
    probed = "target" if name == "ijepa" else "context"
    assert (result.method, result.status, result.probed_encoder) == (name, "finished", probed)
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["kind"] == "train")
    assert ("ema" in line) == (name in ("byol", "ijepa"))
    assert {"vicreg": "covariance", "supervised": "accuracy"}.get(name, "loss") in line
    encoder = cnnjepa.load_encoder(run)
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["method"]
    if name == "ijepa":
        assert torch.equal(encoder.norm.weight, state["target_encoder.norm.weight"])  # type: ignore[union-attr]
        return
    where = "context_encoder.network" if name == "spark" else "context_encoder"
    assert torch.equal(encoder.conv1.weight, state[f"{where}.conv1.weight"])
    if name == "byol":
        assert torch.equal(cnnjepa.load_encoder(run, "target").conv1.weight, state["target_encoder.conv1.weight"])
    else:
        with pytest.raises(ConfigError, match="has no target encoder"):
            cnnjepa.load_encoder(run, "target")


@pytest.mark.medium
def test_random_init_trains_nothing_and_is_the_untrained_floor(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(config_of("random_init"), run)
    assert result.status == "finished" and result.epochs == 0 and result.final_loss is None
    assert result.probes == result.floors.untrained
    assert result.cost and result.cost.train_seconds == 0 and result.cost.flops_per_image == 0
    start = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert start["step"] == 0
    (run / "result.json").unlink()
    assert pretrain(config_of("random_init"), run, resume=True).lasting() == result.lasting()
    from cnnjepa.training.reprobe import reprobe

    again = reprobe(run)
    assert again.written is None and "result.json has the same figures" in again.note
    assert again.result.lasting() == result.lasting()


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "moment", "more"),
    [("byol", 25, ()), ("simclr", 60, LARS), ("supervised", 25, ("clip_norm=1",)), ("lejepa", 60, ())],
)
def test_a_run_killed_and_resumed_ends_the_same(name: str, moment: int, more: tuple[str, ...], tmp_path: Path) -> None:
    config = config_of(name, "floors=false", "epochs=2", *more)
    assert in_process(train_alone, config, tmp_path / "alone") == 0
    assert in_process(train_and_die, config, tmp_path / "run", moment, None) == -signal.SIGKILL
    assert in_process(train_alone, config, tmp_path / "run", True) == 0
    assert_same_run(tmp_path / "run", tmp_path / "alone")


@pytest.mark.medium
def test_probing_a_run_again_works_for_methods_with_heads_of_the_datas_size(tmp_path: Path) -> None:
    from cnnjepa.training.reprobe import reprobe

    run = tmp_path / "run"
    first = pretrain(config_of("supervised", "floors=false"), run)
    (run / "result.json").unlink()
    again = reprobe(run)
    assert again.written == run / "result.json" and again.result.lasting() == first.lasting()


def test_accumulation_of_a_contrastive_loss_is_warned_of() -> None:
    (warning,) = config_of("simclr", "accumulation=2").warnings()
    assert "compares the images of one part only, 8 at a time" in warning


def test_masks_of_a_method_without_them_are_refused(tmp_path: Path) -> None:
    from cnnjepa.ablations.report.figures.mask_samples import draw_picture

    with pytest.raises(ConfigError, match="its training has no masks of cells to draw; cnnjepa and spark"):
        draw_picture(config_of("simclr"), tmp_path / "m.png", 1)


@pytest.mark.medium
@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg", "supervised", "lejepa", "spark", "ijepa"])
def test_a_bf16_step_is_close_to_a_float32_one(name: str) -> None:
    losses = []
    for precision in ("float32", "bf16"):
        config = config_of(name, f"precision={precision}", "runtime.batch_size=16")
        method = build_method(config)
        g = torch.Generator().manual_seed(0)
        views = tuple(torch.randn(16, 3, view.size, view.size, generator=g) for view in config.views)
        inputs = method.inputs(views, torch.arange(16) % 4, StepDraw(config.grid, torch.arange(16), 0, 0))
        optimizer = build_optimizer(method, config.optimizer)
        stepped = train_step(method, optimizer, inputs, config, Processes(0, 1, torch.device("cpu")))
        assert stepped.loss.dtype == torch.float32
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in method.parameters())
        losses.append(float(stepped.loss))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("name", ["cnnjepa", "simclr", "byol", "vicreg", "lejepa", "spark", "supervised"])
def test_batches_too_small_for_batch_norm_and_comparisons_are_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"runtime\.batch_size: 1 is too few .* NT-Xent no negative, .* at least 2 per process"
    ):
        small_config(f"method.name={name}", "runtime.batch_size=1")
    with pytest.raises(ConfigError, match=r"into parts of at least 2 images, for batch norm .* must be one of 1, 2$"):
        small_config(f"method.name={name}", "runtime.batch_size=4", "accumulation=4")


@pytest.mark.parametrize("name", ["cnnjepa", "simclr", "byol", "vicreg", "lejepa", "spark", "supervised", "ijepa"])
def test_the_least_legal_batch_makes_a_step(name: str) -> None:
    """Two parts of two images; for masked methods on a grid of 2x2 with one visible cell each, so that the deepest
    batch norm has two rows."""
    few = ("stem=imagenet", "stages=4", "image_size=64", "method.masking.ratio=0.75")
    masked = {"cnnjepa": ("strategy=random", *few), "spark": few}.get(name, ())
    config = config_of(name, "runtime.batch_size=4", "accumulation=2", *masked)
    method = build_method(config).train()
    views = tuple(torch.randn(4, 3, view.size, view.size) for view in config.views)
    inputs = method.inputs(views, torch.arange(4) % 2, StepDraw(config.grid, torch.arange(4), 0, 0))
    optimizer = build_optimizer(method, config.optimizer)
    stepped = train_step(method, optimizer, inputs, config, Processes(0, 1, torch.device("cpu")))
    assert stepped.loss.isfinite() and all(p.isfinite().all() for p in method.parameters())


def test_losses_of_one_image_are_refused_where_they_are_called() -> None:
    from cnnjepa.methods.lejepa import epps_pulley
    from cnnjepa.methods.simclr import nt_xent
    from cnnjepa.methods.vicreg import vicreg_terms

    one = torch.randn(1, 8)
    for loss in (lambda: nt_xent(one, one, 0.1), lambda: vicreg_terms(one, one), lambda: epps_pulley(one, 17)):
        with pytest.raises(ValueError, match=r"2 (images )?or more"):
            loss()
