"""Probes on cached features of ImageNet-100's size: time, peak memory, and what probing during training costs.

126,689 x 2,048 random features and 5,000 to judge, 100 classes: 90 epochs of the linear probe with one learning rate
and with the five of protocol `held_out` at once, and the k-NN probe. The products on a CPU are timed by both libraries.
Quick mode takes an eighth of the bank and one epoch, and multiplies; full mode takes it all. The cost of online probes
is put together from measured parts; the JSON holds them.

    python benchmarks/probes.py                     # about 8 minutes on one thread
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from figures import Figure, add_options, median, ratio, report
from resident_set import UNKNOWN, peak_beyond
from timing import alternately

from cnnjepa.measuring.step_timer import StepTimer, seconds
from cnnjepa.methods import build_method
from cnnjepa.probes.diagnostics import diagnose
from cnnjepa.probes.features import Features, encoder_embed
from cnnjepa.probes.knn import knn_accuracies
from cnnjepa.probes.linear import linear_curve
from cnnjepa.schemas import ProbeConfig, load_config
from cnnjepa.tensor_ops.matmul import linear
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

IMAGES, JUDGED, CHANNELS, CLASSES = 126_689, 5_000, 2048, 100
_GIB = 2.0**30


class Size(NamedTuple):
    """Amount of work of a mode."""

    share: float
    """Part of the bank."""
    epochs: int
    """Timed with one rate in one go."""
    rounds: int
    batch: int
    """Images of the timed step and forward."""
    arch: str


_MODES = {
    "full": Size(1.0, 90, 3, 16, "resnet50"),
    "quick": Size(0.125, 1, 3, 16, "resnet50"),
    "tiny": Size(0.01, 1, 1, 2, "resnet18"),
}


def random_features(rows: int, seed: int) -> Features:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (rows,), generator=draw)
    return Features(torch.randn(rows, CHANNELS, generator=draw), labels)


def memory(name: str, work: Callable[[], object], **further: object) -> list[Figure]:
    found = peak_beyond(work)
    if found is None:
        print(f"{name}: {UNKNOWN}")
        return []
    return [Figure(name, found / _GIB, unit="GiB", **further)]  # type: ignore[arg-type]


def probes(size: Size, device: torch.device) -> tuple[list[Figure], dict[str, Any]]:
    bank, judged = random_features(int(IMAGES * size.share), 0), random_features(JUDGED, 1)
    few = bank.take(torch.arange(2))
    probe = ProbeConfig()
    rates = probe.held_out_lrs

    def trained(lrs: tuple[float, ...], epochs: int = 1) -> None:
        linear_curve(bank, judged, CLASSES, lrs, epochs, probe.linear_batch_size, device)

    def judging(lrs: tuple[float, ...]) -> None:
        """An epoch of a single step: what does not grow with the bank."""
        linear_curve(few, judged, CLASSES, lrs, 1, probe.linear_batch_size, device)

    def nearest() -> None:
        knn_accuracies(bank, judged, CLASSES, [probe.knn_k], probe.knn_temperature, device)

    stated = f"{len(bank.labels):,} x {CHANNELS:,}, {CLASSES} classes"
    held = [  # first, while the process holds nothing that could be used again
        *memory("k-NN, memory beyond the features", nearest, target=1.0, direction="at_most", note=stated),
        *memory("linear probe, memory beyond the features", lambda: trained(rates), note=stated),
    ]
    x, weight = bank.values[:512], torch.randn(len(rates) * CLASSES, CHANNELS)
    products = alternately(
        {"torch": lambda: F.linear(x, weight), "ours": lambda: linear(x, weight)}, 5 * size.rounds, warm_up=3
    )
    times = alternately(
        {
            "one": lambda: trained(rates[:1]), "all": lambda: trained(rates), "k-NN": nearest,
            "judging, one": lambda: judging(rates[:1]), "judging, all": lambda: judging(rates),
        },
        size.rounds, device,
    )  # fmt: skip
    whole = seconds(lambda: trained(rates[:1], size.epochs), device) if size.epochs > 1 else None
    epochs = probe.linear_epochs
    multiplied = stated if size.share == 1 else f"measured at {stated}, multiplied by {1 / size.share:g}"

    def epoch(which: str) -> list[float]:
        """Seconds of an epoch on the whole bank: only the training part grows with it."""
        fixed = times[f"judging, {which}"]
        return [(t - f) / size.share + f for t, f in zip(times[which], fixed, strict=True)]

    figures = [
        median(f"linear probe, {epochs} epochs, one rate", [t * epochs for t in epoch("one")], unit="s",
               note=f"one epoch x {epochs}; {multiplied}"),
        median(f"linear probe, {epochs} epochs, {len(rates)} rates at once",
               [t * epochs for t in epoch("all")], unit="s", note=f"one epoch x {epochs}; {multiplied}"),
        ratio(f"{len(rates)} rates at once / one", epoch("all"), epoch("one"), target=1.5, direction="at_most",
              note=f"the products are {len(rates)} times as many: little more only where reading features is the time"),
        median(f"k-NN of {JUDGED:,}", [t / size.share for t in times["k-NN"]], unit="s", note=multiplied),
        ratio("product of a probe's step, torch's / ours", products["torch"], products["ours"],
              note="float32 [512, 2048] x [2048, 500]"),
        *held,
    ]  # fmt: skip
    if whole is not None:
        figures.append(Figure(f"linear probe, {size.epochs} epochs in one go", whole, unit="s", note=stated))
    probing = {which: statistics.median(epoch(which)) * epochs for which in ("one", "all")}
    return figures, {"times": times, "products": products, "linear_s": probing}


def online(size: Size, device: torch.device) -> tuple[Figure, dict[str, float]]:
    """Share of a default in100 run that its probes during training take, from parts measured here."""
    config = load_config("in100", overrides=[f"runtime.batch_size={size.batch}", f"encoder.arch={size.arch}",
                                             "runtime.precision=float32", f"runtime.device={device.type}"])  # fmt: skip
    timer = StepTimer(config, device)
    method = build_method(config).to(device)
    embed = encoder_embed(method.get_submodule("target_encoder"), config, device)
    pixels = torch.zeros(size.batch, 3, config.data.image_size, config.data.image_size, dtype=torch.uint8)
    parts = alternately({"step": lambda: timer(0), "forward": lambda: embed(pixels)}, size.rounds, device)
    step, forward = (statistics.median(parts[name]) / size.batch for name in ("step", "forward"))
    few = random_features(max(int(config.probe.online_images * min(1.0, 4 * size.share)), 400), 2)
    held = few.labels.numel() // 10
    rest, asked = few.take(torch.arange(held, few.labels.numel())), few.take(torch.arange(held))
    ks = [k for k in config.probe.held_out_ks if k <= rest.labels.numel() // 10]
    rows = few.labels.numel() / config.probe.online_images
    knn = seconds(lambda: knn_accuracies(rest, asked, CLASSES, ks, 0.1, device), device) / rows**2
    health = seconds(lambda: diagnose(few.values), device) / rows
    epochs, every = config.runtime.epochs, config.probe.every_epochs
    looks = (epochs - 1) // every
    a_look = config.probe.online_images * forward + knn + health
    training = epochs * IMAGES * step
    found = {
        "step_s_an_image": step, "forward_s_an_image": forward, "knn_s": knn, "diagnostics_s": health,
        "online_images": config.probe.online_images, "looks": looks, "seconds_a_look": a_look,
        "training_s": training, "epochs": epochs, "training_images": IMAGES,
    }  # fmt: skip
    note = (
        f"{looks} probes of {config.probe.online_images:,} images, {epochs} epochs of {IMAGES:,}, both on this machine"
    )
    return Figure("online probes / training", 100 * looks * a_look / training, "%", 5.0, "at_most", note=note), found


def from_images(probing: dict[str, float], forward: float, rates: int) -> Figure:
    """Return the cost of further learning rates in a linear probe that begins with images, as a run's does: features
    are extracted once for all rates. It is put together from parts measured here."""
    extracting = (IMAGES + JUDGED) * forward
    value = (extracting + probing["all"]) / (extracting + probing["one"])
    note = f"features extracted once, {extracting:,.0f} s; then {probing['all']:.0f} s against {probing['one']:.0f} s"
    return Figure(f"a linear probe from images on, {rates} rates / one", value, "", 1.5, "at_most", note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    add_options(parser)
    asked = parser.parse_args()
    device = pick_device(asked.device)
    size = _MODES[asked.mode]
    figures, details = probes(size, device)
    share, parts = online(size, device)
    facts = environment(Processes(0, 1, device))
    further = from_images(details["linear_s"], parts["forward_s_an_image"], len(ProbeConfig().held_out_lrs))
    report("probes", asked, facts, [*figures, further, share], {**details, "online": parts})


if __name__ == "__main__":
    main()
