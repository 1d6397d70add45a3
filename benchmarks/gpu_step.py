"""The pretraining step on a GPU, in one command: throughput, share of the machine's rate, memory, and hours of a run.

bf16 autocast, channels-last, ResNet-50 at 224 px, at every batch asked for:

- images/s of the step, alternating with a stock supervised step of the same batch and settings (target: at most 1.0);
- its share of the rate at which this GPU multiplies large bf16 matrices, measured in the same run;
- the packed encoder against its ceiling, visible share x dense forward and backward (target: at least 0.8);
- peak memory of both steps; the kernels that take the time, and how often a step waits for the device;
- --compile and --graphs: what torch.compile of target and predictor, and a CUDA graph of the target's forward, save;
- the whole loop fed by the loader from JPEG files (made here, or --data FOLDER), and the hours of preset in100 at that.

    python benchmarks/gpu_step.py                                       # about 6 minutes
    python benchmarks/gpu_step.py --batch 512 --compile --graphs --data /data/imagenet100 --workers 16
    python benchmarks/gpu_step.py --device cpu --batch 8 --image-size 64 --steps 2      # shows that it runs

Where the package is not installed: PYTHONPATH=. python benchmarks/gpu_step.py (torch, torchvision, pydantic, pyyaml).
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from figures import Figure, add_options, median, ratio, report
from gpu_profile import allocated, listed_kernels, peak
from our_kernels import WAYS, within
from passes import both_ways, forward
from photo_set import HEIGHT, WIDTH, write_photos
from step import Supervised, images, usual_step
from timing import alternately
from torch import Tensor, nn

from cnnjepa.data import open_data
from cnnjepa.data.batches import Normalizer, Order, training_batches
from cnnjepa.measuring.cost import method_cost
from cnnjepa.measuring.step_timer import StepTimer, seconds
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.training.distributed import Processes, join
from cnnjepa.training.environment import environment
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.step import train_step

_IN100_IMAGES = 126_689
_HOURS = 2.0  # the aim for preset in100, on one H200
# Rounds and batches of every mode; steps of a round, and steps of the fed loop.
_MODES = {"full": (5, "256,512,1024", 10, 200), "quick": (3, "256", 5, 50), "tiny": (1, "8", 1, 2)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224, help="pixels per side")
    parser.add_argument("--batch", help="one or several, with commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int, help="of the fed loop, 200 in full mode")
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--no-loader", action="store_true", help="leave out the loop fed by the loader")
    parser.add_argument("--only-loader", action="store_true", help="measure only the loop fed by the loader")
    parser.add_argument("--compile", action="store_true", help="time torch.compile of target and predictor")
    parser.add_argument("--graphs", action="store_true", help="time a CUDA graph of the target's forward")
    parser.add_argument("--any-algorithm", action="store_true", help="let cuDNN choose; a run is then not repeatable")
    parser.add_argument("--data", type=Path, help="folder of images for the loader; JPEG files are made otherwise")
    parser.add_argument("--workers", type=int, default=12, help="loader processes")
    add_options(parser)
    asked = parser.parse_args()
    usual = dict(zip(("rounds", "batch", "block", "steps"), _MODES[asked.mode], strict=True))
    asked.block = usual.pop("block")
    for name, value in usual.items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.steps < asked.block:
        asked.block, asked.rounds = 1, 1
    asked.batch = [int(batch) for batch in str(asked.batch).split(",")]
    return asked


def config_of(asked: argparse.Namespace, batch: int, *further: str) -> PretrainConfig:
    """Preset in100 at this size; on grids too coarse for its blocks, with random masks."""
    overrides = [
        f"encoder.arch={asked.arch}", f"data.image_size={asked.image_size}", f"runtime.batch_size={batch}",
        f"runtime.precision={asked.precision}", f"runtime.device={asked.device}", f"runtime.workers={asked.workers}",
        *further,
    ]  # fmt: skip
    if asked.stem != "imagenet":
        overrides.append(f"encoder.stem={asked.stem}")
    if asked.image_size < 192:
        overrides.append("masking.strategy=random")
    return load_config("in100", overrides=overrides)


def gemm_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of a large square product in the step's precision: the best of five rounds of ten."""
    side = 8192 if device.type == "cuda" else 512
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            torch.mm(a, b)

    return 10 * 2 * side**3 / min(alternately({"ten": ten}, 5, device)["ten"])


