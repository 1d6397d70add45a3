"""LiDAR and the loss on held-out images, measured on real encoders and methods."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import small_config
from torch import Tensor, nn

from cnnjepa.data import open_data
from cnnjepa.data.batches import Normalizer
from cnnjepa.methods import Method, StepDraw, StepLoss, build_method
from cnnjepa.methods.collectives import this_process_alone, world
from cnnjepa.probes.diagnostics import lidar
from cnnjepa.probes.features import encoder_embed
from cnnjepa.probes.label_free import _batches, heldout_loss, lidar_of
from cnnjepa.schemas import PretrainConfig, View, load_config
from cnnjepa.schemas.augmentation import AugmentationConfig
from cnnjepa.schemas.views import PLAIN

CPU = torch.device("cpu")
PRESETS = ["demo", *(f"demo-{name}" for name in ("simclr", "byol", "vicreg", "lejepa", "spark"))]


def tiny(preset: str = "smoke", *overrides: str) -> PretrainConfig:
    settings = ["data.train_images=64", "data.val_images=48", "runtime.device=cpu", "encoder.width=0.125"]
    return load_config(preset, overrides=[*settings, *overrides])


def test_lidar_of_is_lidar_of_ten_crops_per_image() -> None:
    config = tiny()
    images = open_data(config.data).val
    network = build_method(config).probed_encoder("context").eval()
    views = (View(PLAIN, 32, AugmentationConfig()),) * 10
    normalize, found = Normalizer(config.data, CPU), []
    with torch.no_grad():
        for batch in _batches(images, config, views, CPU, 20, 16):
            assert batch.views[0].shape == (10, 3, 32, 32) and not torch.equal(batch.views[0], batch.views[1])
            found.append(torch.stack([network(normalize(view)).mean((2, 3)) for view in batch.views], 1))
    expected = lidar(torch.cat(found))
    embed = encoder_embed(network, config, CPU)
    assert lidar_of(embed, config, images, CPU, 20) == pytest.approx(expected, rel=1e-5)
    other_seed = tiny("smoke", "runtime.seed=7", "data.augmentation.crop_scale=[0.9,1.0]")
    assert lidar_of(embed, other_seed, images, CPU, 20) == lidar_of(embed, config, images, CPU, 20)


def test_batches_use_every_image_once_as_far_as_batches_are_equal() -> None:
    config = tiny()
    images = open_data(config.data).val
    whole = View(PLAIN, 32, AugmentationConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0))
    for count, most, sizes in ((48, 16, [16] * 3), (48, 20, [16] * 3), (47, 16, [15] * 3), (5, 16, [5])):
        batches = [batch.pixels for batch in _batches(images, config, (whole,), CPU, count, most)]
        assert [batch.shape[0] for batch in batches] == sizes
        seen = torch.cat(batches).flatten(1).round()
        assert seen.unique(dim=0).shape[0] == sum(sizes)
        assert all((images.load(i).flatten().float() == seen).all(1).any() for i in (0,))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_held_out_loss_is_the_methods_own_over_all_images(preset: str) -> None:
    """With one batch it is the method's loss in evaluation mode, and the method is not changed by it."""
    config = tiny(preset)
    images = open_data(config.data).val
    method = build_method(config).train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = heldout_loss(method, config, images, CPU, 40)
    assert all(module.training for module in method.modules())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    (batch,) = _batches(images, config, config.views, CPU, 40, 64)
    normalize = Normalizer(config.data, CPU)
    draw = StepDraw(config.grid, torch.arange(40), 0, 0)
    with torch.no_grad():
        inputs = method.inputs(tuple(normalize(view) for view in batch.views), batch.labels, draw)
        assert found == pytest.approx(float(method.eval()(*inputs).mean), rel=1e-5)
    assert heldout_loss(method, config, images, CPU, 40) == found


