"""What the training loop knows of a method, and no more.

Shapes: B images, S pixels a side, G cells a side.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from cnnjepa.masks import Masks
from cnnjepa.schemas import PretrainConfig


class StepLoss(NamedTuple):
    """What a method's forward gives. The step's loss is the sum over processes and parts of `total`, divided by
    the sum of `weight`."""

    total: Tensor
    """Sum of the loss over this batch's terms, with gradient."""
    weight: Tensor
    """Number of those terms (target cells, images)."""
    scalars: dict[str, Tensor] = {}  # noqa: RUF012 - never written to
    """Further figures of this batch, by name, without gradient; process 0's are logged."""

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone."""
        return self.total / self.weight


class StepDraw(NamedTuple):
    """What the random choices of a step are a function of."""

    grid: int
    """Cells a side of the feature grid."""
    slots: Tensor
    """int64 [B], this process's places in the global batch, in host memory: what is drawn there (masks, whose number of
    visible cells decides the shapes of everything after) is known without asking a device."""
    seed: int
    step: int


class Pass(NamedTuple):
    """Part of a training step, for counting FLOPs."""

    module: nn.Module
    shape: tuple[int, ...]
    """Of one input, without the batch."""
    forwards: float
    """How often it is computed for an image; a share where only a part is."""
    trained: bool = True
    """Whether it has a backward, of twice its forward."""
    sees_images: bool = False
    """Whether its input needs no gradient, which saves the first layer's."""


class Method(nn.Module, ABC):
    """One way of learning an encoder. Its views are its config's; the loop calls, at every step, `inputs`, `follow`,
    `terms` and `forward`."""

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder"}
    """Submodules that can be probed: `context`, which has gradients, and `target` where there is a moving average. Each
    is a dense network, images [B, 3, S, S] → features [B, C, G, G]."""

    feature_dim: int

    @classmethod
    @abstractmethod
    def build(cls, section: Any, backbone: Any, config: PretrainConfig, classes: int) -> Self:
        """The method with random weights drawn from torch's generator, which is seeded. `section` is `config.method`;
        `backbone` is the encoder's network, images [B, 3, S, S] → features [B, `backbone.feature_dim`, G, G]; `classes`
        is the number of classes of the data set."""

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """What `forward` takes: the normalised views first, every tensor's first axis the batch's."""
        return views

    def terms(self, *inputs: Tensor) -> Tensor:
        """The number of loss terms of these inputs: the `weight` that `forward` will give."""
        return inputs[0].new_tensor(float(inputs[0].shape[0]))

    @abstractmethod
    def forward(self, *inputs: Tensor) -> StepLoss:
        """The loss over these inputs."""

    def follow(self, momentum: float) -> None:
        """Before every step: moves what follows by moving average. Methods without one have no `ema` in their config
        and are not asked."""
        raise AssertionError(f"{type(self).__name__} has an ema in its config and nothing that follows")

    def masks(self, *inputs: Tensor) -> Masks | None:
        """What of these inputs is context and target, for pictures; None where nothing is masked."""
        return None

    @abstractmethod
    def passes(self, config: PretrainConfig) -> list[Pass]:
        """The parts of a training step on one image. Losses, norms and activations are left out."""

    def compiled(self) -> list[nn.Module]:
        """Modules of fixed shapes, which torch.compile may take."""
        return [self.get_submodule(path) for path in self.encoders.values()]

    def probed_encoder(self, which: str) -> nn.Module:
        """The dense network whose features are judged."""
        return self.get_submodule(self.encoders[which])