def at_batch(asked: argparse.Namespace, batch: int, device: torch.device, gemm: float) -> tuple[list[Figure], Any]:
    """Everything that is timed on random pixels."""
    config = config_of(asked, batch)
    note = f"{asked.arch}, {asked.image_size} px, {asked.precision}"
    held = allocated(device)
    method = build_method(config).to(device).train()
    assert isinstance(method, CNNJEPA)
    cost = method_cost(config, method)
    method.to(memory_format=torch.channels_last)
    number, masks = usual_step(method, config, torch.arange(batch))
    timer = StepTimer(config, device)
    of_two = allocated(device) - held  # the method's weights, here and in the timer
    ours = peak(device, lambda: [timer.make(number) for _ in range(2)])
    before = allocated(device)
    supervised = Supervised(config, device)
    theirs = peak(device, lambda: [supervised() for _ in range(2)])

    pixels, share = images(config, device), float(masks.context.float().mean())

    def block(work: Callable[[], object]) -> Callable[[], None]:
        return lambda: [work() for _ in range(asked.block)] and None

    method.target_encoder.requires_grad_(True)  # the dense network of the ceiling; not trained here
    steps = itertools.count(number)
    times = alternately(
        {
            "step": block(within(WAYS["both kernels"], lambda: timer.make(next(steps)))),
            "step, same masks": block(within(WAYS["both kernels"], lambda: timer.make(number))),
            "step, no kernels": block(within(WAYS["no kernels"], lambda: timer.make(next(steps)))),
            "masks": block(lambda: method.draw_masks(config.grid, torch.arange(batch), 0, next(steps))),
            "supervised": block(supervised),
            "dense": block(within(WAYS["no kernels"], both_ways(method.target_encoder, (pixels,), asked.precision))),
            "target": block(within(WAYS["both kernels"], forward(method.target_encoder, pixels, asked.precision))),
            "packed": block(
                within(
                    WAYS["both kernels"], both_ways(method.context_encoder, (pixels, masks.context), asked.precision)
                )
            ),
        },
        asked.rounds,
        device,
    )
    method.target_encoder.requires_grad_(False)
    name = f"batch {batch:,}: "
    rates = [batch * asked.block / t for t in times["step"]]
    figures = [
        median(name + "pretraining step", rates, unit="images/s", note=note),
        median(name + "supervised step", [batch * asked.block / t for t in times["supervised"]], unit="images/s"),
        ratio(name + "step / supervised step", times["step"], times["supervised"], target=1.0, direction="at_most"),
        ratio(name + "the same masks in every step", times["step, same masks"], times["supervised"],
              note="step / supervised step; the cost of shapes that change is the difference"),
        ratio(name + "without our kernels", times["step, no kernels"], times["supervised"], note="step / supervised"),
        ratio(name + "target's forward", times["target"], times["step"], 100, unit="%", note="of the step"),
        ratio(name + "packed encoder", times["packed"], times["step"], 100, unit="%", note="of the step"),
        ratio(name + "masks", times["masks"], times["step"], 100, unit="%", note="of the step; drawn on the host"),
        median(name + "share of the GEMM rate", [100 * r * cost.flops_per_image / gemm for r in rates], unit="%",
               note=f"GEMM {gemm / 1e12:.3g} TFLOP/s measured"),
        ratio(name + "packed against its ceiling", times["dense"], times["packed"], share, target=0.8,
              direction="at_least", note=f"{share:.3f} visible"),
    ]  # fmt: skip
    if ours is not None and theirs is not None:
        note = "peak, without this benchmark's other networks"
        figures.append(Figure(name + "memory of the step", ours - held - of_two / 2, unit="GiB", note=note))
        figures.append(Figure(name + "memory of the supervised step", theirs - before, unit="GiB", note=note))
    if asked.compile or asked.graphs:
        figures += alternatives(asked, config, device, method, pixels, name)
    found = {
        "times": times,
        "visible": share,
        "kernels": listed_kernels(device, within(WAYS["both kernels"], lambda: timer.make(next(steps))), most=30),
    }
    return figures, {**found, "kernels_supervised": listed_kernels(device, supervised)}


def alternatives(
    asked: argparse.Namespace, config: PretrainConfig, device: torch.device, method: CNNJEPA, pixels: Tensor, name: str
) -> list[Figure]:
    """torch.compile and CUDA graphs of what has fixed shapes, alternating with the plain modules."""
    target, predictor = method.target_encoder, method.predictor
    features = torch.randn(pixels.shape[0], method.feature_dim, config.grid, config.grid, device=device)
    features = features.contiguous(memory_format=torch.channels_last)

    def of_target(network: nn.Module) -> Callable[[], object]:
        return forward(network, pixels, asked.precision)

    def of_predictor(network: nn.Module) -> Callable[[], object]:
        return both_ways(network, (features,), asked.precision)

    works = {"target": of_target(target), "predictor": of_predictor(predictor)}
    if asked.compile:
        works["target, compiled"] = of_target(torch.compile(target))  # type: ignore[arg-type]
        works["predictor, compiled"] = of_predictor(torch.compile(predictor))  # type: ignore[arg-type]
    if asked.graphs and device.type == "cuda":
        works["target, graph"] = graph_of(of_target(target)).replay
    elif asked.graphs:
        print("--graphs: left out, CUDA graphs need a GPU")
    times = alternately(works, max(asked.rounds, 2), device, warm_up=3)
    return [ratio(f"{name}{kind} / plain", times[kind], times[kind.split(",")[0]]) for kind in works if "," in kind]


