"""Examination of this machine for a config: versions, devices, correctness and speed of the packed path, bottleneck."""

import contextlib
import copy
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnnjepa.commands import command
from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Normalizer, Order, training_batches
from cnnjepa.data.held_out import refuse_unlabelled, training_set
from cnnjepa.data.open import refuse_part_of_a_batch
from cnnjepa.encoders import build_backbone
from cnnjepa.encoders.custom import feature_dim_of, features_of, load_network
from cnnjepa.masks import sample_masks
from cnnjepa.measuring.step_timer import StepTimer, seconds
from cnnjepa.schemas import ConfigError, EncoderConfig, PretrainConfig, RandomMasking
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.sparse.fitness import TOLERANCE, compare, judge_layers
from cnnjepa.training.distributed import Processes, pick_device, use_threads
from cnnjepa.training.environment import environment
from cnnjepa.training.failures import explaining
from cnnjepa.training.resolve import resolve

_BATCH = 16


class Finding(NamedTuple):
    """One result of the examination. `ok` is None if there is nothing to judge."""

    name: str
    value: str
    ok: bool | None = None


def examine(config: PretrainConfig) -> Iterator[Finding]:
    """Yield the findings as they are made."""
    device = pick_device(config.runtime.device)
    use_threads(config.runtime)
    facts = environment(Processes(0, 1, device))
    for name in ("cnnjepa", "python", "torch", "torchvision", "pydantic"):
        yield Finding(name, str(facts[name]))
    usable = "" if facts["cpus_usable"] == facts["cpu_count"] else f", {facts['cpus_usable']} of them for this process"
    yield Finding("CPU", f"{facts['cpu']}, {facts['cpu_count']} cores{usable}, {facts['threads']} threads used")
    yield Finding("GPUs", ", ".join(facts["gpus"]) or "none; training runs on the CPU")
    error = packed_error(device)
    yield Finding("packed encoder = masked encoder", f"relative error {error:.1e} (float64)", error < TOLERANCE)
    if config.encoder.KIND != "transformer":
        yield _speed(config, device)
    try:
        data = open_data(config.data)
        config = resolve(config, data.resident, device, measured=data.measured)
        refuse_unlabelled(config, data.labelled, data.name)
        data = training_set(config, data)
        refuse_part_of_a_batch(data.name, data.train.labels.numel(), config.runtime.batch_size, 1)
    except ConfigError as refusal:
        yield Finding("data", str(refusal), False)
        return
    if data.found:
        yield Finding("images", data.found)
    for note in data.notes:
        yield Finding("data", note)
    model = training_rate(config, device)
    yield Finding("model", f"{model:,.0f} images/s (training step, batch {config.runtime.batch_size})")
    loader = _data_rate(config, data, device)
    kind = "resident" if data.resident else f"{config.runtime.workers} workers"
    yield Finding("data", f"{loader:,.0f} images/s ({data.name}, {kind})")
    if data.resident:
        yield Finding("bottleneck", f"the model; augmentation takes {100 * model / (model + loader):.0f} % of the time")
    elif loader > 1.2 * model:
        yield Finding("bottleneck", "the model: the loader keeps up", True)
    else:
        need = max(1, round(config.runtime.workers * 1.2 * model / loader + 0.5))
        yield Finding("bottleneck", f"the data; about {need} workers would keep up (--set workers={need})", None)


def examine_encoder(named: str, channels: int = 3) -> Iterator[Finding]:
    """Examine whether the network `package.module:Name` can be a packed context encoder of images with that many
    channels. Raises ConfigError if it
    cannot be imported, or if its features are not a map."""
    network = load_network(named)
    stride = _stride_of(network, named, channels)
    dim = feature_dim_of(network, stride, named, channels)
    parameters = sum(p.numel() for p in network.parameters())
    yield Finding("encoder", f"{named}, {parameters:,} parameters, {dim} channels, total stride {stride}")
    refused = list(judge_layers(network))
    for verdict in refused:
        yield Finding(f"layer {verdict.layer}", verdict.finding, False)
    if not refused:
        # Images of the comparison have three channels; a layer without bias in front makes others of them.
        lifted = network if channels == 3 else nn.Sequential(nn.Conv2d(3, channels, 1, bias=False), network)
        verdict = compare(lifted, stride)
        verdict = verdict._replace(layer=verdict.layer.removeprefix("1."))
        yield Finding(f"layer {verdict.layer}" if verdict.layer else "the whole", verdict.finding, verdict.ok)
    if not refused and verdict.ok:
        settings = ["encoder.arch=custom", f"encoder.module={named}", f"total_stride={stride}"]
        yield Finding("use it", command(*(word for setting in settings for word in ("--set", setting))))


