"""Methods that make views of an image agree: SimCLR, BYOL, VICReg, LeJEPA."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.bounds import Bounds, share_of
from cnnjepa.schemas.data import DataConfig
from cnnjepa.schemas.ema import StepwiseEMAConfig
from cnnjepa.schemas.encoder import AnyEncoderConfig
from cnnjepa.schemas.extent import Extent, PixelExtent, as_yaml, extent_of, height_width
from cnnjepa.schemas.method_section import MethodSection
from cnnjepa.schemas.views import BYOLFirstView, BYOLSecondView, LeJEPAView, SimCLRView, VICRegView, View, ViewConfig

_LOCAL_SHARE = 98 / 224  # ratio of the sides of LeJEPA's local and global views in its paper


class _TwoViews(MethodSection):
    """Settings shared by the methods that compare views."""

    sync_batch_norm: bool = True
    """Compute batch-norm statistics over the global batch: with torch's SyncBatchNorm on GPUs, with an equivalent on
    CPUs (cnnjepa/methods/synchronised.py). No effect with one process. Source: docs/sources.md#sync-batch-norm."""


class SimCLRConfig(_TwoViews):
    """Distinguish an image's two views from all other views of the batch (arXiv 2002.05709)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("view", "hidden_dim", "output_dim")
    COMPARES_IMAGES: ClassVar[bool] = True

    name: Literal["simclr"] = "simclr"
    """The method that this section configures."""

    view: SimCLRView = SimCLRView()
    """Colour augmentation of both views."""

    hidden_dim: int = Field(default=2048, ge=8)
    """Width of the projector's hidden layer. Source: docs/sources.md#simclr-head."""

    output_dim: int = Field(default=128, ge=8)
    """Width of the projector's output. Source: docs/sources.md#simclr-head."""

    temperature: float = Field(default=0.1, gt=0)
    """Divisor of the similarities. Source: docs/sources.md#simclr-loss."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colour settings of every image's views, in order."""
        return (self.view, self.view)


class BYOLConfig(_TwoViews):
    """Predict the moving-average projection of the other view (arXiv 2006.07733)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("hidden_dim", "output_dim", "ema")

    name: Literal["byol"] = "byol"
    """The method that this section configures."""

    first_view: BYOLFirstView = BYOLFirstView()
    """Colour augmentation of the first view."""

    second_view: BYOLSecondView = BYOLSecondView()
    """Colour augmentation of the second view."""

    hidden_dim: int = Field(default=4096, ge=8)
    """Width of the projector's hidden layer. Source: docs/sources.md#byol-head (4096 on in1k, 1024 on in100)."""

    predictor_hidden_dim: int = Field(default=4096, ge=8)
    """Width of the predictor's hidden layer. Source: docs/sources.md#byol-head (4096 on in1k, 1024 on in100)."""

    output_dim: int = Field(default=256, ge=8)
    """Width of projections and predictions. Source: docs/sources.md#byol-head."""

    ema: StepwiseEMAConfig = StepwiseEMAConfig(start=0.99)
    """Moving average of encoder and projector. Starts at 0.99, the BYOL paper's value for short runs; the released code
    differs: docs/sources.md#byol-ema."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colour settings of every image's views, in order."""
        return (self.first_view, self.second_view)


class VICRegConfig(_TwoViews):
    """Make the projections of both views equal; variance and covariance terms prevent collapse (arXiv 2105.04906)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("view", "hidden_dim", "output_dim")
    COMPARES_IMAGES: ClassVar[bool] = True

    name: Literal["vicreg"] = "vicreg"
    """The method that this section configures."""

    view: VICRegView = VICRegView()
    """Colour augmentation of both views."""

    hidden_dim: int = Field(default=8192, ge=8)
    """Width of the projector's two hidden layers. Source: docs/sources.md#vicreg-head."""

    output_dim: int = Field(default=8192, ge=8)
    """Width of the projector's output. Source: docs/sources.md#vicreg-head."""

    invariance: float = Field(default=25.0, ge=0)
    """Weight of the distance between the views' projections. Source: docs/sources.md#vicreg-loss."""

    variance: float = Field(default=25.0, ge=0)
    """Weight of the hinge that keeps every output's standard deviation at 1. Source:
    docs/sources.md#vicreg-loss."""

    covariance: float = Field(default=1.0, ge=0)
    """Weight of the outputs' squared covariances. Source: docs/sources.md#vicreg-loss."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colour settings of every image's views, in order."""
        return (self.view, self.view)