def graph_of(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """`work` captured, after the warm-up on a side stream that capture wants."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def fed(asked: argparse.Namespace, batch: int, processes: Processes, folder: Path) -> tuple[list[Figure], Any]:
    """The training loop's work from files to updates, over `asked.steps` steps, and the loader alone."""
    config = config_of(asked, batch, f"data.path={folder}", "data.resident=never")
    data = open_data(config.data, batch)
    order = Order(data.train.labels.numel(), batch, 0, 1, 0)
    device, indices = processes.device, order.batch_indices()

    def batches(count: int) -> Iterator[Any]:
        return training_batches(data, config.data, order, 0, count, asked.workers, device, config.views)

    alone_steps = max(2, asked.steps // 4)
    stream = batches(alone_steps + 1)
    next(stream)  # the processes have started
    alone = batch * alone_steps / seconds(lambda: [None for _ in stream], device)

    method = build_method(config).to(device).train()
    method.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(method, config.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    normalize = Normalizer(config.data, device)

    def step(number: int, found: Any) -> None:
        views = tuple(normalize(view.to(device, non_blocking=True)) for view in found.views)
        draw = StepDraw(config.grid, indices, 0, number)
        inputs = method.inputs(views, found.labels.to(device, non_blocking=True), draw)
        method.follow(0.996)
        train_step(method, optimizer, inputs, config, processes)

    warm_up = min(5, asked.steps)
    stream = batches(asked.steps + warm_up)
    for number in range(warm_up):
        step(number, next(stream))
    taken = seconds(lambda: [step(warm_up + number, found) for number, found in enumerate(stream)], device)
    rate = batch * asked.steps / taken
    hours = config.runtime.epochs * _IN100_IMAGES / rate / 3600
    aim = {"target": _HOURS, "direction": "at_most"} if device.type == "cuda" else {}
    return [
        Figure(f"batch {batch:,}: loader alone", alone, "images/s", note=f"{asked.workers} processes"),
        Figure(f"batch {batch:,}: step fed by the loader", rate, "images/s", n=asked.steps, note="steps on end"),
        Figure(f"batch {batch:,}: hours of preset in100", hours, "h", n=asked.steps, **aim,
               note=f"{config.runtime.epochs} epochs of {_IN100_IMAGES:,} images at that rate, probes left out"),
    ], {"seconds": taken, "steps": asked.steps}  # fmt: skip


def main() -> None:
    asked = arguments()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("this machine has no usable CUDA GPU; --device cpu --batch 8 --image-size 64 --steps 2 shows that the "
              "script runs, and benchmarks/step.py measures the step on a CPU", file=sys.stderr)  # fmt: skip
        raise SystemExit(2)
    try:
        processes = join(config_of(asked, asked.batch[0]).runtime)  # sets what the training loop sets
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    device = processes.device
    if device.type == "cuda" and asked.any_algorithm:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    facts = environment(processes)
    print(
        f"{asked.arch}, {asked.image_size} px, {asked.precision}; {', '.join(facts['gpus']) or facts['cpu']}, "
        f"torch {facts['torch']}"
    )
    torch.manual_seed(0)
    gemm = gemm_rate(device, asked.precision)
    figures = [Figure("GEMM rate", gemm / 1e12, unit="TFLOP/s", note=f"{asked.precision}, square, best of 5")]
    details: dict[str, Any] = {}
    fits: list[int] = []
    try:
        for batch in asked.batch:
            try:
                if not asked.only_loader:
                    found, details[f"batch_{batch}"] = at_batch(asked, batch, device, gemm)
                    figures += found
                fits.append(batch)
            except torch.OutOfMemoryError:
                print(f"batch {batch}: does not fit into memory together with the networks that it is compared with")
            if device.type == "cuda":
                torch.cuda.empty_cache()
        if not fits:
            raise SystemExit("no batch fits; give a smaller --batch")
        if asked.no_loader:
            return
        best = fits[-1]
        if not asked.only_loader:
            rates = {b: b / statistics.median(details[f"batch_{b}"]["times"]["step"]) for b in fits}
            best = max(fits, key=rates.__getitem__)
        with tempfile.TemporaryDirectory() as made:
            folder = asked.data or Path(made)
            if asked.data is None:
                size = write_photos(folder, max(2 * best, 64 if asked.mode == "tiny" or device.type == "cpu" else 1024))
                print(f"\nJPEG files of {WIDTH}x{HEIGHT}, {size:.0f} kB, read from the page cache")
            found, details["fed"] = fed(asked, best, processes, folder)
            figures += found
    finally:  # what was measured is told, even where a later part fails
        report("gpu_step", asked, facts, figures, details)


if __name__ == "__main__":
    main()