def test_losses_of_batches_are_averaged_over_their_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnjepa.probes import label_free

    config = tiny()
    images = open_data(config.data).val
    method = build_method(config)
    monkeypatch.setattr(label_free, "_BATCH", 16)
    total = terms = 0.0
    normalize = Normalizer(config.data, CPU)
    with torch.no_grad():
        method.eval()
        for step, batch in enumerate(_batches(images, config, config.views, CPU, 48, 16)):
            draw = StepDraw(config.grid, torch.arange(16), 0, step)
            loss: StepLoss = method(*method.inputs((normalize(batch.pixels),), batch.labels, draw))
            total, terms = total + float(loss.total), terms + float(loss.weight)
    assert heldout_loss(method, config, images, CPU, 1000) == pytest.approx(total / terms, rel=1e-6)


class Queue(Method):
    """Keeps the mean of every batch that it sees, in a new tensor and in place, and returns a chosen loss."""

    loss = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm1d(1).eval()
        self.register_buffer("replaced", torch.zeros(1))
        self.register_buffer("changed", torch.zeros(1))

    @classmethod
    def build(cls, section: Any, backbone: Any, config: PretrainConfig, classes: int) -> Any:
        raise AssertionError

    def forward(self, *inputs: Tensor) -> StepLoss:
        assert not self.training and world() == (0, 1)
        self.replaced = inputs[0].mean().view(1)
        self.changed += 1
        return StepLoss(torch.tensor(self.loss * inputs[0].shape[0]), torch.tensor(float(inputs[0].shape[0])))

    def passes(self, config: PretrainConfig) -> list[Any]:
        return []


def test_buffers_and_modes_are_restored_and_a_loss_that_is_not_finite_is_none() -> None:
    config = tiny()
    images = open_data(config.data).val
    method = Queue()
    method.train()
    method.frozen.eval()
    assert heldout_loss(method, config, images, CPU, 48) == pytest.approx(2)
    assert float(method.replaced) == float(method.changed) == 0
    assert method.training and not method.frozen.training
    method.loss = float("inf")
    assert heldout_loss(method, config, images, CPU, 48) is None


def test_methods_without_a_loss_of_their_own_have_none() -> None:
    for overrides in (("method.name=supervised",), ("method.name=random_init",)):
        config = tiny("smoke", *overrides)
        data = open_data(config.data)
        assert heldout_loss(build_method(config, data.classes), config, data.val, CPU, 48) is None
    config = tiny("demo-simclr")
    one = dataclasses.replace(open_data(config.data)).val
    from cnnjepa.data.resident import subset

    assert heldout_loss(build_method(config), config, subset(one, torch.tensor([3])), CPU, 48) is None


def test_a_process_computes_losses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 0 measures while the others wait: a gathering loss would wait for them forever."""
    import torch.distributed as dist

    from cnnjepa.methods.collectives import gathered, summed

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    assert world() == (0, 2)
    x = torch.ones(3)
    with this_process_alone():
        assert world() == (0, 1) and gathered(x) is x and summed(x) is x
    assert world() == (0, 2)


@pytest.mark.medium
def test_results_and_online_probes_hold_the_figures_and_a_probe_measures_them_again(tmp_path: Path) -> None:
    import json

    from cnnjepa.training.pretrain import pretrain
    from cnnjepa.training.reprobe import reprobe

    config = small_config("floors=false", "epochs=2")
    result = pretrain(config, tmp_path / "run")
    health = result.diagnostics
    assert health and health.lidar and health.alpha_req and health.heldout_loss
    assert 1 < health.lidar <= 10 and health.heldout_loss > 0  # 11 images
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (online,) = [line for line in lines if line["kind"] == "probe"]
    assert {"rankme", "lidar", "alpha_req", "feature_std", "heldout_loss", "knn_top1"} <= online.keys()
    again = reprobe(tmp_path / "run")
    assert again.result.diagnostics == health and "has the same figures" in again.note
    path = tmp_path / "run" / "result.json"
    old = json.loads(path.read_text())
    for name in ("lidar", "alpha_req", "heldout_loss"):
        del old["diagnostics"][name]
    path.write_text(json.dumps(old))
    assert "has the same figures" in reprobe(tmp_path / "run").note  # as far as the earlier version measured them
