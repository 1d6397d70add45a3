"""Every figure that the authors' released code computes (tests/released_code.json), from the same weights and images.

The figures come from kaland313/CNN-JEPA at f1b8135 with timm 0.9.2 and lightly 1.4.21, in float64 on a CPU. Weights
and images follow a rule in exact integers, so no random generator and none of that code is needed here. A tensor is
recorded as [L2 norm, first three elements], a feature map as [L2 norm, sum], running statistics as [L2 of the means,
L2 of the variances].
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnjepa.masks import Masks, sample_masks
from cnnjepa.methods import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.schemas import MultiBlockMasking, RandomMasking, load_config
from cnnjepa.schemas.block_sizes import block_sizes, expected_targets, target_rates
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.step import train_step

RELEASED: dict[str, Any] = json.loads((Path(__file__).parent / "released_code.json").read_text())
MODELS = [
    "resnet18_64",
    pytest.param("resnet18_224", marks=pytest.mark.slow),
    pytest.param("resnet50_224", marks=pytest.mark.slow),
]
BACKENDS = ["packed", "masked"]
MASKS = ["random", "multi_block", "uneven"]
LAST_NORM = {"resnet18": "bn2", "resnet50": "bn3"}

VALUE, GRADIENT, STEP = 1e-10, 1e-10, 1e-8  # relative tolerances


def u(shape: tuple[int, ...], number: int) -> np.ndarray[Any, Any]:
    """Values in [-1, 1) of the tensor with this number: exact integer arithmetic, then one division."""
    x = np.arange(1, np.prod(shape) + 1, dtype=np.int64) + (number << 23)
    for _ in range(2):
        x = (x ^ (x >> 16)) * 73244475 % 2**32
    return ((x ^ (x >> 16)) / 2**31 - 1).reshape(shape)


@torch.no_grad()
def fill(parameter: Tensor, name: str, number: int, ends_branch: bool = False) -> None:
    values = u(tuple(parameter.shape), number)
    if parameter.dim() == 4:
        values = np.sqrt(6 / np.prod(parameter.shape[1:])) * values
    elif name.endswith("bias"):
        values = 0.1 * values
    else:
        values = (0.5 if ends_branch else 1.0) * (1 + 0.2 * values)
    parameter.copy_(torch.from_numpy(values))


class Model(NamedTuple):
    """A filled method in training mode with its images, and the figures to compare with."""

    method: CNNJEPA
    images: Tensor
    released: dict[str, Any]

    def parameter(self, name: str) -> Tensor:
        """The parameter that the file calls `name`."""
        place, _, rest = name.partition(".")
        if place == "token":
            return self.method.token
        if place == "predictor":
            layer, part, kind = rest.split(".")
            found = self.method.predictor.layers[int(layer)]
            return found[("depthwise", "pointwise", "norm").index(part)].get_parameter(kind)  # type: ignore[index]
        return self.encoder(place).get_parameter(rest)

    def encoder(self, place: str) -> nn.Module:
        return self.method.probed_encoder(place)

    def statistics(self, name: str) -> list[float]:
        place, _, rest = name.partition(".")
        norm = self.encoder(place).get_submodule(rest)
        return [norm.running_mean.norm().item(), norm.running_var.norm().item()]  # type: ignore[union-attr, operator]

    def masks(self, kind: str) -> Masks:
        """Context and target, boolean [4, G, G]."""
        rows = RELEASED["masks"][str(self.released["grid"])][kind]
        return Masks(
            *[torch.tensor([[[c == "1" for c in r] for r in s] for s in rows[side]]) for side in Masks._fields]
        )


def model(name: str, backend: str) -> Model:
    released = RELEASED["models"][name]
    overrides = [
        f"arch={released['arch']}", "stem=imagenet", "stages=4", "width=1", f"backend={backend}",
        f"image_size={released['pixels']}", "predictor.depth=3", "predictor.kernel_size=3", "precision=float32",
        "batch_size=4", "accumulation=1",
    ]  # fmt: skip
    if released["grid"] == 2:  # no block strategy fits a 2x2 grid; the masks are given, so the strategy is not used
        overrides.append("strategy=random")
    method = build_method(load_config("in100", overrides=overrides)).double()
    assert isinstance(method, CNNJEPA)
    built = Model(
        method, torch.from_numpy(np.sqrt(3) * u((4, 3, released["pixels"], released["pixels"]), 450)), released
    )
    ends = LAST_NORM[released["arch"]] + ".weight"
    for first, place in ((0, "context"), (200, "target")):
        named = dict(built.encoder(place).named_parameters())
        for index, key in enumerate(sorted(named)):
            fill(named[key], key, first + index, key.startswith("layer") and key.endswith(ends))
    for layer, found in enumerate(method.predictor.layers):
        for part, module in enumerate((found[0], found[1], found[2])):  # type: ignore[index]
            for offset, kind in enumerate(("weight", "bias")):
                fill(module.get_parameter(kind), kind, 400 + 8 * layer + 2 * part + offset)
    with torch.no_grad():
        method.token.copy_(torch.from_numpy(0.5 * u(tuple(method.token.shape), 440)))
    method.train()
    return built


def summary(tensor: Tensor) -> list[float]:
    return [tensor.norm().item(), *tensor.flatten()[:3].tolist()]


def assert_near(found: list[float], expected: list[float], tolerance: float, what: str) -> None:
    """Every number within `tolerance` of the first, which is a norm."""
    errors = [abs(a - b) / abs(expected[0]) for a, b in zip(found, expected, strict=True)]
    assert max(errors) <= tolerance, f"{what}: {found} is not {expected} (relative error {max(errors):.1e})"


@pytest.mark.parametrize("name", MODELS)
def test_the_filling_rule_gives_the_released_weights(name: str) -> None:
    filled = model(name, "packed")
    for key, expected in filled.released["filled"].items():
        tensor = filled.images if key == "images" else filled.parameter(key)
        assert_near(summary(tensor), expected, 1e-14, key)


@pytest.mark.medium
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward_give_the_released_figures(name: str, backend: str, kind: str) -> None:
    built = model(name, backend)
    expected, masks = built.released["forward"][kind], built.masks(kind)
    seen: dict[str, Tensor] = {}
    built.method.context_encoder.register_forward_hook(lambda _, args, out: seen.update(context=out))
    built.method.target_encoder.register_forward_hook(lambda _, args, out: seen.update(target=out))
    built.method.predictor.register_forward_hook(lambda _, args, out: seen.update(prediction=out))
    loss = built.method(built.images, *masks).mean
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=VALUE)
    for which, out in seen.items():
        assert_near([out.norm().item(), out.sum().item()], expected[which], VALUE, which)
    for key, figures in expected["gradients"].items():
        gradient = built.parameter(key).grad
        assert gradient is not None, key
        assert_near(summary(gradient), figures, GRADIENT, f"gradient of {key}")
    for key, figures in expected["statistics"].items():
        assert_near(built.statistics(key), figures, VALUE, f"statistics of {key}")


@pytest.mark.medium
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_two_training_steps_give_the_released_weights(name: str, backend: str) -> None:
    built = model(name, backend)
    config = load_config("in100", overrides=["precision=float32", "accumulation=1", "batch_size=4"])
    optimizer = build_optimizer(built.method, config.optimizer)
    for number, expected in enumerate(built.released["steps"]):
        built.method.follow(0.996)
        inputs = (built.images, *built.masks("multi_block"))
        stepped = train_step(built.method, optimizer, inputs, config, Processes(0, 1, torch.device("cpu")))
        assert stepped.loss.item() == pytest.approx(expected["loss"], rel=1e-6)  # the step's loss is float32
        for key, figures in expected["tensors"].items():
            assert_near(summary(built.parameter(key)), figures, STEP, f"{key} after step {number + 1}")
        for key, figures in expected["statistics"].items():
            assert_near(built.statistics(key), figures, STEP, f"statistics of {key} after step {number + 1}")


MULTI_BLOCK = MultiBlockMasking(scale=(0.15, 0.2), aspect=(0.75, 1.5), num_blocks=4, sampler="faithful")


def test_the_samplers_exact_rates_are_the_released_ones() -> None:
    expected = RELEASED["sampler"]
    sizes = block_sizes(expected["grid"], MULTI_BLOCK.scale, MULTI_BLOCK.aspect, MULTI_BLOCK.min_keep)
    assert {f"{s.height}x{s.width}": round(s.probability, 6) for s in sizes} == expected["sizes"]
    assert expected_targets(7, sizes, 4, faithful=True) == pytest.approx(expected["expected_targets"], abs=1e-6)
    for size in sizes:
        found = sum(map(sum, target_rates(7, size, 4, faithful=True)))
        assert found == pytest.approx(expected["expected_targets_of_size"][f"{size.height}x{size.width}"], abs=1e-6)
    rates = sum(size.probability * np.array(target_rates(7, size, 4, faithful=True)) for size in sizes)
    np.testing.assert_allclose(rates, expected["target_rates"], atol=1e-6)


def test_drawn_masks_have_the_released_rates() -> None:
    expected, batch, steps = RELEASED["sampler"], 64, 2000
    indices = torch.arange(batch)
    drawn = torch.stack([sample_masks(MULTI_BLOCK, 7, indices, 0, s).target.float().mean(0) for s in range(steps)])
    # The block size is shared by a batch, so batches, not samples, are independent.
    error = drawn.std(0) / steps**0.5
    assert ((drawn.mean(0) - torch.tensor(expected["target_rates"])).abs() <= 5 * error + 1e-6).all()
    random = sample_masks(RandomMasking(ratio=0.6), 7, indices, 0, 0)
    assert (random.context.flatten(1).sum(1) == expected["random_visible"]).all()
    assert (random.target.flatten(1).sum(1) == expected["random_targets"]).all()


@pytest.mark.parametrize("preset", ["in100", "in1k"])
def test_schedules_are_the_released_ones(preset: str) -> None:
    expected = RELEASED["schedule"][preset]
    config = load_config(preset, overrides=[f"runtime.epochs={expected['epochs']}"])
    schedule = Schedule(config, expected["steps_per_epoch"])
    assert schedule.total_steps == expected["epochs"] * expected["steps_per_epoch"]
    for step, lr, momentum in zip(expected["step"], expected["lr"], expected["momentum"], strict=True):
        assert schedule.lr(step) == pytest.approx(lr, rel=VALUE), step
        assert schedule.momentum(step) == pytest.approx(momentum, rel=VALUE), step
    assert all(a < b for a, b in pairwise(expected["step"]))
