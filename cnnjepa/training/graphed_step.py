"""Forward and backward pass of a training step as CUDA graphs.

On a GPU a step of small kernels takes as long as the host needs to launch them. A CUDA graph launches all of them at
once, but has fixed shapes, and the number of visible cells differs between steps. It is therefore rounded up
(`rounded_up`: 32 numbers per power of two); the cells that are added are left out of every statistic. One graph is
captured per number.
"""

import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnjepa import kernels
from cnnjepa.encoders import ResNetBackbone
from cnnjepa.methods import Method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.sparse import PackedEncoder
from cnnjepa.sparse.patch_grid import PaddedCells, rounded_up
from cnnjepa.tensor_ops.transfer import moved
from cnnjepa.training.distributed import Processes


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    loss: Tensor
    gradients: list[Tensor | None]


class GraphedStep:
    """Computes loss and gradients of CNN-JEPA on one GPU.

    The first step with a number of cells runs without a graph; it compiles and loads what the graph needs. The second
    captures the graph. Memory is shared by all graphs.
    """

    def __init__(self, method: CNNJEPA, config: PretrainConfig) -> None:
        self._method, self._bf16 = method, config.runtime.precision == "bf16"
        self._parameters = [p for p in method.parameters() if p.requires_grad]
        self._met: set[int] = set()
        self._captured: dict[int, _Captured] = {}
        self._pool: Any = None
        self._images: Tensor | None = None

    @property
    def captured(self) -> int:
        """Number of graphs so far."""
        return len(self._captured)

    def __call__(self, inputs: tuple[Tensor, ...], terms: Tensor) -> Tensor:
        """Set the parameters' gradients of the loss's sum / `terms`, and return that sum. The inputs are those of
        CNNJEPA.forward. The context mask is in host memory; everything else is on the GPU."""
        images_BCHW, context_BGG, target_BGG = inputs
        cells_n3 = context_BGG.nonzero()
        count = cells_n3.shape[0]
        size = rounded_up(count)
        self._fill(images_BCHW, context_BGG, target_BGG, terms, cells_n3, size)
        if size not in self._met:
            self._met.add(size)
            return self._pass(size)
        if size not in self._captured:
            self._captured[size] = self._capture(size)
        captured = self._captured[size]
        captured.graph.replay()
        for parameter, gradient in zip(self._parameters, captured.gradients, strict=True):
            parameter.grad = gradient
        return captured.loss.clone()

    def _fill(
        self, images: Tensor, context: Tensor, target: Tensor, terms: Tensor, cells_n3: Tensor, size: int
    ) -> None:
        """Copy the inputs to where the graphs read them."""
        device = images.device
        if self._images is None:
            self._images = torch.empty_like(images)
            self._context = torch.empty_like(context, device=device)
            self._target = torch.empty_like(target)
            self._terms = torch.empty_like(terms)
            self._cells = torch.zeros(rounded_up(context.numel()), 3, dtype=torch.int64, device=device)
            self._count = torch.zeros(1, dtype=torch.int32, device=device)
        self._images.copy_(images)
        self._context.copy_(moved(context, device))
        self._target.copy_(target)
        self._terms.copy_(terms)
        padding = cells_n3.new_zeros(size - cells_n3.shape[0], 3)
        self._cells[:size].copy_(moved(torch.cat([cells_n3, padding]), device))
        self._count.fill_(cells_n3.shape[0])

    def _pass(self, size: int) -> Tensor:
        assert self._images is not None
        encoder = self._method.context_encoder
        assert isinstance(encoder, PackedEncoder)
        kind = self._images.device.type
        for parameter in self._parameters:
            parameter.grad = None
        with (
            kernels.required(),
            torch.autocast(kind, torch.bfloat16, enabled=self._bf16),
            encoder.on_padded(PaddedCells(self._cells[:size], self._count)),
        ):
            loss = self._method(self._images, self._context, self._target).total
            with torch.autocast(kind, enabled=False):
                (loss / self._terms).backward()
        found: Tensor = loss.detach()
        return found

    def _capture(self, size: int) -> _Captured:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # Only this thread's calls are checked: a loader's thread may page-lock memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = self._pass(size)
        self._pool = graph.pool()
        return _Captured(graph, loss, [p.grad for p in self._parameters])


def graphed_step(method: Method, config: PretrainConfig, processes: Processes) -> GraphedStep | None:
    """Return the graphed step if the config asks for it. Raises ConfigError if this run cannot have it."""
    if not config.runtime.cuda_graphs:
        return None
    reasons = {
        "the device is not a GPU": processes.device.type != "cuda",
        "Triton is not installed": importlib.util.find_spec("triton") is None,
        "the run has several processes": processes.world_size > 1,
        "runtime.accumulation is not 1": config.runtime.accumulation != 1,
        "runtime.compile is on": config.runtime.compile,
        "runtime.channels_last is off": not config.runtime.channels_last,
        f"method {config.method.name} is not cnnjepa": type(method) is not CNNJEPA,
    }
    if isinstance(method, CNNJEPA):
        encoder = method.context_encoder
        packed = isinstance(encoder, PackedEncoder) and isinstance(encoder.network, ResNetBackbone)
        reasons["the encoder is not a packed ResNet"] = not packed
    refused = [reason for reason, true in reasons.items() if true]
    if refused:
        raise ConfigError(f"runtime.cuda_graphs=true: not here, because {' and '.join(refused)}; use false")
    assert isinstance(method, CNNJEPA)
    return GraphedStep(method, config)