def _stride_of(network: nn.Module, named: str, channels: int) -> int:
    size = 256
    features = features_of(network, size, named, channels)
    shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if not isinstance(features, Tensor) or features.dim() != 4 or not features.shape[-1] or size % features.shape[-1]:
        raise ConfigError(
            f"encoder {named}: images of {size} px give {shape}; features must be a map [B, C, G, G] whose side "
            "divides the image's. Leave out pooling and classifier"
        )
    return size // features.shape[-1]


def packed_error(device: torch.device) -> float:
    """Return the largest relative difference between the two backends in output, gradients and running statistics, in
    float64."""
    encoder = EncoderConfig(arch="resnet18", width=0.125, stem="half")
    backbone = build_backbone(encoder, 0).double().train().to(device)
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    packed, masked = PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone)
    images = torch.rand(4, 3, 64, 96, dtype=torch.float64, device=device) - 0.5
    context = sample_masks(RandomMasking(), (4, 6), torch.arange(4, device=device), 0, 0).context
    for model in (packed, masked):
        model(images, context).square().sum().backward()
    pairs = [
        (packed(images, context), masked(images, context)),
        *[(p.grad, q.grad) for p, q in zip(packed.parameters(), masked.parameters(), strict=True)],
        *[(p.double(), q.double()) for p, q in zip(packed.buffers(), masked.buffers(), strict=True)],
    ]
    return max(_relative(p, q) for p, q in pairs if p is not None and q is not None)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-12))


def _speed(config: PretrainConfig, device: torch.device) -> Finding:
    """Compare the speed of the packed encoder with the stock dense one, forward and backward, in alternating runs."""
    backbone = build_backbone(config.encoder, 0, config.data.channels).to(device).to(memory_format=torch.channels_last)
    dense, packed = copy.deepcopy(backbone), PackedEncoder(backbone)
    images = torch.rand(_BATCH, *config.image_shape, device=device).contiguous(memory_format=torch.channels_last)
    context = sample_masks(RandomMasking(ratio=0.5), config.grid, torch.arange(_BATCH, device=device), 0, 0).context
    share = float(context.float().mean())
    times: dict[str, list[float]] = {"dense": [], "packed": []}
    for _ in range(4):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.runtime.precision == "bf16"):
            times["dense"].append(seconds(lambda: dense(images).float().square().mean().backward(), device))
            times["packed"].append(seconds(lambda: packed(images, context).float().square().mean().backward(), device))
    ratio = statistics.median(times["packed"][1:]) / statistics.median(times["dense"][1:])
    where = f"{100 * share:.0f} % visible, {config.runtime.precision}"
    text = f"{ratio:.2f} of the stock dense time at {where} (efficiency {share / ratio:.2f})"
    advice = "" if ratio < 1 else "; try --set backend=masked, and see docs/performance.md"
    return Finding("packed encoder's time", text + advice, True if ratio < 1 else None)


def training_rate(config: PretrainConfig, device: torch.device) -> float:
    """Return the images per second of a training step on random pixels at the config's batch size: the median of four
    steps, after one warm-up step."""
    with explaining(config):
        step = StepTimer(config, device)
        step(0)
        return config.runtime.batch_size / statistics.median([step(number) for number in range(1, 5)])


def _data_rate(config: PretrainConfig, data: DataSet, device: torch.device) -> float:
    order = Order(data.train.labels.numel(), config.runtime.batch_size, 0, 1, 0)
    normalize = Normalizer(config.data, device)
    steps = max(4, min(20, 4000 // config.runtime.batch_size))
    loaded = training_batches(data, config.data, order, 0, steps, config.runtime.workers, device)
    with explaining(config), contextlib.closing(loaded) as batches:
        normalize(next(batches).pixels.to(device))  # waits until the workers have started
        start, seen = time.perf_counter(), 0
        for batch in batches:
            seen += normalize(batch.pixels.to(device)).shape[0]
        return seen / (time.perf_counter() - start)
