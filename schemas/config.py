"""The whole of what a pretraining run is asked for, and the checks across its sections."""

from typing import Self

from pydantic import Field, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.data import DataConfig, SyntheticData
from cnnjepa.schemas.encoder import EncoderConfig
from cnnjepa.schemas.method import CNNJEPAConfig
from cnnjepa.schemas.optimization import OptimizerConfig, ScheduleConfig
from cnnjepa.schemas.probe import ProbeConfig
from cnnjepa.schemas.runtime import RuntimeConfig


class PretrainConfig(Section):
    """A pretraining run: method, encoder, data, optimiser, schedule, probe, runtime."""

    method: CNNJEPAConfig = CNNJEPAConfig()
    """What is learned, and from what."""

    encoder: EncoderConfig = EncoderConfig()
    """The network that is pretrained."""

    data: DataConfig = Field(default=SyntheticData(), discriminator="source")
    """The images."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """How weights are updated."""

    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate moves."""

    probe: ProbeConfig = ProbeConfig()
    """How the result is judged."""

    runtime: RuntimeConfig = RuntimeConfig()
    """Where and how long."""

    @property
    def grid(self) -> int:
        """Cells a side of the feature grid."""
        return self.data.image_size // self.encoder.total_stride

    @property
    def visible_share(self) -> float:
        """Expected share of cells that the context encoder sees."""
        return self.method.masking.mean_context(self.grid) / self.grid**2

    @model_validator(mode="after")
    def _image_size_fits_stride(self) -> Self:
        size, stride = self.data.image_size, self.encoder.total_stride
        if size % stride:
            lower, upper = size // stride * stride, (size // stride + 1) * stride
            legal = f"{lower} or {upper}" if lower >= 2 * stride else f"{max(upper, 2 * stride)}"
            raise ValueError(
                f"data.image_size {size} is not divisible by the encoder's total stride {stride} "
                f"(stem {self.encoder.stem}, {self.encoder.stages} stages); the nearest legal is {legal}"
            )
        if size < 2 * stride:
            raise ValueError(
                f"data.image_size {size} gives a grid of one cell at total stride {stride}; use at least "
                f"{2 * stride}, or a stem of smaller stride (half, small)"
            )
        return self

    @model_validator(mode="after")
    def _masking_fits_grid(self) -> Self:
        self.method.masking.check(self.grid)
        return self

    @model_validator(mode="after")
    def _probe_sees_whole_crops(self) -> Self:
        if self.probe.resize is not None and self.probe.resize < self.data.image_size:
            raise ValueError(
                f"probe.resize {self.probe.resize} is below data.image_size {self.data.image_size}, so the centre crop "
                f"would be padded; legal are null and {self.data.image_size} or more"
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
            raise ValueError(f"runtime.keep_epochs names {beyond}; legal are 1 to runtime.epochs {self.runtime.epochs}")
        return self

    def cautions(self) -> list[str]:
        """Things that are legal but seldom meant, one sentence each."""
        found = []
        kernel = self.method.predictor.kernel_size
        if kernel > 2 * self.grid - 1:
            found.append(
                f"predictor.kernel_size {kernel} reaches past the {self.grid}x{self.grid} grid from every cell; "
                f"weights beyond {2 * self.grid - 1} only ever see padding"
            )
        return found
