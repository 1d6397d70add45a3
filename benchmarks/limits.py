"""Model of the least time of a pretraining step, from the rates that this machine reaches.

Measured: matrix products of ResNet-50's sizes by torch's own choice and, where the packed encoder asks it instead
(float32 on an x86 CPU), by oneDNN, alternately; copying of memory; and first use of a page. Counted from the config:
FLOPs of every part of a step, and the least bytes it has to move when every layer reads its input and writes its output
once and a batch norm needs its statistics before it can normalise. A part's floor is the longer of FLOPs / product rate
and bytes / copy rate; the step's is their sum. The real step is timed in the same run.

Least bytes of a convolution with I values in and O out, batch norm and ReLU included: forward I + 4·O (read, write;
statistics; normalise), backward 2·I + 7·O (weight and input gradient; batch norm's two reads of two tensors, its
write); weights are read twice and their gradient written once. AdamW moves 7 values per parameter, the moving
average 3.

    python benchmarks/limits.py --quick
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from figures import Figure, add_options, report
from timing import alternately
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnjepa.measuring.step_timer import StepTimer
from cnnjepa.methods import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.schemas import PretrainConfig, load_config
from cnnjepa.tensor_ops.matmul import by_onednn, linear
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

# Rows, channels in and out: 1x1 convolutions of the four stages on 16 images, and the windows of a 3x3.
_SIZES = ((50176, 64, 256), (12544, 128, 512), (3136, 1024, 256), (784, 512, 2048), (3136, 2304, 256))
_COPIED = 2**28  # bytes: far beyond any cache


class Part(NamedTuple):
    """Part of a step."""

    name: str
    flops: float
    bytes: float

    def floor(self, flops_per_s: float, bytes_per_s: float) -> float:
        """Seconds."""
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="in100")
    parser.add_argument("--batch", type=int, help="images per step (default 16; in tiny mode 2)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--device", default="auto")
    add_options(parser)
    asked = parser.parse_args()
    asked.batch = asked.batch or (2 if asked.mode == "tiny" else 16)
    asked.rounds = asked.rounds or {"full": 9, "quick": 3, "tiny": 1}[asked.mode]
    return asked


def product_rates(dtype: torch.dtype, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """FLOP/s by kind and size. oneDNN is a kind of its own where tensor_ops/matmul.py uses it and torch may not."""
    found: dict[str, dict[str, float]] = {}

    def keep(size: str, flops: float, works: dict[str, Callable[[], object]]) -> None:
        with torch.no_grad():
            for kind, times in alternately(works, rounds, device).items():
                found.setdefault(kind, {})[size] = flops / statistics.median(times)

    for rows, c, o in _SIZES:
        x, weight = torch.randn(rows, c, device=device).to(dtype), torch.randn(o, c, device=device).to(dtype)
        works: dict[str, Callable[[], object]] = {"torch": partial(F.linear, x, weight)}
        if by_onednn(x, weight):
            works["oneDNN"] = partial(linear, x, weight)
        keep(f"{rows} x {c} x {o}", 2 * rows * c * o, works)
    for c, side in ((64, 56), (256, 14)):
        maps = torch.randn(16, c, side, side, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(c, c, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        convolution = partial(F.conv2d, maps, weight, padding=1)
        keep(f"{c} channels, {side} px", 2 * maps.numel() * c * 9, {"3x3 convolution": convolution})
    return found


def memory_rates(rounds: int, device: torch.device) -> tuple[float, float]:
    """(bytes/s of a copy, read and written both counted; seconds that a GiB of fresh memory costs over used memory)."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    into = torch.zeros_like(source)
    times = alternately(
        {"used": lambda: into.copy_(source), "fresh": lambda: torch.empty_like(source).copy_(source)}, rounds, device
    )
    copied, fresh = (statistics.median(times[kind]) for kind in ("used", "fresh"))
    return 2 * _COPIED / copied, max(0.0, fresh - copied) * 2**30 / _COPIED


class Sizes(NamedTuple):
    """Values that the convolutions of one forward read and write, and its FLOPs; those of the first layer alone."""

    read: float
    written: float
    flops: float
    first: float