class LeJEPAConfig(_TwoViews):
    """Make the projections of all views agree and, over the batch, follow an isotropic Gaussian distribution: no
    teacher, no negatives (arXiv 2511.08544). Global views are cropped according to `data.augmentation`; local ones are
    smaller crops."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("view", "hidden_dim", "output_dim")
    COMPARES_IMAGES: ClassVar[bool] = True

    name: Literal["lejepa"] = "lejepa"
    """The method that this section configures."""

    view: LeJEPAView = LeJEPAView()
    """Colour augmentation of all views, global and local."""

    global_views: int = Field(default=2, ge=1, le=16)
    """Number of views of size `data.image_size`. Source: docs/sources.md#lejepa-views."""

    local_views: int = Field(default=6, ge=0, le=16)
    """Number of further, smaller views; 0 means global views only. Source: docs/sources.md#lejepa-views."""

    local_size: PixelExtent | None = None
    """Side of a local view in pixels, or [height, width], multiples of the encoder's total stride. None: 98/224 of the
    sides of `data.image_size`, rounded to the nearest multiples. Source: docs/sources.md#lejepa-views (98 for global
    views of 224)."""

    local_scale: Annotated[Bounds, share_of("the image's area")] = (0.05, 0.3)
    """Smallest and largest share of the image's area in a local crop; for global crops see
    `data.augmentation.crop_scale`. Source: docs/sources.md#lejepa-views."""

    centre: Literal["auto", "global", "all"] = "auto"
    """Views whose mean attracts all views: the global ones or all. `auto`: global for vision transformers, all for
    other encoders. Source: docs/sources.md#lejepa-loss (Algorithm 2)."""

    hidden_dim: int = Field(default=2048, ge=8)
    """Width of the projector's two hidden layers. Source: docs/sources.md#lejepa-head."""

    output_dim: int = Field(default=128, ge=2)
    """Width of the projector's output. Source: docs/sources.md#lejepa-head."""

    regularization: float = Field(default=0.05, gt=0, lt=1)
    """Weight λ of the Gaussian regularisation in the loss; the agreement of the views has weight 1 − λ. Source:
    docs/sources.md#lejepa-loss."""

    slices: int = Field(default=256, ge=1)
    """Number of random directions onto which the projector's outputs are projected, drawn again at every step. Source:
    docs/sources.md#lejepa-loss."""

    knots: int = Field(default=17, ge=3)
    """Number of points at which characteristic functions are compared, odd, over [−5, 5]. Source:
    docs/sources.md#lejepa-loss."""

    @field_validator("knots")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, so that 0 is among them; the nearest are {value - 1} and {value + 1}")
        return value

    @model_validator(mode="after")
    def _something_agrees(self) -> Self:
        if self.global_views + self.local_views < 2:
            raise ValueError(
                f"global_views {self.global_views} and local_views {self.local_views} are one view, which has nothing "
                "to agree with; their sum must be at least 2"
            )
        return self

    @model_validator(mode="after")
    def _nothing_said_of_views_there_are_not(self) -> Self:
        said = [
            name
            for name in ("local_size", "local_scale")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if said and not self.local_views:
            raise ValueError(f"{said[0]} has no effect with local_views 0; leave it out, or ask for local_views")
        return self

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colour settings of every image's views, in order: global ones first."""
        return (self.view,) * (self.global_views + self.local_views)

    def size_of_local_views(self, image_size: Extent, stride: int) -> Extent:
        """Return `local_size` in pixels with None resolved; `image_size` if there are no local views."""
        if not self.local_views:
            return image_size
        if self.local_size is not None:
            return self.local_size
        sides = (stride * max(1, int(_LOCAL_SHARE * side / stride + 0.5)) for side in height_width(image_size))
        return extent_of(*sides)

    def image_views(self, data: DataConfig, stride: int) -> tuple[View, ...]:
        """Return the global views, with the crops of `data`, then the local ones."""
        small = data.augmentation.model_copy(update={"crop_scale": self.local_scale})
        local = View(self.view, self.size_of_local_views(data.image_size, stride), small)
        whole = View(self.view, data.image_size, data.augmentation)
        return (whole,) * self.global_views + (local,) * self.local_views

    def check_sizes(self, data: DataConfig, encoder: AnyEncoderConfig) -> None:
        """Raise ValueError for local views that the encoder cannot divide into cells, or that are larger than global
        ones."""
        stride = encoder.total_stride
        local = self.size_of_local_views(data.image_size, stride)
        for size, largest in zip(height_width(local), height_width(data.image_size), strict=True):
            if not size % stride and size <= largest:
                continue
            lower = min(size // stride * stride, largest) or stride
            valid = f"{lower} or {lower + stride}" if stride <= lower and lower + stride <= largest else str(lower)
            which = "" if isinstance(local, int) else f": its side {size}"
            raise ValueError(
                f"method.local_size {as_yaml(local)}{which} must be a multiple of the encoder's total stride {stride} "
                f"({encoder.stride_in_words}) of at most data.image_size {as_yaml(data.image_size)}; the nearest valid "
                f"value is {valid}"
            )
