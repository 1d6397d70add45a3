"""The loop: options that change how a step is computed, collapse, and one golden loss curve."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import small_config
from torch import nn

import cnnjepa
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import TrialResult
from cnnjepa.storage.journal import Journal, NullJournal
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.state import _lay_as_parameters
from cnnjepa.training.step import train_step
from cnnjepa.training.throughput import ThroughputMeter

CPU = Processes(0, 1, torch.device("cpu"))
BRIEF = ("epochs=1", "warmup_epochs=0", "probe.every_epochs=0", "linear_epochs=1", "protocols=[held_out]")


def one_step(*overrides: str) -> tuple[float, dict[str, torch.Tensor]]:
    """(loss, gradients) of the first step on fixed images, in float64, or in bf16."""
    config = small_config("runtime.batch_size=8", *overrides)
    method = build_method(config)
    if config.runtime.precision == "float32":
        method.double()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=method.token.dtype)
    inputs = method.inputs((images,), torch.zeros(8), StepDraw(config.grid, torch.arange(8), 0, 0))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.0)
    kept: dict[str, torch.Tensor] = {}
    optimizer.register_step_pre_hook(
        lambda *_: kept.update({n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None})
    )
    loss = train_step(method, optimizer, inputs, config, CPU).loss
    return float(loss), kept


def test_backends_give_the_same_step() -> None:
    (loss, gradients), (expected, others) = one_step(), one_step("backend=masked")
    assert loss == pytest.approx(expected, rel=1e-12)
    scale = max(float(g.abs().max()) for g in others.values())
    assert all(float((gradients[name] - others[name]).abs().max()) < 1e-9 * scale for name in others)


def test_bf16_is_close_to_float32() -> None:
    assert one_step("precision=bf16")[0] == pytest.approx(one_step()[0], rel=0.02)


def test_clipping_bounds_the_gradient_norm() -> None:
    _, gradients = one_step("clip_norm=0.001")
    assert torch.stack([g.norm() for g in gradients.values()]).norm() == pytest.approx(0.001, rel=1e-3)


def test_fused_adamw_is_the_loop_over_tensors_and_a_loops_state_goes_on_as_a_loop() -> None:
    methods = [build_method(small_config()).double() for _ in range(2)]
    fused = build_optimizer(methods[0], small_config().optimizer)
    group = fused.param_groups[0]
    rates = {name: group[name] for name in ("lr", "betas", "weight_decay")}
    loop = torch.optim.AdamW([p for p in methods[1].parameters() if p.requires_grad], **rates, foreach=False)
    assert group["fused"]
    for step in range(5):
        for optimizer in (fused, loop):
            draw = torch.Generator().manual_seed(step)
            for p in optimizer.param_groups[0]["params"]:
                p.grad = torch.randn(p.shape, generator=draw, dtype=p.dtype)
            optimizer.step()
    for ours, theirs in zip(methods[0].parameters(), methods[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    fused.load_state_dict(loop.state_dict())
    assert not fused.param_groups[0]["fused"]


def test_moments_saved_in_another_memory_order_are_still_those_of_their_weights() -> None:
    weight = nn.Parameter(torch.randn(4, 3, 3, 3))
    turned = nn.Parameter(weight.detach().clone(memory_format=torch.channels_last))
    first, second = (torch.optim.AdamW([p], fused=True, lr=0.1) for p in (turned, weight))

    def step(optimizer: torch.optim.Optimizer, seed: int) -> None:
        p = optimizer.param_groups[0]["params"][0]
        drawn = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
        p.grad = torch.empty_like(p).copy_(drawn)
        optimizer.step()

    step(first, 0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    weight.data.copy_(turned)
    moments = second.state[weight]["exp_avg"]
    assert moments.stride() != weight.stride()  # as torch loads them
    _lay_as_parameters(second)
    assert second.state[weight]["exp_avg"].stride() == weight.stride()
    for optimizer in (first, second):
        step(optimizer, 1)
    torch.testing.assert_close(weight, turned)


def test_accumulation_averages_over_all_target_cells() -> None:
    """With frozen statistics (evaluation mode) the parts do not interact, so the split changes nothing."""
    config = small_config("runtime.batch_size=8")
    losses = []
    for parts in (1, 4):
        split = small_config("runtime.batch_size=8", f"accumulation={parts}")
        method = build_method(config).double().eval()
        images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        inputs = method.inputs((images,), torch.zeros(8), StepDraw(config.grid, torch.arange(8), 0, 0))
        assert len(set(inputs[2].flatten(1).sum(1).tolist())) > 1  # parts weigh differently
        optimizer = torch.optim.SGD([method.token], lr=1.0)
        losses.append((train_step(method, optimizer, inputs, split, CPU).loss, method.token.detach().clone()))
    assert losses[0][0] == pytest.approx(float(losses[1][0]), rel=1e-6)
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-6, atol=1e-12)


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_compile_gives_the_same_losses(tmp_path: Path) -> None:
    steps = ("epochs=1", "warmup_epochs=0", "train_images=32", "floors=false", "log_every_steps=1")
    plain = pretrain(small_config(*steps), tmp_path / "plain")
    compiled = pretrain(small_config(*steps, "compile=true"), tmp_path / "compiled")
    assert compiled.final_loss == pytest.approx(plain.final_loss, rel=1e-4)
    keys = torch.load(tmp_path / "compiled" / "checkpoints" / "last.pt", weights_only=True)["method"]
    assert not any("_orig_mod" in key for key in keys)


def test_a_seeded_run_gives_the_pinned_losses(tmp_path: Path) -> None:
    """Pins the whole chain from images to loss; recorded on torch 2.14.1, CPU. A change here needs a reason."""
    result = pretrain(small_config("floors=false", "log_every_steps=4"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses == pytest.approx(GOLDEN, rel=2e-3)
    assert result.final_loss == losses[-1]


GOLDEN = [0.670483, 0.613410, 0.578723]


def test_a_result_names_the_commits_that_trained_it_not_the_one_that_probed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = small_config()
    for commit, first_step in (("a", 0), ("b", 40), ("b", 40), ("c", 60), ("d", 60), ("e", 90)):
        folder.begin(config, {"commit": commit}, first_step)
    assert folder.trained_at(90) == "a, b, d"  # c was killed before a checkpoint, e only probed
    assert folder.trained_at(100) == "a, b, d, e"
    for commit, first_step in (("f", 30), ("g", 20)):  # back to an older checkpoint, and another
        folder.begin(config, {"commit": commit}, first_step)
    assert folder.trained_at(100) == "a, g"
    (folder.path / "sessions.jsonl").write_text('{"first_step": 0, "comm')  # cut off by a crash
    folder.begin(config, {"commit": "h"}, 50)
    assert folder.trained_at(100) == "h"
    (folder.path / "sessions.jsonl").unlink()
    assert folder.trained_at(100) == ""


@pytest.mark.medium
def test_a_run_folder_holds_what_is_promised(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(small_config("images_every_epochs=1"), run)
    names = {p.name for p in run.iterdir()}
    assert names == {
        ".lock", "config.yaml", "environment.json", "sessions.jsonl", "metrics.jsonl", "tensorboard", "checkpoints",
        "result.json",
    }  # fmt: skip
    assert TrialResult.model_validate_json((run / "result.json").read_bytes()) == result
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert {"step", "epoch", "loss", "lr", "ema", "images_per_s"} <= line.keys()
    environment = json.loads((run / "environment.json").read_text())
    assert result.software["trained_at"] == result.software["commit"] == environment["commit"]
    assert {"torch", "commit", "cpu", "threads", "world_size"} <= environment.keys()
    for protocol in ("published", "held_out"):
        figures = [
            getattr(probes, protocol) for probes in (result.probes, result.floors.untrained, result.floors.pixels)
        ]
        assert all(value is not None and 0 <= value <= 100 for f in figures for value in f.model_dump().values())
    assert result.cost and result.cost.flops_per_image > 0 and result.diagnostics

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert {"train/loss", "train/lr", "train/ema", "probe/knn_top1"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["images/image_context_target"]
    assert "_hparams_/experiment" in board.summary_metadata or "hparam/loss" in board.Tags()["scalars"]


@pytest.mark.medium
def test_the_loaded_encoder_is_the_target_encoder_and_plain_torchvision(tmp_path: Path) -> None:
    import torchvision

    run = tmp_path / "run"
    config = small_config(
        "arch=resnet18", "stages=4", "stem=imagenet", "width=1", "image_size=64", "strategy=random", "train_images=32",
        "epochs=1", "warmup_epochs=0", "val_images=32", "floors=false", "runtime.batch_size=8",
        "checkpoint_every_steps=100", "linear_epochs=1",
    )  # fmt: skip
    pretrain(config, run)
    encoder = cnnjepa.load_encoder(run)
    assert not encoder.training
    stock = torchvision.models.resnet18()
    missing, unexpected = stock.load_state_dict(encoder.state_dict(), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    images = torch.randn(2, 3, 64, 64)
    stock.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(encoder(images).mean((2, 3)), stock.eval()(images))
    other = cnnjepa.load_encoder(run, "context")
    assert not torch.equal(other.conv1.weight, encoder.conv1.weight)


@pytest.mark.medium
def test_a_collapsed_run_says_so_with_the_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that are the same for every image, as a collapsed encoder gives."""
    from cnnjepa.training import conclude as module

    original = module.assess

    def collapsed(network, *rest):  # type: ignore[no-untyped-def]
        constant = copy.deepcopy(network)
        for norm in constant.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                torch.nn.init.zeros_(norm.weight)
                torch.nn.init.ones_(norm.bias)
        return original(constant, *rest)

    monkeypatch.setattr(module, "assess", collapsed)
    result = pretrain(small_config("floors=false"), tmp_path / "run")
    assert result.status == "collapsed"
    assert result.diagnostics and "of their mean" in (result.diagnostics.collapse_evidence or "")


