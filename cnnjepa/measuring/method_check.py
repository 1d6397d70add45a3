"""Checks of whether a method is fit for training: gradients, terms, reproducibility after a resume, and two processes
compared with one."""

import copy
import datetime
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.measuring.doctor import Finding
from cnnjepa.methods import Method, StepDraw, build_method
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.extension import extension_of
from cnnjepa.schemas.extent import height_width
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.step import train_step

_BATCH = 8
_STEPS = 4
_CPU = torch.device("cpu")
# Largest relative difference of gradients between two processes and one, float64. The built-in methods measure below
# 1e-15.
_TOLERANCE = 1e-6


def examine_method(config: PretrainConfig) -> Iterator[Finding]:
    """Examine the config's method on a batch of 8 random images and yield the findings as they are made. Needs no
    data."""
    found = extension_of(config.method)
    method = build_method(config)
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    source = f", source {found.fingerprint[:12]}" if found else ""
    yield Finding("method", f"{config.method.name}, {count:,} parameters that learn{source}")
    yield _target(config, method)
    if not config.method.TRAINS:
        return
    yield _gradients(config)
    yield _terms(config)
    yield _resumes(config)
    yield _two_processes(config)


def _inputs(config: PretrainConfig, method: Method, step: int, indices: range = range(_BATCH)) -> tuple[Tensor, ...]:
    """Return the arguments of the method's forward pass at a step. The images depend only on the step and on the global
    batch indices."""
    dtype = next(method.parameters()).dtype
    generator = torch.Generator().manual_seed(step)
    views = tuple(
        torch.rand(_BATCH, config.data.channels, *height_width(view.size), generator=generator)[
            indices.start : indices.stop
        ].to(dtype)
        for view in config.views
    )
    labels = torch.arange(indices.start, indices.stop) % 2
    return method.inputs(views, labels, StepDraw(config.grid, torch.arange(indices.start, indices.stop), 0, step))


def _target(config: PretrainConfig, method: Method) -> Finding:
    """Check that the encoders that can be probed are those that the config declares."""
    name = "encoders that can be probed"
    wanted = {"context", "target"} if config.method.moving_average else {"context"}
    if set(method.encoders) != wanted:
        have = "a field `ema`" if config.method.moving_average else "no field `ema`"
        return Finding(
            name, f"{', '.join(method.encoders)}; with {have} they must be {', '.join(sorted(wanted))}", False
        )
    for which in method.encoders:
        method.probed_encoder(which)
    return Finding(name, ", ".join(method.encoders), True)


def _gradients(config: PretrainConfig) -> Finding:
    """Check that every parameter of the encoder has a finite gradient, and that not all gradients are 0."""
    method = build_method(config).train()
    loss = method(*_inputs(config, method, 0))
    loss.mean.backward()
    named = list(method.probed_encoder("context").named_parameters())
    without = [name for name, p in named if p.grad is None]
    broken = [name for name, p in named if p.grad is not None and not p.grad.isfinite().all()]
    name, reach = "gradients reach the encoder", sum(1 for _, p in named if p.grad is not None and p.grad.any())
    if without or broken:
        what = f"{len(without)} have none ({without[0]}, …)" if without else f"not finite in {broken[0]}"
        return Finding(name, f"of {len(named)} parameters, {what}", False)
    return Finding(name, f"{reach} of {len(named)} parameters have one that is not 0", reach > 0)


def _terms(config: PretrainConfig) -> Finding:
    """Check that `terms` returns the weight by which the loss of `forward` is divided."""
    method = build_method(config).train()
    inputs = _inputs(config, method, 0)
    told, weight = float(method.terms(*inputs)), float(method(*inputs).weight)
    value = f"terms gives {told:g}, forward's weight is {weight:g}"
    return Finding("terms match the loss's weight", value, told == weight and weight > 0)


def _train(config: PretrainConfig, method: Method, optimizer: torch.optim.Optimizer, steps: range) -> None:
    with layer_randomness(_CPU):
        for step in steps:
            inputs = _inputs(config, method, step)
            if config.method.moving_average is not None:
                method.follow(0.9)
            seed_layers(0, "layers", step, 0)
            train_step(method, optimizer, inputs, config, Processes(0, 1, _CPU))


def _resumes(config: PretrainConfig) -> Finding:
    """Check that the steps after a restart from the state dicts are equal, bit for bit, to those of a run without a
    restart."""
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"accumulation": 1})})
    states = []
    for stops in ((), (_STEPS // 2,)):
        method = build_method(config).train()
        optimizer = build_optimizer(method, config.optimizer)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        begin = 0
        for end in (*stops, _STEPS):
            _train(config, method, optimizer, range(begin, end))
            saved, begin = copy.deepcopy((method.state_dict(), optimizer.state_dict())), end
            method = build_method(config).train()
            method.load_state_dict(saved[0])
            optimizer = build_optimizer(method, config.optimizer)
            optimizer.load_state_dict(saved[1])
        states.append(saved[0])
    differing = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    name = "deterministic under resume"
    if differing:
        why = "is something kept outside parameters and buffers, or drawn from a generator that is not seeded?"
        return Finding(name, f"{differing[0]} and {len(differing) - 1} more differ after {_STEPS} steps; {why}", False)
    return Finding(name, f"{_STEPS} steps with and without a restart give the same {len(states[0])} tensors", True)


def _two_processes(config: PretrainConfig) -> Finding:
    """Check that two processes with half a batch each have the gradients of one process. Norms use their running
    statistics, which processes do not share."""
    one = _gradient_of(config, range(_BATCH), 1)
    with tempfile.TemporaryDirectory() as scratch:
        spawn(_half, args=(config, scratch), nprocs=2)
        two: Tensor = torch.load(Path(scratch) / "gradient.pt", weights_only=True)
    error = float((one - two).abs().max() / one.abs().max().clamp(min=1e-12))
    value = f"relative difference of the gradients {error:.1e} (float64, gloo)"
    if error < _TOLERANCE:
        return Finding("two processes equal one", value, True)
    if config.method.COMPARES_IMAGES:
        return Finding("two processes equal one", f"{value}: the loss compares images of one process only", None)
    why = "an image's loss depends on its batch; gather the batch, or declare COMPARES_IMAGES in the Config"
    return Finding("two processes equal one", f"{value}; {why}", False)


def _half(rank: int, config: PretrainConfig, scratch: str) -> None:
    """Run one of the two processes. The first saves the gradient."""
    torch.set_num_threads(1)
    meet = f"file://{scratch}/store"
    dist.init_process_group("gloo", meet, rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60))
    half = _BATCH // 2
    gradient = _gradient_of(config, range(rank * half, (rank + 1) * half), 2)
    if rank == 0:
        torch.save(gradient, Path(scratch) / "gradient.pt")
    dist.destroy_process_group()


def _gradient_of(config: PretrainConfig, indices: range, processes: int) -> Tensor:
    """Return the gradient of step 0's loss over the global batch as one float64 vector. This process computes the
    images at `indices`."""
    method = build_method(config).double().train()
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    inputs = _inputs(config, method, 0, indices)
    terms = method.terms(*inputs).double()
    model: nn.Module = method
    if processes > 1:
        dist.all_reduce(terms)
        with warnings.catch_warnings():  # torch deprecates the argument, as in training/pretrain.py
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            model = DistributedDataParallel(method, broadcast_buffers=False)
    with layer_randomness(_CPU):
        seed_layers(0, "layers", 0, 0)
        loss = model(*inputs)
    (loss.total * (processes / terms)).backward()
    return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