def sizes_of(network: nn.Module, shape: tuple[int, ...]) -> Sizes:
    """Return the sizes of one image of `shape`, counted on the meta device."""
    meta = copy.deepcopy(network).to("meta").eval()
    seen: list[tuple[int, int]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((given[0].numel(), output.numel()))

    layers = [(name, m) for name, m in meta.named_modules() if isinstance(m, nn.Conv2d)]
    for _, layer in layers:
        layer.register_forward_hook(note)
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, *shape, device="meta"))
    first = counter.get_flop_counts().get(f"{type(meta).__name__}.{layers[0][0]}", {})
    read, written = (float(sum(column)) for column in zip(*seen, strict=True))
    return Sizes(read, written, float(counter.get_total_flops()), float(sum(first.values())))


def parts_of(method: CNNJEPA, config: PretrainConfig, width: int) -> list[Part]:
    """A step's. `width`: bytes of an activation; parameters have four."""
    batch, share, size = config.runtime.batch_size, config.visible_share, config.data.image_size
    encoder = sizes_of(method.target_encoder, (3, size, size))
    predictor = sizes_of(method.predictor, (method.feature_dim, config.grid, config.grid))
    weights = 4.0 * sum(p.numel() for p in method.target_encoder.parameters())
    learned = 4.0 * sum(p.numel() for p in method.parameters() if p.requires_grad)
    others = 4.0 * sum(p.numel() for p in method.predictor.parameters())

    def trained(of: Sizes, part: float, bytes_of_weights: float) -> float:
        return part * batch * width * (3 * of.read + 11 * of.written) + 3 * bytes_of_weights

    return [
        Part("target", batch * encoder.flops, batch * width * (encoder.read + 4 * encoder.written) + weights),
        Part("context", share * batch * (3 * encoder.flops - encoder.first), trained(encoder, share, weights)),
        Part("predictor", 3 * batch * predictor.flops, trained(predictor, 1.0, others)),
        Part("AdamW", 0.0, 7 * learned),
        Part("moving average", 0.0, 3 * weights),
    ]


def main() -> None:
    asked = arguments()
    device = pick_device(asked.device)
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    copy_rate, fresh = memory_rates(asked.rounds, device)
    figures += [
        Figure(
            "copy", copy_rate / 1e9, "GB/s", n=asked.rounds, note=f"{_COPIED >> 20} MiB, read and written both counted"
        ),
        Figure("fresh memory", fresh * 1e3, "ms/GiB", n=asked.rounds, note="what first touching a page adds to a copy"),
    ]
    for precision, dtype, width in (("float32", torch.float32, 4), ("bf16", torch.bfloat16, 2)):
        rates = product_rates(dtype, asked.rounds, device)
        best = max(max(kind.values()) for kind in rates.values())
        for kind, by_size in rates.items():
            figures.append(
                Figure(f"{kind}, {precision}", statistics.median(by_size.values()) / 1e9, "GFLOP/s",
                       spread=(min(by_size.values()) / 1e9, max(by_size.values()) / 1e9), n=len(by_size),
                       note="median and range over sizes")
            )  # fmt: skip
        config = load_config(
            asked.preset,
            overrides=[f"runtime.batch_size={asked.batch}", f"precision={precision}", "data.source=synthetic"],
        )
        method = build_method(config)
        assert isinstance(method, CNNJEPA)
        parts = parts_of(method, config, width)
        floors = {part.name: part.floor(best, copy_rate) for part in parts}
        floor = sum(floors.values())
        for part in parts:
            figures.append(
                Figure(f"floor of {part.name}, {precision}", 1e3 * floors[part.name], "ms",
                       note=f"{part.flops / 1e9:.0f} GFLOP, {part.bytes / 1e9:.2f} GB")
            )  # fmt: skip
        timer = StepTimer(config, device)
        steps = [timer(number) for number in range(asked.rounds + 1)][1:]
        figures += [
            Figure(
                f"floor of the step, {precision}", floor, "s", note=f"batch {asked.batch}, at the best product rate"
            ),
            Figure(f"step, {precision}", statistics.median(steps), "s", spread=(min(steps), max(steps)), n=len(steps)),
            Figure(f"step / floor, {precision}", statistics.median(steps) / floor, n=len(steps)),
        ]
        details[precision] = {"rates": rates, "parts": [part._asdict() for part in parts], "steps": steps}
    report("limits", asked, environment(Processes(0, 1, device)), figures, details)


if __name__ == "__main__":
    main()
