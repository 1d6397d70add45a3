"""The whole pretraining step against a stock supervised step of the same batch, alternately, and where its time goes.

Supervised: torchvision's network with its classifier (1,000 classes), cross-entropy, the same AdamW. CNN-JEPA: what the
training loop does between two batches: masks, moving average, target, context, predictor, loss, backward, update. The
parts are timed alone in the same rounds, so that their sum shows what is left over. Target: at most 1.15. By FLOPs a
step costs about as much as a supervised one: a dense target forward, three forwards' worth of the visible share of the
context encoder, and the predictor.

    python benchmarks/step.py                       # ResNet-50, 224 px, batch 16, the published masks
    python benchmarks/step.py --precision bf16 --rounds 9
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from figures import Figure, add_options, add_sizes, median, ratio, report, sized
from timing import alternately
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnjepa.masks import Masks
from cnnjepa.measuring.cost import pass_flops
from cnnjepa.measuring.step_timer import StepTimer
from cnnjepa.methods import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.schemas import PretrainConfig, load_config
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment
from cnnjepa.training.optimizer import build_optimizer

TARGET = 1.15
_CLASSES = 1000
# Rounds, architecture, image side in pixels and batch of every mode.
_MODES = {"full": (9, "resnet50", 224, 16), "quick": (3, "resnet50", 224, 16), "tiny": (1, "resnet18", 224, 2)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sizes(parser)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--device", default="auto")
    add_options(parser)
    return sized(parser.parse_args(), _MODES)


def published(asked: argparse.Namespace) -> PretrainConfig:
    """The in100 preset's method at the size asked for."""
    return load_config(
        "in100",
        overrides=[
            f"encoder.arch={asked.arch}", f"data.image_size={asked.size}", f"runtime.batch_size={asked.batch}",
            f"runtime.precision={asked.precision}", f"runtime.device={asked.device}",
        ],
    )  # fmt: skip


def usual_step(method: CNNJEPA, config: PretrainConfig, indices: Tensor) -> tuple[int, Masks]:
    """Number and masks of the step, of the first 200, whose visible share is nearest to the mean of all."""
    drawn = [method.draw_masks(config.grid, indices, 0, step) for step in range(200)]
    away = [abs(float(masks.context.float().mean()) - config.visible_share) for masks in drawn]
    step = away.index(min(away))
    return step, drawn[step]


class Supervised:
    """One step of torchvision's network on random images."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self.network = getattr(torchvision.models, config.encoder.arch)(num_classes=_CLASSES).to(device).train()
        self.network.to(memory_format=torch.channels_last)
        self._optimizer = build_optimizer(self.network, config.optimizer)
        for group in self._optimizer.param_groups:
            group["lr"] = 1e-4
        self.images = images(config, device)
        self._labels = torch.arange(config.runtime.batch_size, device=device) % _CLASSES

    def __call__(self) -> None:
        with autocast(self._config, self._device):
            loss = F.cross_entropy(self.network(self.images), self._labels)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def flops(self) -> float:
        """Return the FLOPs of a step on one image, as torch counts them (2 x multiply-adds), on the meta device."""
        meta = getattr(torchvision.models, self._config.encoder.arch)(num_classes=_CLASSES).to("meta")
        size = self._config.data.image_size
        with FlopCounterMode(display=False) as counter:
            meta(torch.empty(2, 3, size, size, device="meta")).sum().backward()
        return counter.get_total_flops() / 2


def images(config: PretrainConfig, device: torch.device) -> Tensor:
    size = config.data.image_size
    found = torch.randn(config.runtime.batch_size, 3, size, size, device=device)
    return found.contiguous(memory_format=torch.channels_last)


def autocast(config: PretrainConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.runtime.precision == "bf16")


def parts(method: CNNJEPA, config: PretrainConfig, device: torch.device, step: int) -> dict[str, Callable[[], None]]:
    """Return the parts of a step, each alone, on tensors of the real shapes."""
    indices = torch.arange(config.runtime.batch_size)
    masks = method.draw_masks(config.grid, indices, 0, step)
    pixels = images(config, device)
    shape = (config.runtime.batch_size, method.feature_dim, config.grid, config.grid)
    upstream, features, target = (
        torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last) for _ in range(3)
    )
    optimizer = build_optimizer(with_gradients(method), config.optimizer)

    def context() -> None:
        with autocast(config, device):
            found = method.context_encoder(pixels, masks.context)
        found.backward(upstream.to(found.dtype))
        method.zero_grad(set_to_none=True)

    def dense_target() -> None:
        with torch.no_grad(), autocast(config, device):
            method.target_encoder(pixels)

    def predictor_and_loss() -> None:
        leaf = features.detach().requires_grad_()
        with autocast(config, device):
            method.compare(leaf, target, *masks).total.backward()
        method.zero_grad(set_to_none=True)

    return {
        "context, forward + backward": context,
        "target, forward": dense_target,
        "predictor + loss, forward + backward": predictor_and_loss,
        "AdamW": optimizer.step,
        "moving average": lambda: method.follow(0.99),
        "masks": lambda: method.draw_masks(config.grid, indices, 0, step) and None,
    }


def with_gradients(method: nn.Module) -> nn.ParameterList:
    """Copies of a method's trainable parameters, with gradients."""
    found = nn.ParameterList(p.detach().clone() for p in method.parameters() if p.requires_grad)
    for parameter in found:
        parameter.grad = torch.full_like(parameter, 1e-3)
    return found


