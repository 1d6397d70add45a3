"""The packed context encoder against its ceiling: forward + backward, timed alternately.

The ceiling is what computing only the visible patches would cost at the dense network's speed: visible share x the
stock network's time. Efficiency = ceiling / packed time; targets 0.85 (float32) and 0.75 (bf16) for
ResNet-50, 224 px, batch 16 and the published masks. The masked backend, which computes everything and multiplies, is
timed with them. Then peak memory against the dense network's (at most 0.65; one process each), and time against visible
share, from 10 to 100 %, with the straight line through it.

    python benchmarks/sparse_encoder.py                 # all of it
    python benchmarks/sparse_encoder.py --quick         # the published masks only, few rounds
"""

import argparse
import copy
import multiprocessing
import statistics
from multiprocessing.connection import Connection
from typing import Any

import torch
from figures import Figure, add_options, add_sizes, median, ratio, report, sized
from passes import both_ways
from resident_set import UNKNOWN, peak_beyond
from timing import alternately
from torch import Tensor, nn

from cnnjepa.encoders import build_backbone
from cnnjepa.masks import sample_masks
from cnnjepa.schemas import EncoderConfig, MixedMasking, RandomMasking
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

TARGETS = {"float32": 0.85, "bf16": 0.75}
MEMORY_TARGET = 0.65
# "Close to a straight line" in a number of our own: no point further from it than this share of the time at 1.0.
LINE_TARGET = 0.05
# Rounds, architecture, image side in pixels and batch of every mode.
_MODES = {"full": (7, "resnet50", 224, 16), "quick": (2, "resnet50", 224, 16), "tiny": (1, "resnet18", 64, 2)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sizes(parser)
    parser.add_argument("--precisions", default="float32,bf16")
    parser.add_argument("--shares", help="visible shares of the sweep (full mode: 0.1,0.25,0.5,0.75,1.0)")
    parser.add_argument("--device", default="auto")
    add_options(parser)
    asked = sized(parser.parse_args(), _MODES)
    if asked.shares is None:
        asked.shares = "0.1,0.25,0.5,0.75,1.0" if asked.mode == "full" else ""
    return asked


def published_context(grid: int, batch: int) -> Tensor:
    """Context of the first batch of the published mix whose visible share is near its mean, 52.3 %."""
    within = 0.01 if grid * grid * batch > 500 else 0.1
    for step in range(1000):
        masking = MixedMasking() if grid > 4 else RandomMasking(ratio=0.477)
        context = sample_masks(masking, grid, torch.arange(batch), seed=0, step=step).context
        if abs(float(context.float().mean()) - 0.5226) < within:
            return context
    raise RuntimeError("no batch of the published share in 1,000")


def context_of(share: float, grid: int, batch: int) -> Tensor:
    """Random cells, `share` of them visible."""
    if share == 1:
        return torch.ones(batch, grid, grid, dtype=torch.bool)
    return sample_masks(RandomMasking(ratio=1 - share), grid, torch.arange(batch), 0, 0).context


def pictures(asked: argparse.Namespace, device: torch.device) -> Tensor:
    images = torch.randn(asked.batch, 3, asked.size, asked.size, device=device)
    return images.contiguous(memory_format=torch.channels_last)


def _peak(kind: str, precision: str, asked: argparse.Namespace, pipe: Connection) -> None:
    """In a process of its own: bytes above what it held with the network built and nothing run, None where the system
    cannot tell."""
    torch.set_num_threads(asked.threads)
    device = pick_device(asked.device)
    encoder = EncoderConfig(arch=asked.arch)
    backbone = build_backbone(encoder, 0).to(device, memory_format=torch.channels_last)
    network: nn.Module = PackedEncoder(backbone) if kind == "packed" else backbone
    images = pictures(asked, device)
    context = published_context(asked.size // encoder.total_stride, asked.batch).to(device)
    work = both_ways(network, (images, context) if kind == "packed" else (images,), precision)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        work()
        pipe.send(torch.cuda.max_memory_allocated() - before)
        return
    pipe.send(peak_beyond(lambda: [work() for _ in range(2)]))


def peak_bytes(kind: str, precision: str, asked: argparse.Namespace) -> int | None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_peak, args=(kind, precision, asked, theirs))
    process.start()
    theirs.close()
    found: int | None = ours.recv()
    process.join()
    return found


def line_through(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """(intercept, slope, largest distance of a point) of the least-squares line."""
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    return intercept, slope, max(abs(y - intercept - slope * x) for x, y in points)


def main() -> None:
    asked = arguments()
    asked.threads = torch.get_num_threads()
    device = pick_device(asked.device)
    encoder = EncoderConfig(arch=asked.arch)
    grid = asked.size // encoder.total_stride
    backbone = build_backbone(encoder, 0).to(device, memory_format=torch.channels_last)
    dense, packed, masked = copy.deepcopy(backbone), PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone)
    images = pictures(asked, device)
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    work = f"{asked.arch}, {asked.size} px, batch {asked.batch}"
    for precision in asked.precisions.split(","):
        context = published_context(grid, asked.batch).to(device)
        share = float(context.float().mean())
        works = {
            "dense": both_ways(dense, (images,), precision),
            "packed": both_ways(packed, (images, context), precision),
            "masked": both_ways(masked, (images, context), precision),
        }
        times = alternately(works, asked.rounds, device)
        figures += [
            ratio(
                f"packed, {precision}: ceiling / time", times["dense"], times["packed"], share,
                target=TARGETS[precision], direction="at_least", note=f"{work}, {share:.3f} visible",
            ),
            Figure(f"ceiling, {precision}", share * statistics.median(times["dense"]), "s", note="share x stock dense"),
            *(median(f"{name}, {precision}", taken, unit="s") for name, taken in times.items()),
            ratio(f"masked backend, {precision}: ceiling / time", times["dense"], times["masked"], share),
        ]  # fmt: skip
        details[precision] = {"visible": share, "times": times}
        if asked.shares:
            sweep = {float(s): context_of(float(s), grid, asked.batch).to(device) for s in asked.shares.split(",")}
            works = {"dense": both_ways(dense, (images,), precision)}
            works |= {str(s): both_ways(packed, (images, c), precision) for s, c in sweep.items()}
            times = alternately(works, max(3, asked.rounds // 2), device)
            points = []
            for s, c in sweep.items():
                visible = float(c.float().mean())
                points.append((visible, statistics.median(times[str(s)])))
                figures.append(
                    ratio(f"packed at {visible:.2f} visible, {precision}: ceiling / time", times["dense"],
                          times[str(s)], visible, note=f"{points[-1][1]:.3f} s")
                )  # fmt: skip
            intercept, slope, furthest = line_through(points)
            figures.append(
                Figure(
                    f"time against share, {precision}: furthest from a line",
                    furthest / (intercept + slope),
                    target=LINE_TARGET,
                    direction="at_most",
                    n=len(points),
                    note=f"of the time at 1.0; {intercept:.3f} s + {slope:.3f} s x share",
                )
            )
            details[precision]["sweep"] = {"points": points, "times": times}
        peaks = {kind: peak_bytes(kind, precision, asked) for kind in ("dense", "packed")}
        details[precision]["peak_bytes"] = peaks
        ours, stock = peaks["packed"], peaks["dense"]
        if ours is None or stock is None:
            print(f"peak memory, {precision}: {UNKNOWN}")
            continue
        figures.append(
            Figure(
                f"peak memory, {precision}: packed / dense",
                ours / stock,
                target=MEMORY_TARGET,
                direction="at_most",
                note=f"{ours / 2**30:.2f} of {stock / 2**30:.2f} GiB above the network itself",
            )
        )
    report("sparse_encoder", asked, environment(Processes(0, 1, device)), figures, details)


if __name__ == "__main__":
    main()
