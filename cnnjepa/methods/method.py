"""The interface between the training loop and a method.

Shapes: B images of H x W pixels, features of R rows and L columns of cells.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from cnnjepa.masks import Masks
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.extent import Extent


class StepLoss(NamedTuple):
    """Result of a method's forward pass. The loss of the step is the sum of `total` over processes and parts, divided
    by the sum of `weight`."""

    total: Tensor
    """Sum of the loss over the terms of this batch, with gradient."""
    weight: Tensor
    """Number of those terms (target cells, images)."""
    scalars: dict[str, Tensor] = {}  # noqa: RUF012 - never written to
    """Further figures of this batch, by name, without gradient. Those of process 0 are logged."""

    @property
    def mean(self) -> Tensor:
        """Return the loss of this batch alone."""
        return self.total / self.weight


class StepDraw(NamedTuple):
    """The arguments of a step's random choices."""

    grid: Extent
    """Cells per side of the feature grid, or (rows, columns)."""
    batch_indices: Tensor
    """int64 [B], global batch indices of this process, in host memory. Masks are drawn there, and their number of
    visible cells decides all later shapes, so these are known without a request to the device."""
    seed: int
    step: int

    @property
    def slots(self) -> Tensor:
        """Deprecated name of `batch_indices`."""
        return self.batch_indices


class Pass(NamedTuple):
    """Part of a training step, for counting FLOPs."""

    module: nn.Module
    shape: tuple[int, ...]
    """Shape of one input, without the batch dimension."""
    forwards: float
    """Number of forward passes per image; a fraction if only part of the input is computed."""
    trained: bool = True
    """True if the part has a backward pass, which costs twice the forward pass."""
    sees_images: bool = False
    """True if the input needs no gradient, which saves the gradient of the first layer's input."""


class Method(nn.Module, ABC):
    """A method of pretraining an encoder. Its config defines its views. At every step the loop calls `inputs`,
    `follow`, `terms` and `forward`."""

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder"}
    """Submodules that can be probed: `context`, which has gradients, and `target` if there is a moving average. Each is
    a dense network, images [B, K, H, W] of `data.channels` channels → features [B, C, R, L]."""

    feature_dim: int

    @classmethod
    @abstractmethod
    def build(cls, section: Any, backbone: Any, config: PretrainConfig, classes: int) -> Self:
        """Build the method with random weights from torch's generator, which is seeded. `section` is `config.method`.
        `backbone` is the encoder's network, images [B, K, H, W] of `data.channels` channels → features [B,
        `backbone.feature_dim`, R, L]. `classes` is the number of classes of the data set."""

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """Return the arguments of `forward`: the normalised views first. The first dimension of every tensor is the
        batch."""
        return views

    def terms(self, *inputs: Tensor) -> Tensor:
        """Return the number of loss terms of these inputs: the `weight` that `forward` will return."""
        return inputs[0].new_full((), float(inputs[0].shape[0]))  # a copy from the host would wait for the GPU

    @abstractmethod
    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the loss of these inputs."""

    def follow(self, momentum: float) -> None:
        """Update the networks that follow by moving average; called before every step. It is not called for methods
        without `ema` in their config."""
        raise AssertionError(f"{type(self).__name__} has an ema in its config but no network that follows")

    def masks(self, *inputs: Tensor) -> Masks | None:
        """Return the context and target among these inputs, for pictures; None if nothing is masked."""
        return None

    @abstractmethod
    def passes(self, config: PretrainConfig) -> list[Pass]:
        """Return the parts of a training step on one image. Losses, norms and activations are left out."""

    def compiled(self) -> list[nn.Module]:
        """Return modules of fixed shapes, which can be passed to torch.compile."""
        return [self.get_submodule(path) for path in self.encoders.values()]

    def probed_encoder(self, which: str) -> nn.Module:
        """Return the dense network whose features are probed."""
        return self.get_submodule(self.encoders[which])
