"""The complete config of a pretraining run, and the checks across its sections."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.data import DataConfig, SyntheticData
from cnnjepa.schemas.encoder import AnyEncoderConfig, EncoderConfig
from cnnjepa.schemas.extent import Extent, area, as_text, as_yaml, extent_of, height_width
from cnnjepa.schemas.method import CNNJEPAConfig, MethodConfig
from cnnjepa.schemas.optimization import AdamWConfig, OptimizerConfig, ScheduleConfig
from cnnjepa.schemas.probe import ProbeConfig
from cnnjepa.schemas.runtime import RuntimeConfig
from cnnjepa.schemas.views import View


class PretrainConfig(Section):
    """A pretraining run: method, encoder, data, optimiser, schedule, probe, runtime."""

    method: MethodConfig = CNNJEPAConfig()
    """The pretraining method and its settings."""

    encoder: AnyEncoderConfig = EncoderConfig()
    """The network that is pretrained."""

    data: DataConfig = SyntheticData()
    """The images."""

    optimizer: OptimizerConfig = Field(default=AdamWConfig(), discriminator="name")
    """The optimiser, which updates the weights."""

    schedule: ScheduleConfig = ScheduleConfig()
    """The schedule of the learning rate."""

    probe: ProbeConfig = ProbeConfig()
    """The evaluation of the frozen features."""

    runtime: RuntimeConfig = RuntimeConfig()
    """Device, precision, batch size, epochs, seed, and the intervals of logs and checkpoints."""

    @property
    def grid(self) -> Extent:
        """Cells per side of the feature grid; (rows, columns) if they differ."""
        height, width = height_width(self.data.image_size)
        return extent_of(height // self.encoder.total_stride, width // self.encoder.total_stride)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of a training crop: channels, height and width in pixels."""
        return self.data.channels, *height_width(self.data.image_size)

    @property
    def views(self) -> tuple[View, ...]:
        """The views of every image, in order."""
        return self.method.image_views(self.data, self.encoder.total_stride)

    @property
    def visible_share(self) -> float:
        """Expected fraction of cells that the encoder with gradients sees; 1 if nothing is masked."""
        masks = self.method.masks
        return masks.mean_context(self.grid) / area(self.grid) if masks else 1.0

    @property
    def computed_share(self) -> float:
        """Expected fraction of cells that a context encoder computes: the visible ones when packed, all when masked."""
        return self.visible_share if self.encoder.computes_visible_only else 1.0

    @property
    def trained_epochs(self) -> int:
        """Number of training epochs; 0 for `random_init`."""
        return self.runtime.epochs if self.method.TRAINS else 0

    @property
    def probed_encoder(self) -> Literal["target", "context"]:
        """`probe.encoder` with `auto` resolved to the encoder that the method's authors evaluate."""
        if self.probe.encoder != "auto":
            return self.probe.encoder
        return self.method.PROBED

    @model_validator(mode="after")
    def _method_can_use_encoder(self) -> Self:
        self.method.check_encoder(self.encoder)
        return self

    @model_validator(mode="after")
    def _image_size_fits_stride(self) -> Self:
        size, stride = self.data.image_size, self.encoder.total_stride
        # One side of a rectangle may be a single cell.
        least = 2 * stride if isinstance(size, int) else stride
        for side in dict.fromkeys(height_width(size)):
            if side % stride:
                lower, upper = side // stride * stride, (side // stride + 1) * stride
                valid = f"{lower} or {upper}" if lower >= least else f"{max(upper, least)}"
                which = "" if isinstance(size, int) else f": its side {side}"
                raise ValueError(
                    f"data.image_size {as_yaml(size)}{which} is not divisible by the encoder's total stride {stride} "
                    f"({self.encoder.stride_in_words}); the nearest valid value is {valid}"
                )
        if area(size) < 2 * stride**2:
            raise ValueError(
                f"data.image_size {as_yaml(size)} gives a grid of one cell at total stride {stride}; use at least "
                f"{2 * stride}, or a {self.encoder.smaller_stride}"
            )
        return self

    @model_validator(mode="after")
    def _views_fit_stride(self) -> Self:
        self.method.check_sizes(self.data, self.encoder)
        return self

    @model_validator(mode="after")
    def _colours_need_rgb(self) -> Self:
        if self.data.channels != 3 and any(view.colours.jitter or view.colours.grey for view in self.views):
            raise ValueError(
                f"method {self.method.name}: its views use colour jitter or grey, which are defined for RGB only, and "
                f"data.channels is {self.data.channels}; set jitter=0 and grey=0 in each of its views, or use "
                "a method that changes no colours (cnnjepa, spark, ijepa)"
            )
        return self

    @model_validator(mode="after")
    def _masking_fits_grid(self) -> Self:
        masks = self.method.masks
        if masks is None:
            return self
        try:
            masks.check(self.grid)
            if not isinstance(self.grid, int):
                masks.mean_context(self.grid)
        except TypeError as error:  # a strategy of the user's, written for square grids
            if isinstance(self.grid, int):
                raise
            raise ValueError(
                f"masking {masks.strategy} does not take the {as_text(self.grid)} grid of data.image_size "
                f"{as_yaml(self.data.image_size)} ({error}); a grid that is not square is passed as (rows, columns), "
                "and cnnjepa.extend.height_width gives both sides of any grid"
            ) from error
        return self

    @model_validator(mode="after")
    def _probed_encoder_exists(self) -> Self:
        if self.probe.encoder == "target" and self.method.moving_average is None:
            raise ValueError(
                f"probe.encoder=target: method {self.method.name} has no moving average, only the encoder that learns; "
                "must be auto or context"
            )
        return self

    @model_validator(mode="after")
    def _probe_sees_whole_crops(self) -> Self:
        shorter = min(height_width(self.data.image_size))
        if self.probe.resize is not None and self.probe.resize < shorter:
            side = "" if isinstance(self.data.image_size, int) else f" (its shorter side is {shorter})"
            raise ValueError(
                f"probe.resize {self.probe.resize} is below data.image_size {as_yaml(self.data.image_size)}{side}, so "
                f"the centre crop would be padded; must be null or at least {shorter}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.schedule.warmup_epochs >= self.runtime.epochs:
            raise ValueError(
                f"schedule.warmup_epochs {self.schedule.warmup_epochs:g} must be less than runtime.epochs "
                f"{self.runtime.epochs}, or the peak learning rate is never left"
            )
        return self

    @model_validator(mode="after")
    def _kept_epochs_exist(self) -> Self:
        beyond = [n for n in self.runtime.keep_epochs if not 1 <= n <= self.runtime.epochs]
        if beyond:
            raise ValueError(
                f"runtime.keep_epochs names {beyond}; must be between 1 and runtime.epochs {self.runtime.epochs}"
            )
        return self

    def warnings(self) -> list[str]:
        """Return warnings about settings that are allowed but rarely intended, one sentence each."""
        found = self.method.warnings(self.encoder, self.grid)
        if self.runtime.accumulation > 1 and self.method.COMPARES_IMAGES:
            found.append(
                f"runtime.accumulation {self.runtime.accumulation}: {self.method.name} compares the images of one part "
                f"only, {self.runtime.batch_size // self.runtime.accumulation} at a time; a smaller batch gives the "
                "same at less waiting"
            )
        return found + self._fine_grid() + self._stretched_crops()

    def _fine_grid(self) -> list[str]:
        """Warn about an encoder for small images that is applied to large ones, for example the default size of
        photographs with the preset `demo`."""
        if area(self.grid) < 28**2:
            return []
        size, stride = self.data.image_size, self.encoder.total_stride
        return [
            f"data.image_size {as_yaml(size)} at the encoder's total stride {stride} is a grid of "
            f"{as_text(self.grid)} cells, where the presets have 7x7 or 8x8, and a step takes time for each cell; "
            f"data.image_size={8 * stride} gives 8x8, and so does a preset for larger images"
        ]

    def _stretched_crops(self) -> list[str]:
        """Warn about a rectangle whose aspect no crop of the images can have."""
        height, width = height_width(self.data.image_size)
        (narrow, wide), aspect = self.data.augmentation.crop_ratio, width / height
        if height == width or narrow <= aspect <= wide or not self.method.TRAINS:
            return []
        return [
            f"data.image_size {as_yaml(self.data.image_size)} has the aspect (width/height) {aspect:.3g} and "
            f"data.augmentation.crop_ratio is [{narrow:.3g}, {wide:.3g}], so every training crop is stretched; "
            f"data.augmentation.crop_ratio=[{0.75 * aspect:.3g}, {aspect / 0.75:.3g}] stretches by at most 4/3, as the "
            "default does for squares"
        ]
