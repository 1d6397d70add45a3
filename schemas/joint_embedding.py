"""Methods that make views of an image agree: SimCLR, BYOL, VICReg, LeJEPA."""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.ema import StepwiseEMAConfig
from cnnjepa.schemas.views import BYOLFirstView, BYOLSecondView, LeJEPAView, SimCLRView, VICRegView, ViewConfig


class _TwoViews(Section):
    """What methods of two views share."""

    sync_batch_norm: bool = True
    """Whether batch-norm statistics are those of the global batch. Source: METHOD, on. One process needs nothing;
    several use torch's own on GPUs and an equivalent of ours on CPUs (cnnjepa/methods/synchronised.py)."""


class SimCLRConfig(_TwoViews):
    """Tell an image's two views from all other views of the batch (arXiv 2002.05709)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("view", "hidden_dim", "output_dim")

    name: Literal["simclr"] = "simclr"
    """Which method this section configures."""

    view: SimCLRView = SimCLRView()
    """Colours of both views."""

    hidden_dim: int = Field(default=2048, ge=8)
    """Width of the projector's hidden layer. Source: METHOD, 2048."""

    output_dim: int = Field(default=128, ge=8)
    """Width of the projector's output. Source: METHOD, 128."""

    temperature: float = Field(default=0.1, gt=0)
    """Similarities are divided by this. Source: METHOD, 0.1."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colours of every image's views, in order."""
        return (self.view, self.view)


class BYOLConfig(_TwoViews):
    """Predict a moving average's projection of the other view (arXiv 2006.07733)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("hidden_dim", "output_dim", "ema")

    name: Literal["byol"] = "byol"
    """Which method this section configures."""

    first_view: BYOLFirstView = BYOLFirstView()
    """Colours of the first view."""

    second_view: BYOLSecondView = BYOLSecondView()
    """Colours of the second view."""

    hidden_dim: int = Field(default=4096, ge=8)
    """Width of the projector's hidden layer. Source: METHOD, 4096 on in1k, 1024 on
    in100."""

    predictor_hidden_dim: int = Field(default=4096, ge=8)
    """Width of the predictor's hidden layer. Source: METHOD, 4096 on in1k, 1024 on in100."""

    output_dim: int = Field(default=256, ge=8)
    """Width of projections and predictions. Source: METHOD, 256."""

    ema: StepwiseEMAConfig = StepwiseEMAConfig(start=0.99)
    """Moving average of encoder and projector. Start 0.99: the BYOL paper's for short runs; METHOD names none."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colours of every image's views, in order."""
        return (self.first_view, self.second_view)


class VICRegConfig(_TwoViews):
    """Equal projections of both views, held apart by their variance and covariance (arXiv 2105.04906)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("view", "hidden_dim", "output_dim")

    name: Literal["vicreg"] = "vicreg"
    """Which method this section configures."""

    view: VICRegView = VICRegView()
    """Colours of both views."""

    hidden_dim: int = Field(default=8192, ge=8)
    """Width of the projector's two hidden layers. Source: METHOD, 8192."""

    output_dim: int = Field(default=8192, ge=8)
    """Width of the projector's output. Source: METHOD, 8192."""

    invariance: float = Field(default=25.0, ge=0)
    """Weight of the distance between the views' projections. Source: METHOD, 25."""

    variance: float = Field(default=25.0, ge=0)
    """Weight of the hinge that keeps every output's standard deviation at 1. Source: METHOD, 25."""

    covariance: float = Field(default=1.0, ge=0)
    """Weight of the outputs' squared covariances. Source: METHOD, 1."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colours of every image's views, in order."""
        return (self.view, self.view)


class LeJEPAConfig(_TwoViews):
    """Views whose projections agree and are, over the batch, distributed as an isotropic Gaussian: no teacher, no
    negatives (arXiv 2511.08544). Global views are cropped as `data.augmentation` says; local ones are smaller crops."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("view", "hidden_dim", "output_dim")

    name: Literal["lejepa"] = "lejepa"
    """Which method this section configures."""

    view: LeJEPAView = LeJEPAView()
    """Colours of all views, global and local."""

    global_views: int = Field(default=2, ge=1, le=16)
    """Views of `data.image_size`. Source: paper, 2."""

    local_views: int = Field(default=6, ge=0, le=16)
    """Further, smaller views. Source: paper, 6; with 0 there are global views only."""

    local_size: int | None = Field(default=None, ge=8)
    """Side of a local view in pixels, a multiple of the encoder's total stride. None: 98/224 of `data.image_size`, to
    the nearest multiple. Source: paper, 98 beside 224."""

    local_scale: tuple[float, float] = (0.05, 0.3)
    """Least and greatest share of the image's area in a local crop. Source: paper, 0.05 to 0.3, beside 0.3 to 1 for
    global ones (`data.augmentation.crop_scale`)."""

    centre: Literal["auto", "global", "all"] = "auto"
    """Views whose mean all views are drawn to: the global ones or all. `auto`: global for vision transformers, all for
    other encoders. Source: paper, Algorithm 2."""

    hidden_dim: int = Field(default=2048, ge=8)
    """Width of the projector's two hidden layers. Source: the authors' minimal example, 2048."""

    output_dim: int = Field(default=128, ge=2)
    """Width of the projector's output. Source: the authors' minimal example, 128 by default."""

    regularization: float = Field(default=0.05, gt=0, lt=1)
    """Share λ of the Gaussian regularisation in the loss; 1 − λ is the views' agreement. Source: paper, 0.05."""

    slices: int = Field(default=256, ge=1)
    """Random directions onto which projections are projected, new at every step. Source: paper, Algorithm 1, 256."""

    knots: int = Field(default=17, ge=3)
    """Points at which characteristic functions are compared, odd, over [−5, 5]. Source: paper, 17."""

    @field_validator("knots")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, so that 0 is among them; the nearest are {value - 1} and {value + 1}")
        return value

    @field_validator("local_scale")
    @classmethod
    def _share(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError("must be two shares of the image's area, 0 < least <= greatest <= 1")
        return value

    @model_validator(mode="after")
    def _something_agrees(self) -> Self:
        if self.global_views + self.local_views < 2:
            raise ValueError(
                f"global_views {self.global_views} and local_views {self.local_views} are one view, which has nothing "
                "to agree with; legal are two or more together"
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
        """The colours of every image's views, in order: global ones first."""
        return (self.view,) * (self.global_views + self.local_views)
