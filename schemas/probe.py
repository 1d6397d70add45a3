"""Evaluation of frozen features."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, field_serializer, field_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.metric import AnyMetric, MetricSection, metric_list, metric_section
from cnnjepa.schemas.probe_set import ProbeSet, ProbeSets

Protocol = Literal["published", "held_out"]
FloorName = Literal["untrained", "pixels"]


class ProbeConfig(Section):
    """Linear and k-NN probes on globally average-pooled features of the frozen encoder."""

    every_epochs: int = Field(default=0, ge=0)
    """Epochs between probes during training (k-NN on the held-out tenth of the training set; validation images are not
    used); 0 = only at the end. `checkpoints/best.pt` is the checkpoint with the best such figure. Not in the probe
    hash."""

    online_images: int = Field(default=20_000, ge=100)
    """Maximum number of training images used by a probe during training, spread evenly over classes; limits its cost on
    large sets. Not in the probe hash."""

    encoder: Literal["auto", "target", "context"] = "auto"
    """The encoder that is probed: `target` (the moving average) or `context` (the one with gradients). `auto` selects
    the one that the method's authors evaluate: the target of CNN-JEPA, the context encoder of SimCLR, BYOL and
    VICReg."""

    protocols: tuple[Protocol, ...] = Field(default=("published", "held_out"), min_length=1)
    """`published`: best of all epochs on the validation set, as in the paper (optimistic). `held_out`: epoch, learning
    rate and k are chosen on a stratified tenth of the training set, the probe is refit, and the validation set is used
    once."""

    linear_epochs: int = Field(default=90, ge=1)
    """Epochs of the linear probe. Source: docs/sources.md#probe-linear."""

    linear_batch_size: int = Field(default=512, ge=2)
    """Images per step of the linear probe, fixed order, last partial batch dropped. Source:
    docs/sources.md#probe-batch."""

    linear_lr: float = Field(default=1e-3, gt=0)
    """Adam's learning rate in protocol `published`. Source: docs/sources.md#probe-linear."""

    held_out_lrs: tuple[PositiveFloat, ...] = Field(default=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2), min_length=1)
    """Adam's learning rates among which protocol `held_out` chooses. Source: ours, half decades around 1e-3."""

    knn_k: int = Field(default=200, ge=1)
    """Number of neighbours; at most a tenth of the training set is used. Source: docs/sources.md#probe-knn."""

    knn_temperature: float = Field(default=0.1, gt=0)
    """Temperature of the votes: a neighbour of cosine similarity s votes with exp(s / temperature). Source:
    docs/sources.md#probe-knn."""

    held_out_ks: tuple[PositiveInt, ...] = Field(default=(5, 10, 20, 50, 100, 200), min_length=1)
    """Neighbour counts among which protocol `held_out` chooses. Source: ours."""

    held_out_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the training set held out for choosing, stratified by class; of whole groups if there are
    `data.groups`. Source: ours."""

    split_seed: int = 0
    """Seed of that split; the same for all training seeds, so that runs are compared on the same images."""

    floors: bool | Annotated[tuple[FloorName, ...], Field(min_length=1)] = True
    """Further features that are probed for comparison: the `untrained` encoder (batch-norm statistics calibrated) and
    the raw `pixels`; true = both. Raw pixels are many features: on tens of thousands of images their linear probe takes
    half an hour on one core."""

    feature_batch_size: int = Field(default=256, ge=1)
    """Images per forward pass of feature extraction. Not in the probe hash."""

    data: ProbeSets = ()
    """Labelled sets on which the encoder is probed; none = the training set, if it has labels. Each is a path, as for
    `data.path`, or a mapping of `path` and optionally `labels` (a table), `groups`, `train_split` and `val_split`,
    which mean the same as in the section `data`. Given with `--probe-data`. Not hashed; their fingerprints are."""

    data_fingerprints: tuple[str, ...] = ()
    """Fingerprints of the sets of `data`, in order. Filled in when a run begins."""

    held_out_groups: str | None = None
    """Fingerprint of the groups (`data.groups`) that are held out as a whole; None without groups. Filled in when a run
    begins."""

    resize: int | None = Field(default=None, ge=8)
    """Length of the shorter side before the centre crop, in pixels; None = image_size (small images are probed at their
    own size). For a rectangular image_size, the image is resized to cover that rectangle, enlarged so that its shorter
    side has this length. Source: docs/sources.md#probe-features (256 for a crop of 224)."""

    metrics: tuple[AnyMetric, ...] = ()
    """Further figures of the features: built-in metrics by name, user-defined ones as `package.module:Class`
    (docs/extend_metric.md). `{name: …}` also sets fields of a metric. The floors have the same figures. Metrics are
    part of the probe hash, user-defined ones with their source code."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _metrics_by_name(cls, value: Any) -> tuple[MetricSection, ...]:
        metrics = tuple(metric_section(one) for one in metric_list(value))
        if len({metric.name for metric in metrics}) < len(metrics):
            raise ValueError("names a metric twice")
        return metrics

    @field_serializer("metrics")
    def _as_written(self, metrics: tuple[MetricSection, ...]) -> list[str | dict[str, Any]]:
        return [metric.written for metric in metrics]

    @field_validator("floors", mode="before")
    @classmethod
    def _is_a_switch_or_names_floors(cls, value: Any) -> Any:
        names = list(value) if isinstance(value, list | tuple) else [value]
        if not isinstance(value, bool) and not (names and all(name in get_args(FloorName) for name in names)):
            raise ValueError(f"must be true, false, or a list of {', '.join(get_args(FloorName))}")
        asked = [name for name in get_args(FloorName) if name in names]
        return asked == list(get_args(FloorName)) or asked or value  # one value per request: it is hashed

    @property
    def sets(self) -> tuple[ProbeSet, ...]:
        """The sets of `data`."""
        return tuple(one if isinstance(one, ProbeSet) else ProbeSet(path=one) for one in self.data)

    @property
    def requested_floors(self) -> tuple[FloorName, ...]:
        """The floors that `floors` requests."""
        if isinstance(self.floors, bool):
            return get_args(FloorName) if self.floors else ()
        return self.floors
