"""The encoder: the network, changes to its stem and width, and the backend of the sparse computation."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from cnnjepa.schemas.extension import BASES, ExtensibleSection, Kind, extensible
from cnnjepa.schemas.initial_weights import Init, init_reference
from cnnjepa.schemas.numbers import exact

Arch = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"]
Stem = Literal["imagenet", "half", "small"]
Backend = Literal["packed", "masked"]
EncoderKind = Literal["convolutional", "custom", "transformer"]

VIT_HEADS = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12}

STEM_STRIDE: dict[Stem, int] = {"imagenet": 4, "half": 2, "small": 1}


class EncoderSection(ExtensibleSection):
    """The config of an encoder."""

    EXTENDS: ClassVar[Kind] = "encoder"

    KIND: ClassVar[EncoderKind] = "custom"
    """The kind of encoder, which decides which methods can use it."""

    SIGNED_FEATURES: ClassVar[bool] = False
    """True if features are known to have negative values."""

    arch: str
    """The network that this section configures."""

    init: Init = "random"
    """Initial weights: `random`; `imagenet` (torchvision's default weights of this network); `timm:NAME` (timm's
    pretrained weights); another run (its folder, or its hash or the beginning of it, for a run in `runs/by_hash` below
    the root); a file with a state dict (`.pt`, `.safetensors`, or a checkpoint in a run folder); `hf:FOLDER` (an
    exported encoder, or a folder with `model.safetensors`). Tensors are matched by name, and the first layer is adapted
    to `data.channels`. Not hashed; the fingerprint of the weights is."""

    init_encoder: Literal["auto", "target", "context"] = "auto"
    """The encoder that is taken from another run: `target`, `context`, or `auto` for the one that the run probes. Not
    hashed; the fingerprint of the weights is."""

    init_fingerprint: str = ""
    """SHA-256 of the tensors with which the encoder starts; empty if they are random. Filled in when a run begins."""

    @property
    def warm(self) -> bool:
        """True if the encoder starts from given weights."""
        return self.init != "random"

    @model_validator(mode="before")
    @classmethod
    def _random_weights_have_no_fingerprint(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("init", "random") == "random":
            return {k: v for k, v in given.items() if k != "init_fingerprint" or not isinstance(v, str)}
        return given

    @model_validator(mode="after")
    def _only_a_run_has_two_encoders(self) -> Self:
        if self.init_encoder != "auto" and init_reference(self.init).kind != "path":
            raise ValueError(
                f"encoder.init_encoder={self.init_encoder} selects an encoder of another run, and encoder.init is "
                f"{self.init}; must be auto"
            )
        return self

    @property
    def stride_in_words(self) -> str:
        """The settings that determine the total stride, in words."""
        return self.arch

    @property
    def smaller_stride(self) -> str:
        """The settings of a config with a smaller total stride, in words."""
        return "network of smaller stride"

    @property
    def short_name(self) -> str:
        """Name for results and tables, with every setting that makes a different network."""
        return self.arch

    @property
    def computes_visible_only(self) -> bool:
        """The field `backend`: true if the context encoder computes visible patches only."""
        return getattr(self, "backend", None) == "packed"

    @property
    def in_other_libraries(self) -> bool:
        """True if torchvision or timm has this network, so that weights can be exported to it."""
        return False

    @property
    def own_network(self) -> str | None:
        """`package.module:Name` of a user-defined network; None for built-in ones."""
        return None

    @property
    def attention_heads(self) -> int:
        """Number of attention heads of every block; 0 without attention."""
        return 0


class EncoderConfig(EncoderSection):
    """A torchvision residual network with random weights (no classifier)."""

    KIND: ClassVar[EncoderKind] = "convolutional"
    SIGNED_FEATURES: ClassVar[bool] = False

    arch: Arch = "resnet50"
    """Name of the torchvision network. Source: docs/sources.md#encoder-arch; wider and deeper ones:
    docs/sources.md#log-encoder."""

    stem: Stem = "imagenet"
    """`imagenet`: 7x7 stride 2, then max-pooling (stride 4); `half`: 3x3 stride 2, no pooling; `small`: 3x3
    stride 1, no pooling. Source: docs/sources.md#encoder-arch; `small` is the usual choice for CIFAR."""

    stages: Literal[3, 4] = 4
    """Number of residual stages; each after the first halves the resolution. 3 leaves out `layer4`, which gives 32 px
    images an 8x8 grid with the `small` stem. Source: 4 is torchvision's; 3 is ours, for the demo."""

    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on the channels of every layer (1 = torchvision's). 64·width must be a whole number of at least 4 (for
    resnext50_32x4d, 4·width a whole number). Source: ours, for encoders that a laptop can train."""

    backend: Backend = "packed"
    """Backend of the context encoder: `packed` computes visible patches only; `masked` computes densely and sets every
    layer's output to zero at masked cells, as the known implementations do. Both give the same numbers (float64:
    1e-9)."""

    @property
    def total_stride(self) -> int:
        """Side of a cell of the feature grid in input pixels."""
        return int(STEM_STRIDE[self.stem] * 2 ** (self.stages - 1))

    @property
    def short_name(self) -> str:
        """A name such as `resnet18/small/3 stages/x0.375`. Default settings are left out."""
        parts: list[str] = [self.arch, *([self.stem] if self.stem != "imagenet" else [])]
        parts += [f"{self.stages} stages"] if self.stages != 4 else []
        return "/".join(parts + _width_in_words(self.width))

    @property
    def in_other_libraries(self) -> bool:
        """True if this is one of torchvision's networks, unchanged except for the missing classifier."""
        return (self.stem, self.stages, self.width) == ("imagenet", 4, 1)

    @property
    def stride_in_words(self) -> str:
        """The settings that determine the total stride, in words."""
        return f"stem {self.stem}, {self.stages} stages"

    @property
    def smaller_stride(self) -> str:
        """The settings of a config with a smaller total stride, in words."""
        return "stem of smaller stride (half, small)"

    @model_validator(mode="after")
    def _whole_channels(self) -> Self:
        unit = 4 if self.arch == "resnext50_32x4d" else 64
        least = 1 if unit == 4 else 4
        if (unit * self.width) % 1 or unit * self.width < least:
            raise ValueError(
                f"width {self.width:g} gives {self.arch} {unit * self.width:g} channels in its "
                f"{'groups' if unit == 4 else 'stem'}; {unit}·width must be a whole number of at least {least}, "
                f"for example {max(least, round(unit * self.width)) / unit!r}"
            )
        return self


