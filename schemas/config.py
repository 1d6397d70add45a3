"""The whole of what a pretraining run is asked for, and the checks across its sections."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.data import DataConfig, SyntheticData
from cnnjepa.schemas.encoder import (
    VIT_HEADS,
    AnyEncoderConfig,
    ConvNeXtConfig,
    CustomEncoderConfig,
    EncoderConfig,
    ViTConfig,
)
from cnnjepa.schemas.joint_embedding import LeJEPAConfig, SimCLRConfig, VICRegConfig
from cnnjepa.schemas.masked_modelling import IJEPAConfig, SparKConfig
from cnnjepa.schemas.method import CNNJEPAConfig, MethodConfig, RandomInitConfig
from cnnjepa.schemas.optimization import AdamWConfig, OptimizerConfig, ScheduleConfig
from cnnjepa.schemas.probe import ProbeConfig
from cnnjepa.schemas.runtime import RuntimeConfig
from cnnjepa.schemas.views import View

_LOCAL_SHARE = 98 / 224  # sides of LeJEPA's local and global views in its paper


class PretrainConfig(Section):
    """A pretraining run: method, encoder, data, optimiser, schedule, probe, runtime."""

    method: MethodConfig = Field(default=CNNJEPAConfig(), discriminator="name")
    """What is learned, and from what."""

    encoder: AnyEncoderConfig = Field(default=EncoderConfig(), discriminator="arch")
    """The network that is pretrained."""

    data: DataConfig = Field(default=SyntheticData(), discriminator="source")
    """The images."""

    optimizer: OptimizerConfig = Field(default=AdamWConfig(), discriminator="name")
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
    def views(self) -> tuple[View, ...]:
        """The views of every image, in order; LeJEPA's local ones last."""
        data, local = self.data, self.method if isinstance(self.method, LeJEPAConfig) else None
        whole = len(self.method.views) - (local.local_views if local else 0)
        small = local and data.augmentation.model_copy(update={"crop_scale": local.local_scale})
        return tuple(
            View(colours, self.local_size, small)
            if small and number >= whole
            else View(colours, data.image_size, data.augmentation)
            for number, colours in enumerate(self.method.views)
        )

    @property
    def local_size(self) -> int:
        """`method.local_size` of LeJEPA, decided; otherwise, and where there are no local views, `data.image_size`."""
        if not isinstance(self.method, LeJEPAConfig) or not self.method.local_views:
            return self.data.image_size
        stride = self.encoder.total_stride
        return self.method.local_size or stride * max(1, int(_LOCAL_SHARE * self.data.image_size / stride + 0.5))

    @property
    def visible_share(self) -> float:
        """Expected share of cells that the encoder with gradients sees; 1 where nothing is masked."""
        if isinstance(self.method, CNNJEPAConfig | IJEPAConfig | SparKConfig):
            return self.method.masking.mean_context(self.grid) / self.grid**2
        return 1.0

    @property
    def trained_epochs(self) -> int:
        """Epochs of training: none for `random_init`."""
        return 0 if isinstance(self.method, RandomInitConfig) else self.runtime.epochs

    @property
    def probed_encoder(self) -> Literal["target", "context"]:
        """`probe.encoder` with `auto` decided: what the method's authors evaluate."""
        if self.probe.encoder != "auto":
            return self.probe.encoder
        return "target" if isinstance(self.method, CNNJEPAConfig | IJEPAConfig) else "context"

    @model_validator(mode="after")
    def _method_can_use_encoder(self) -> Self:
        transformer = isinstance(self.encoder, ViTConfig)
        if transformer and isinstance(self.method, CNNJEPAConfig | SparKConfig):
            raise ValueError(
                f"encoder.arch={self.encoder.arch}: method {self.method.name} hides patches of convolutional networks; "
                f"legal with it are {_convolutional()}"
            )
        if isinstance(self.method, SparKConfig):
            self._spark_can_use_encoder(self.method)
        if isinstance(self.method, IJEPAConfig):
            if not transformer:
                raise ValueError(
                    f"encoder.arch={self.encoder.arch}: method ijepa drops hidden tokens, which only transformers "
                    "have; legal with it are vit_tiny, vit_small, vit_base"
                )
            heads = 4 * VIT_HEADS[self.encoder.arch]
            if self.method.predictor.dim % heads:
                lower = max(1, self.method.predictor.dim // heads) * heads
                raise ValueError(
                    f"predictor.dim {self.method.predictor.dim} is not a multiple of 4 x {heads // 4}, the heads of "
                    f"{self.encoder.arch}; the nearest are {lower} and {lower + heads}"
                )
        return self

    def _spark_can_use_encoder(self, method: SparKConfig) -> None:
        if isinstance(self.encoder, CustomEncoderConfig):
            raise ValueError(
                "encoder.arch=custom: method spark takes a map after every stage, and a network of your own has no "
                f"stages that it knows of; legal with it are {_convolutional()}"
            )
        stride, width = self.encoder.total_stride, method.decoder_dim
        if width is not None and width % stride:
            lower = width // stride * stride
            nearest = f"{lower} or {lower + stride}" if lower else str(stride)
            raise ValueError(
                f"method.decoder_dim {width} is not a multiple of the encoder's total stride {stride} "
                f"({_makes_stride(self.encoder)}), so it cannot be halved at each of {stride.bit_length() - 1} "
                f"upsamplings; the nearest legal is {nearest}"
            )

    @model_validator(mode="after")
    def _image_size_fits_stride(self) -> Self:
        size, stride = self.data.image_size, self.encoder.total_stride
        if size % stride:
            lower, upper = size // stride * stride, (size // stride + 1) * stride
            legal = f"{lower} or {upper}" if lower >= 2 * stride else f"{max(upper, 2 * stride)}"
            raise ValueError(
                f"data.image_size {size} is not divisible by the encoder's total stride {stride} "
                f"({_makes_stride(self.encoder)}); the nearest legal is {legal}"
            )
        if size < 2 * stride:
            raise ValueError(
                f"data.image_size {size} gives a grid of one cell at total stride {stride}; use at least "
                f"{2 * stride}, or a {_smaller_stride(self.encoder)}"
            )
        return self

    @model_validator(mode="after")
    def _local_size_fits_stride(self) -> Self:
        size, stride, largest = self.local_size, self.encoder.total_stride, self.data.image_size
        if size % stride or size > largest:
            lower = min(size // stride * stride, largest) or stride
            legal = f"{lower} or {lower + stride}" if stride <= lower and lower + stride <= largest else str(lower)
            raise ValueError(
                f"method.local_size {size} must be a multiple of the encoder's total stride {stride} "
                f"({_makes_stride(self.encoder)}) of at most data.image_size {largest}; the nearest legal is {legal}"
            )
        return self

    @model_validator(mode="after")
    def _masking_fits_grid(self) -> Self:
        if isinstance(self.method, CNNJEPAConfig | IJEPAConfig | SparKConfig):
            self.method.masking.check(self.grid)
        return self

    @model_validator(mode="after")
    def _probed_encoder_exists(self) -> Self:
        if self.probe.encoder == "target" and not hasattr(self.method, "ema"):
            raise ValueError(
                f"probe.encoder=target: method {self.method.name} has no moving average, only the encoder that learns; "
                "legal are auto and context"
            )
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
        if isinstance(self.method, CNNJEPAConfig) and (kernel := self.method.predictor.kernel_size) > 2 * self.grid - 1:
            found.append(
                f"predictor.kernel_size {kernel} reaches past the {self.grid}x{self.grid} grid from every cell; "
                f"weights beyond {2 * self.grid - 1} only ever see padding"
            )
        if self.runtime.accumulation > 1 and isinstance(self.method, SimCLRConfig | VICRegConfig | LeJEPAConfig):
            found.append(
                f"runtime.accumulation {self.runtime.accumulation}: {self.method.name} compares the images of one part "
                f"only, {self.runtime.batch_size // self.runtime.accumulation} at a time; a smaller batch gives the "
                "same at less waiting"
            )
        return found + self._signed_targets() + self._fine_grid()

    def _fine_grid(self) -> list[str]:
        """An encoder for small images on large ones: the default size of photographs under the preset `demo`, say."""
        if self.grid < 28:
            return []
        size, stride = self.data.image_size, self.encoder.total_stride
        return [
            f"data.image_size {size} at the encoder's total stride {stride} is a grid of {self.grid}x{self.grid} "
            "cells, where the presets have 7x7 or 8x8, and a step takes time for each cell; data.image_size="
            f"{8 * stride} gives 8x8, and so does a preset for larger images"
        ]

    def _signed_targets(self) -> list[str]:
        """CNN-JEPA's predictor ends in a ReLU, so it reaches no negative value of a target."""
        if not isinstance(self.method, CNNJEPAConfig):
            return []
        if self.method.predictor.projection_dim:
            signed = f"predictor.projection_dim {self.method.predictor.projection_dim} ends in a 1x1 convolution"
        elif isinstance(self.encoder, ConvNeXtConfig):
            signed = f"encoder.arch={self.encoder.arch} ends in a sum without ReLU"
        else:
            return []
        return [
            f"{signed}, whose features are signed, and the predictor ends in a ReLU: it cannot predict negative values"
        ]


def _convolutional() -> str:
    models = (EncoderConfig, ConvNeXtConfig)
    return ", ".join(arch for model in models for arch in get_args(model.model_fields["arch"].annotation))


def _makes_stride(encoder: AnyEncoderConfig) -> str:
    if isinstance(encoder, ViTConfig):
        return f"patch_size {encoder.patch_size}"
    return f"stem {encoder.stem}, {encoder.stages} stages" if isinstance(encoder, EncoderConfig) else str(encoder.arch)


def _smaller_stride(encoder: AnyEncoderConfig) -> str:
    if isinstance(encoder, ViTConfig):
        return "smaller patch_size"
    return "stem of smaller stride (half, small)" if isinstance(encoder, EncoderConfig) else "network of smaller stride"
