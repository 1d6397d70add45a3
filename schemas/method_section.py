"""The facts about a method that other code needs, declared by the method's config."""

from typing import ClassVar, Literal

from cnnjepa.schemas.data import DataConfig
from cnnjepa.schemas.ema import EMAConfig
from cnnjepa.schemas.encoder import AnyEncoderConfig, EncoderKind, archs_of
from cnnjepa.schemas.extension import BASES, ExtensibleSection, Kind
from cnnjepa.schemas.extent import Extent
from cnnjepa.schemas.masking import MaskingSection
from cnnjepa.schemas.views import PLAIN, View, ViewConfig


class MethodSection(ExtensibleSection):
    """The config of a method. All code outside the method's own module reads these declarations and hooks, never the
    class. The defaults describe a method that trains on one view, has no masking and learns without labels."""

    EXTENDS: ClassVar[Kind] = "method"

    PROBED: ClassVar[Literal["target", "context"]] = "context"
    """The encoder that `probe.encoder: auto` selects: the one that the method's authors evaluate."""

    REFUSED_ENCODERS: ClassVar[dict[EncoderKind, str]] = {}
    """Kinds of encoders that the method cannot use, each with the reason, which follows "method NAME" in an error."""

    COMPARES_IMAGES: ClassVar[bool] = False
    """True if an image's loss depends on the other images of its batch."""

    LEARNS_FROM_LABELS: ClassVar[bool] = False
    """True if training uses labels. Such a method trains without the images that the probes hold out."""

    TRAINS: ClassVar[bool] = True
    """True if there are training steps."""

    PROBE_SETTINGS_IN_TRAINING: ClassVar[tuple[str, ...]] = ()
    """Probe settings that affect the content of the checkpoint and are therefore part of the run's name."""

    name: str
    """The method that this section configures."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colour settings of every image's views, in order. The default is one crop with unchanged colours."""
        return (PLAIN,)

    @property
    def moving_average(self) -> EMAConfig | None:
        """The field `ema`; None for methods without it, whose `follow` is never called."""
        return getattr(self, "ema", None)

    @property
    def masks(self) -> MaskingSection | None:
        """The field `masking`; None for methods without it."""
        return getattr(self, "masking", None)

    @property
    def synchronises_batch_norm(self) -> bool:
        """The field `sync_batch_norm`: true if batch-norm statistics are those of the global batch."""
        return getattr(self, "sync_batch_norm", False)

    def image_views(self, data: DataConfig, stride: int) -> tuple[View, ...]:
        """Return the views of every image with sizes and crops, in the order of `views`. `stride` is the encoder's
        total stride."""
        return tuple(View(colours, data.image_size, data.augmentation) for colours in self.views)

    def check_encoder(self, encoder: AnyEncoderConfig) -> None:
        """Raise ValueError for an encoder that the method cannot use."""
        if reason := self.REFUSED_ENCODERS.get(encoder.KIND):
            ours: tuple[EncoderKind, ...] = ("convolutional", "transformer")
            possible = [kind for kind in ours if kind not in self.REFUSED_ENCODERS]
            raise ValueError(
                f"encoder.arch={encoder.arch}: method {self.name} {reason}; must be one of "
                f"{', '.join(arch for kind in possible for arch in archs_of(kind))}"
            )

    def check_sizes(self, data: DataConfig, encoder: AnyEncoderConfig) -> None:
        """Raise ValueError for sizes of views that do not fit the encoder's stride. `data.image_size` is known to
        fit."""

    def warnings(self, encoder: AnyEncoderConfig, grid: Extent) -> list[str]:
        """Return warnings about settings that are allowed but rarely intended, one sentence each. `grid` is the number
        of cells per side, or (rows, columns)."""
        return []


BASES["method"] = MethodSection