class ConvNeXtConfig(EncoderSection):
    """A torchvision ConvNeXt with random weights (no classifier, no stochastic depth): 7x7 depthwise convolutions,
    layer norm over channels. Its total stride is 32."""

    KIND: ClassVar[EncoderKind] = "convolutional"
    SIGNED_FEATURES: ClassVar[bool] = True  # the last layer is a sum without ReLU

    arch: Literal["convnext_tiny", "convnext_small"] = "convnext_tiny"
    """Name of the torchvision network. Source: arXiv 2201.03545; not in the paper."""

    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on the channels of every layer (1 = torchvision's); 96·width must be a whole number of at least 8."""

    backend: Backend = "packed"
    """Backend of the context encoder: `packed` or `masked`, as for residual networks."""

    @property
    def short_name(self) -> str:
        """A name such as `convnext_tiny/x0.5`."""
        return "/".join([self.arch, *_width_in_words(self.width)])

    @property
    def total_stride(self) -> int:
        """Side of a cell of the feature grid in input pixels."""
        return 32

    @model_validator(mode="after")
    def _whole_channels(self) -> Self:
        if (96 * self.width) % 1 or 96 * self.width < 8:
            raise ValueError(
                f"width {self.width:g} gives {self.arch} {96 * self.width:g} channels in its stem; 96·width must be a "
                f"whole number of at least 8, for example {max(8, round(96 * self.width)) / 96!r}"
            )
        return self


class _UserEncoder(EncoderSection):
    """Settings shared by both ways of naming a user-defined network."""

    total_stride: int = Field(ge=2, le=64)
    """Side of a cell of its feature map in input pixels."""

    backend: Backend = "packed"
    """Backend of the context encoder; `cnnjepa doctor --encoder` tests whether the network can be packed."""


class CustomEncoderConfig(_UserEncoder):
    """A user-defined convolutional network; see docs/own_encoder.md."""

    KIND: ClassVar[EncoderKind] = "custom"
    SIGNED_FEATURES: ClassVar[bool] = False  # unknown

    arch: Literal["custom"] = "custom"
    """`custom`: the class that `module` names."""

    module: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:Name` of a torch module that is created without arguments and maps images [B, 3, H, W] to
    features [B, C, H / total_stride, W / total_stride]. Its code is not part of a run's name: rename the class when it
    changes."""

    @property
    def own_network(self) -> str:
        return self.module

    @property
    def short_name(self) -> str:
        return self.module


class OwnEncoderSection(_UserEncoder):
    """The config of a user-defined network, named by `arch: package.module:Name`. The network is a torch module that
    maps images [B, 3, H, W] to features [B, C, H / total_stride, W / total_stride]. It is created without arguments, or
    with this section if the class has a `Config`."""

    arch: str
    """`package.module:Name`."""

    @classmethod
    def fields_of(cls, implementation: Any) -> dict[str, Any]:
        """Return the class's `total_stride`, if it has one."""
        stride = getattr(implementation, "total_stride", None)
        return {"total_stride": (Annotated[int, Field(ge=2, le=64)], stride)} if isinstance(stride, int) else {}

    @property
    def own_network(self) -> str:
        return self.arch

    @property
    def stride_in_words(self) -> str:
        """The settings that determine the total stride, in words."""
        return f"total_stride {self.total_stride}"


class ViTConfig(EncoderSection):
    """A vision transformer made of timm's blocks with random weights: no class token, fixed sine-cosine positions."""

    KIND: ClassVar[EncoderKind] = "transformer"
    SIGNED_FEATURES: ClassVar[bool] = True  # the last layer is a layer norm

    arch: Literal["vit_tiny", "vit_small", "vit_base"] = "vit_small"
    """Width 192, 384 or 768 with 3, 6 or 12 heads. Source: docs/sources.md#ijepa-encoder; vit_tiny is ours, for small
    images."""

    patch_size: int = Field(default=16, ge=2, le=32)
    """Side of a patch in pixels. Source: docs/sources.md#ijepa-patch."""

    blocks: int = Field(default=12, ge=1, le=48)
    """Number of transformer blocks. Source: docs/sources.md#ijepa-encoder; fewer are ours, for a CPU."""

    @property
    def short_name(self) -> str:
        """A name such as `vit_small/16`, with the number of blocks if it is not 12."""
        return f"{self.arch}/{self.patch_size}" + (f"/{self.blocks} blocks" if self.blocks != 12 else "")

    @property
    def in_other_libraries(self) -> bool:
        """True: timm has it."""
        return True

    @property
    def attention_heads(self) -> int:
        return self.heads

    @property
    def heads(self) -> int:
        """Number of attention heads of every block."""
        return VIT_HEADS[self.arch]

    @property
    def total_stride(self) -> int:
        """Side of a cell of the feature grid in input pixels."""
        return self.patch_size

    @property
    def stride_in_words(self) -> str:
        """The settings that determine the total stride, in words."""
        return f"patch_size {self.patch_size}"

    @property
    def smaller_stride(self) -> str:
        """The settings of a config with a smaller total stride, in words."""
        return "smaller patch_size"


def _width_in_words(width: float) -> list[str]:
    return [f"x{exact(width)}"] if width != 1 else []


BASES["encoder"] = OwnEncoderSection

IMPLEMENTATIONS: dict[type[EncoderSection], str] = {
    EncoderConfig: "cnnjepa.encoders.resnet:build_resnet",
    ConvNeXtConfig: "cnnjepa.encoders.convnext:build_convnext",
    ViTConfig: "cnnjepa.encoders.vit:build_vit",
    CustomEncoderConfig: "cnnjepa.encoders.custom:build_custom",
}
"""Config class of every built-in kind of encoder, and the function that builds it, imported when a run needs it."""

if TYPE_CHECKING:
    AnyEncoderConfig = EncoderConfig | ConvNeXtConfig | ViTConfig | CustomEncoderConfig | OwnEncoderSection
else:
    AnyEncoderConfig = extensible("encoder", IMPLEMENTATIONS)


def archs_of(kind: EncoderKind) -> list[str]:
    """Return the names of the built-in encoders of a kind."""
    return [arch for m in IMPLEMENTATIONS if kind == m.KIND for arch in get_args(m.model_fields["arch"].annotation)]