def adamw_kinds(method: nn.Module) -> dict[str, Callable[[], object]]:
    """torch's three implementations of the same update."""
    kinds: dict[str, dict[str, bool]] = {
        "fused": {"fused": True},
        "foreach": {"foreach": True},
        "loop": {"foreach": False},
    }
    return {name: torch.optim.AdamW(with_gradients(method), lr=1e-4, **kind).step for name, kind in kinds.items()}


def main() -> None:
    asked = arguments()
    config = published(asked)
    device = pick_device(asked.device)
    torch.manual_seed(0)
    method = build_method(config).to(device).train()
    method.to(memory_format=torch.channels_last)
    assert isinstance(method, CNNJEPA)
    indices = torch.arange(asked.batch)
    step, masks = usual_step(method, config, indices)
    share = float(masks.context.float().mean())
    timer, supervised = StepTimer(config, device), Supervised(config, device)
    alone = parts(method, config, device, step)

    facts = environment(Processes(0, 1, device))
    print(
        f"{asked.arch}, {asked.size} px, batch {asked.batch}, {asked.precision}, {share:.3f} visible; "
        f"{', '.join(facts['gpus']) or facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}; "
        f"{asked.rounds} alternating rounds"
    )
    times = alternately(
        {"step": lambda: timer(step), "supervised": supervised, **alone}, asked.rounds, device, warm_up=1
    )

    updates = alternately(adamw_kinds(method), 5 if asked.mode != "tiny" else 1, device)

    target_flops, context_flops, predictor_flops, *_ = pass_flops(config, method)
    context_flops *= share / config.visible_share
    flops = dict(zip(alone, (context_flops, target_flops, predictor_flops), strict=False))
    total = sum(flops.values())
    note = f"{asked.arch}, {asked.size} px, batch {asked.batch}, {asked.precision}"
    figures = [
        ratio(
            "step / supervised step", times["step"], times["supervised"], target=TARGET, direction="at_most", note=note
        ),
        Figure("  the same by FLOPs", total / supervised.flops(), note="the floor at the supervised step's own rate"),
        median("supervised step", times["supervised"], unit="s"),
        median("pretraining step", times["step"], unit="s"),
    ]  # fmt: skip
    for name in alone:
        counted = f"{100 * flops[name] / total:.1f} % of the FLOPs" if name in flops else "no FLOPs to speak of"
        figures.append(ratio(f"  {name}, share of the step", times[name], times["step"], 100, unit="%", note=counted))
    together = [sum(times[name][at] for name in alone) for at in range(asked.rounds)]
    figures.append(ratio("  all parts together", together, times["step"], 100, unit="%", note="timed alone"))
    for kind in ("loop", "foreach"):
        figures.append(ratio(f"AdamW, fused / {kind}", updates["fused"], updates[kind], note="our step uses fused"))
    details = {
        "visible": share,
        "times": times,
        "adamw": updates,
        "flops_per_image": flops,
        "supervised_flops": supervised.flops(),
    }
    report("step", asked, facts, figures, details)


if __name__ == "__main__":
    main()