@pytest.mark.medium
def test_unreadable_images_are_skipped_counted_and_reported(tmp_path: Path) -> None:
    from runs import write_images

    folder = tmp_path / "images"
    write_images(folder)
    broken = sorted((folder / "train").rglob("*.png"))[3]
    broken.write_bytes(broken.read_bytes()[:100])
    for resident in ("always", "never"):
        settings = (f"resident={resident}", "on_error=skip", "workers=0", "train_images=null")
        result = pretrain(small_config(*settings, *BRIEF, "floors=false", data=folder), tmp_path / resident)
        assert len(result.skipped_images) == 1 and str(broken) in result.skipped_images[0]
    from cnnjepa.errors import ImageError

    with pytest.raises(ImageError, match=broken.name):
        pretrain(small_config("workers=2", "resident=never", "train_images=null", data=folder), tmp_path / "strict")


@pytest.mark.medium
def test_runs_that_share_a_folder_of_floors_measure_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnjepa.probes import assessment

    measured: list[str] = []
    for name in ("untrained_encoder", "pixel_embed"):
        monkeypatch.setattr(assessment, name, counted(getattr(assessment, name), measured))
    floors = tmp_path / "floors"
    results = [
        pretrain(small_config(*BRIEF, *more), tmp_path / str(place), floors=floors)
        for place, more in enumerate(([], ["predictor.depth=1"], ["seed=1"], ["knn_k=3"]))
    ]
    assert measured == ["untrained_encoder", "pixel_embed", "untrained_encoder", "untrained_encoder", "pixel_embed"]
    assert results[0].floors == results[1].floors and results[0].floors.pixels == results[2].floors.pixels
    assert len(list(floors.iterdir())) == 5
    next(floors.glob("pixels-*")).write_text("{")  # a damaged file counts as none
    alone = pretrain(small_config(*BRIEF, "knn_k=3"), tmp_path / "alone")
    assert alone.floors == results[3].floors


def counted(original: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """The same function, its calls noted by name."""

    def watched(*args: Any) -> Any:
        calls.append(original.__name__)
        return original(*args)

    return watched


def test_the_throughput_meter_counts_the_steps_since_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(step=3, train_seconds=10.0)
    meter = ThroughputMeter(state, images_per_step=8)  # type: ignore[arg-type]
    state.step, state.train_seconds = 8, 12.0
    assert meter.read() == 20.0
    state.step, state.train_seconds = 10, 20.0
    meter.restart()  # the two steps before a probe belong to no interval
    state.step, state.train_seconds = 11, 20.5
    assert meter.read() == 16.0


def test_a_null_journal_offers_what_a_journal_does() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(NullJournal) == public(Journal) >= {"write", "images", "sync", "close"}
