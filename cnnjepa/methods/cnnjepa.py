"""CNN-JEPA (arXiv 2408.07514, section III): predict features of masked patches from the visible ones."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.methods.cell_loss import cell_loss
from cnnjepa.methods.ema import follow
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.predictor import Predictor
from cnnjepa.schemas import CNNJEPAConfig, EMAConfig, LossConfig, MaskingConfig, MixedMasking, PretrainConfig
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.sparse import ContextEncoder, context_encoder
from cnnjepa.tensor_ops.transfer import moved


class CNNJEPA(Method):
    """Context encoder, target encoder, mask token, predictor and loss.

    `encoder` computes the context sparsely. The target encoder is a dense copy of it that follows by moving average.
    `projection` is an optional 1x1 head on both feature maps (off in every published number).
    """

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder.network", "target": "target_encoder"}

    def __init__(
        self,
        encoder: ContextEncoder,
        predictor: Predictor,
        feature_dim: int,
        masking: MaskingConfig | None = None,
        ema: EMAConfig | None = None,
        loss: LossConfig | None = None,
        projection: nn.Conv2d | None = None,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.masking = masking or MixedMasking()
        self.ema = ema or EMAConfig()
        self.loss = loss or LossConfig()
        self.context_encoder = encoder
        self.target_encoder = encoder.dense_copy()
        self.projection = projection if projection is not None else nn.Identity()
        self.target_projection = nn.Identity() if projection is None else _twin(projection)
        for module in (self.target_encoder, self.target_projection):
            module.requires_grad_(False)
        dim = feature_dim if projection is None else projection.out_channels
        self.predictor = predictor
        # Standard deviation 0.02, truncated at ±0.02: effectively about 0.011 (docs/sources.md#mask-token).
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02, a=-0.02, b=0.02))

    @classmethod
    def build(cls, section: CNNJEPAConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        dim, width = backbone.feature_dim, section.predictor.projection_dim
        projection = nn.Conv2d(dim, width, 1) if width else None
        predictor = Predictor(width or dim, section.predictor)
        encoder = context_encoder(backbone, config.encoder)
        return cls(encoder, predictor, dim, section.masking, section.ema, section.loss, projection)

    def draw_masks(self, grid: Extent, indices_B: Tensor, seed: int, step: int) -> Masks:
        """Draw the masks of a step; see `sample_masks`."""
        return sample_masks(self.masking, grid, indices_B, seed, step)

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """Return the view and its masks. The context mask stays in host memory, where a packed encoder counts its
        cells."""
        masks = self.draw_masks(draw.grid, draw.batch_indices, draw.seed, draw.step)
        return (*views, masks.context, moved(masks.target, views[0].device))

    def masks(self, *inputs: Tensor) -> Masks:
        """Return the masks among the inputs."""
        return Masks(*inputs[1:])

    def terms(self, *inputs: Tensor) -> Tensor:
        """Return the number of target cells."""
        return inputs[2].sum(dtype=torch.float32)

    def forward(self, images_BCHW: Tensor, context_mask: Tensor, target_mask: Tensor) -> StepLoss:  # type: ignore[override]
        """Return the loss over the target cells of this batch. Masks are boolean [B, rows, columns], on the images'
        device or in host memory. No cell may be in both."""
        # The target encoder runs first, so that its temporary memory is not added to the activations that the context
        # encoder keeps for the backward pass.
        with torch.no_grad():
            target = self.target_projection(self.target_encoder(images_BCHW))
        context = self.projection(self.context_encoder(images_BCHW, context_mask))
        return self.compare(context, target, context_mask, target_mask)

    def compare(self, context_BCGG: Tensor, target_BCGG: Tensor, context_mask: Tensor, target_mask: Tensor) -> StepLoss:
        """Return the loss between target features and the features predicted from the context, whose masked cells are
        filled with the mask token."""
        context_mask, target_mask = (moved(mask, context_BCGG.device) for mask in (context_mask, target_mask))
        token = self.token.to(context_BCGG.dtype)[:, None, None]
        prediction = self.predictor(torch.where(context_mask[:, None], context_BCGG, token))
        losses = cell_loss(prediction, target_BCGG, self.loss)
        return StepLoss(torch.where(target_mask, losses, losses.new_zeros(())).sum(), target_mask.sum())

    def follow(self, momentum: float) -> None:
        """Update ξ ← m ξ + (1 − m) θ over parameters only. The target keeps its own running statistics."""
        follow(
            (
                (self.target_encoder, self.context_encoder.network),
                (self.target_projection, self.projection),
            ),
            momentum,
        )

    def passes(self, config: PretrainConfig) -> list[Pass]:
        """Return the parts of a step. The packed context encoder costs the visible fraction of a dense one; the masked
        encoder computes every cell."""
        images = config.image_shape
        share = config.computed_share
        grid = height_width(config.grid)
        features = (self.feature_dim, *grid)
        found = [
            Pass(self.target_encoder, images, 1, trained=False),
            Pass(self.target_encoder, images, share, sees_images=True),
            Pass(self.predictor, (self.token.numel(), *grid), 1),
        ]
        if isinstance(self.projection, nn.Conv2d):
            found += [Pass(self.projection, features, 1, trained=False), Pass(self.projection, features, 1)]
        return found

    def compiled(self) -> list[nn.Module]:
        """Return the modules for torch.compile. The packed encoder is excluded: its number of cells differs between
        steps."""
        return [self.target_encoder, self.predictor]


def _twin(convolution: nn.Conv2d) -> nn.Conv2d:
    twin = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1)
    twin.load_state_dict(convolution.state_dict())
    return twin
