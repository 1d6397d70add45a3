"""The packed context encoder on a GPU, against the dense network and its ceiling, forward and backward.

Alternating: the dense network; the packed encoder at several visible shares; the packed encoder with other masks in
every call, as in training, where the number of visible cells differs from step to step; the masked backend; and the
packed encoder with and without our kernels (`--ways`). The ceiling is the visible share times the dense time.

    python benchmarks/gpu_encoder.py                                    # ResNet-50, 224 px, batch 256, bf16
    python benchmarks/gpu_encoder.py --arch resnet18 --size 64 --batch 512
    python benchmarks/gpu_encoder.py --device cpu --tiny
"""

import argparse
import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from figures import Figure, add_options, add_sizes, median, ratio, report, sized
from gpu_profile import listed_kernels, peak
from our_kernels import WAYS, within
from passes import both_ways
from timing import alternately
from torch import Tensor

from cnnjepa.encoders import build_backbone
from cnnjepa.schemas import EncoderConfig
from cnnjepa.schemas.runtime import RuntimeConfig
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.training.distributed import join
from cnnjepa.training.environment import environment

TARGET = 0.8
_SHARES = (0.25, 0.52, 0.75, 1.0)
# Rounds, architecture, pixels per side and batch of every mode.
_MODES = {
    "full": (5, "resnet50", 224, 256),
    "quick": (3, "resnet50", 224, 256),
    "tiny": (1, "resnet18", 64, 4),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sizes(parser)
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
    parser.add_argument("--calls", type=int, default=5, help="of every work in a round")
    parser.add_argument("--ways", action="store_true", help="time the encoder with and without our kernels")
    parser.add_argument("--profile", action="store_true", help="list the kernels of the packed encoder at 0.52 visible")
    parser.add_argument("--any-algorithm", action="store_true", help="let cuDNN choose; a run is then not repeatable")
    add_options(parser)
    return sized(parser.parse_args(), _MODES)


def masks_of(batch: int, grid: int, share: float, seed: int, spread: float = 0.0) -> Tensor:
    """Random context masks with the same number of visible cells in every image; `spread` is the standard deviation of
    that number between seeds, in shares."""
    generator = torch.Generator().manual_seed(seed)
    wanted = share + spread * float(torch.randn((), generator=generator))
    count = min(grid * grid, max(1, round(wanted * grid * grid)))
    order = torch.rand(batch, grid * grid, generator=generator).argsort(1)
    extra = 0 if spread == 0 else int(torch.randint(batch, (), generator=generator))
    masks = order < count
    masks[:extra] |= order[:extra] == count  # so that the number of cells differs by less than the batch too
    return masks.view(batch, grid, grid)


def main() -> None:
    asked = arguments()
    processes = join(RuntimeConfig(device=asked.device))
    device = processes.device
    if device.type == "cuda" and asked.any_algorithm:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, False
    facts = environment(processes)
    settings = EncoderConfig(arch=asked.arch, stem=asked.stem)
    backbone = build_backbone(settings, 0)
    grid = asked.size // settings.total_stride
    dense, packed, masked = (
        made.to(device).train().to(memory_format=torch.channels_last)
        for made in (copy.deepcopy(backbone), PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone))
    )
    pixels = torch.randn(asked.batch, 3, asked.size, asked.size, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    shares = {share: masks_of(asked.batch, grid, share, 0) for share in _SHARES}
    real = {share: float(mask.float().mean()) for share, mask in shares.items()}
    seeds = itertools.count(1)

    def block(work: Callable[[], Any]) -> Callable[[], None]:
        return lambda: [work() for _ in range(asked.calls)] and None

    def on(mask: Tensor) -> Callable[[], None]:
        return both_ways(packed, (pixels, mask), asked.precision)

    def with_other_masks() -> None:
        mask = masks_of(asked.batch, grid, 0.52, next(seeds), 0.05)
        both_ways(packed, (pixels, mask), asked.precision)()

    usual = shares[0.52]
    stock = within(WAYS["no kernels"], both_ways(dense, (pixels,), asked.precision))
    works: dict[str, Callable[[], None]] = {"dense": block(stock)}
    works |= {f"{share:.2f} visible": block(on(mask)) for share, mask in shares.items()}
    works["other masks every call"] = block(with_other_masks)
    works["masked backend"] = block(both_ways(masked, (pixels, usual), asked.precision))
    if asked.ways and device.type == "cuda":
        all_kernels = WAYS["both kernels"]
        works["dense, both kernels"] = block(within(all_kernels, both_ways(dense, (pixels,), asked.precision)))
        works |= {way: block(within(how, on(usual))) for way, how in WAYS.items()}
        works |= {f"{way}, other masks": block(within(how, with_other_masks)) for way, how in WAYS.items()}
    print(f"{asked.arch}, {asked.size} px, batch {asked.batch}, {asked.precision}; "
          f"{', '.join(facts['gpus']) or facts['cpu']}, torch {facts['torch']}, "
          f"{'any algorithm' if asked.any_algorithm else 'deterministic'}")  # fmt: skip
    times = alternately(works, asked.rounds, device)
    note = f"{asked.arch}, {asked.size} px, batch {asked.batch}, {asked.precision}"
    images = asked.batch * asked.calls
    figures = [median("dense", [images / t for t in times["dense"]], unit="images/s", note=note)]
    for share in _SHARES:
        key = f"{share:.2f} visible"
        goal: dict[str, Any] = {"target": TARGET, "direction": "at_least"} if share == 0.52 else {}
        figures.append(ratio(f"packed, {key}: share of its ceiling", times["dense"], times[key], real[share], **goal))
    for key in list(works)[1 + len(_SHARES) :]:
        if key in ("masked backend", "dense, both kernels"):
            figures.append(ratio(f"{key} / dense", times[key], times["dense"]))
        else:
            figures.append(ratio(f"packed, {key}: share of its ceiling", times["dense"], times[key], real[0.52]))
    for name, work in (("dense", works["dense"]), ("packed at 0.52", works["0.52 visible"])):
        most = peak(device, work)
        if most is not None:
            figures.append(Figure(f"memory, {name}", most, unit="GiB", note="peak, the benchmark's networks included"))
    details: dict[str, Any] = {"times": times, "shares": real}
    if asked.profile:
        details["kernels"] = listed_kernels(device, on(usual), most=30)
        details["kernels_dense"] = listed_kernels(device, stock, most=12)
    report("gpu_encoder", asked, facts, figures, details)


if __name__ == "__main__":
    main()
