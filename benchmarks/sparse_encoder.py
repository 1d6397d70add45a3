"""The packed context encoder against its ceiling: forward + backward, timed alternately in one run.

The ceiling is what computing only the visible patches could cost at best: visible share x the stock dense network's
time. Efficiency = ceiling / packed time. Question and target: issue "engine, end to end", at least 0.65 for
ResNet-50, 224 px, batch 16, 52 % visible (the published masks), float32.

    python benchmarks/sparse_encoder.py            # as make bench runs it, about 3 minutes on 2 cores
    python benchmarks/sparse_encoder.py --shares 0.1,0.25,0.5,0.75,1.0 --rounds 7
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.encoders import build_trunk
from cnnjepa.masks import sample_masks
from cnnjepa.schemas import EncoderConfig, MixedMasking, RandomMasking
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

OUT = Path(__file__).parent / "out"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--shares", default="", help="visible shares of random masks; the published masks by default")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one warm-up")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def published_context(grid: int, batch: int) -> Tensor:
    """Context of the first batch of the published mix whose visible share is within a point of its mean, 52.3 %."""
    for step in range(1000):
        context = sample_masks(MixedMasking(), grid, torch.arange(batch), seed=0, step=step).context
        if abs(float(context.float().mean()) - 0.5226) < 0.01:
            return context
    raise RuntimeError("no batch of the published share in 1,000")


def main() -> None:
    asked = arguments()
    device = pick_device(asked.device)
    encoder = EncoderConfig(arch=asked.arch)
    grid = asked.size // encoder.total_stride
    trunk = build_trunk(encoder, 0).to(device, memory_format=torch.channels_last)
    dense, packed, masked = copy.deepcopy(trunk), PackedEncoder(copy.deepcopy(trunk)), MaskedEncoder(trunk)
    images = torch.randn(asked.batch, 3, asked.size, asked.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    def seconds(forward: Callable[[], Tensor]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=asked.precision == "bf16"):
            features = forward()
        features.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    shares = [float(share) for share in asked.shares.split(",") if share]
    contexts = [
        sample_masks(RandomMasking(ratio=1 - share), grid, torch.arange(asked.batch), 0, 0).context
        if share < 1
        else torch.ones(asked.batch, grid, grid, dtype=torch.bool)
        for share in shares
    ] or [published_context(grid, asked.batch)]

    facts = environment(Processes(0, 1, device))
    print(
        f"{asked.arch}, {asked.size} px, batch {asked.batch}, {asked.precision}, forward + backward; "
        f"{', '.join(facts['gpus']) or facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}; "
        f"medians of {asked.rounds} alternating rounds\n"
    )
    print(f"{'visible':>8} {'dense s':>9} {'packed s':>9} {'masked s':>9} {'ceiling s':>10} {'efficiency':>11}  range")
    rows = []
    for context in contexts:
        context = context.to(device)
        share = float(context.float().mean())
        works = {
            "dense": lambda: dense(images),
            "packed": lambda c=context: packed(images, c),
            "masked": lambda c=context: masked(images, c),
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for round_number in range(asked.rounds + 1):
            for name, work in works.items():
                taken = seconds(work)
                if round_number:
                    times[name].append(taken)
        ratios = [share * d / p for d, p in zip(times["dense"], times["packed"], strict=True)]
        median = {name: statistics.median(values) for name, values in times.items()}
        ceiling = share * median["dense"]
        row = {
            "visible": share, **{f"{name}_s": value for name, value in median.items()},
            "ceiling_s": ceiling, "efficiency": statistics.median(ratios),
            "efficiency_range": [min(ratios), max(ratios)], "times": times,
        }  # fmt: skip
        rows.append(row)
        print(
            f"{share:>8.3f} {median['dense']:>9.3f} {median['packed']:>9.3f} {median['masked']:>9.3f} {ceiling:>10.3f} "
            f"{row['efficiency']:>11.2f}  {min(ratios):.2f} to {max(ratios):.2f}"
        )
    OUT.mkdir(exist_ok=True)
    path = OUT / f"sparse_encoder_{asked.arch}_{asked.precision}.json"
    path.write_text(
        json.dumps({"kind": "visible_share", "asked": vars(asked), "environment": facts, "rows": rows}, indent=2)
    )
    print(f"\nwrote {path.relative_to(OUT.parent.parent)}")


if __name__ == "__main__":
    main()
