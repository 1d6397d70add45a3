"""`result.json`: the outcome of a run. Studies and reports read it, so its names are a contract."""

from typing import Any, Literal, NamedTuple

from pydantic import Field

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.probe import Protocol


class ProbeFigures(Section):
    """Accuracies on the validation set in percent; None if a probe was not run."""

    linear_top1: float | None = None
    """Linear probe, top-1."""
    linear_top5: float | None = None
    """Linear probe, top-5."""
    knn_top1: float | None = None
    """k-NN probe, top-1."""
    knn_top5: float | None = None
    """k-NN probe, top-5."""


class Probes(Section):
    """Figures of the two protocols, which are never mixed in one column."""

    published: ProbeFigures | None = None
    """Best of the linear probe's epochs on the validation set, as in the paper."""
    held_out: ProbeFigures | None = None
    """All choices made on a tenth of the training set; the validation set is used once."""


class Selection(Section):
    """The choices of protocol `held_out`, with their accuracies in percent on the held-out tenth."""

    linear_top1: float
    """Best linear accuracy on the held-out tenth."""
    linear_lr: float
    """The learning rate of that accuracy."""
    linear_epoch: int
    """The epoch of that accuracy, counted from 1."""
    knn_top1: float
    """Best k-NN accuracy on the held-out tenth."""
    knn_k: int
    """The neighbour count of that accuracy."""


FLOOR_NAMES = {"untrained": "untrained encoder", "warm_start": "warm start", "pixels": "raw pixels"}
"""Names of the floors in tables."""


class Floors(Section):
    """Accuracy without pretraining."""

    untrained: Probes | None = None
    """The same network untrained, batch-norm statistics calibrated on training images; None for a warm start."""
    warm_start: Probes | None = None
    """The encoder with the weights with which it started (`encoder.init`), unchanged; None if these were random."""
    pixels: Probes | None = None
    """Raw pixels, averaged down to at most 32x32."""
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Figures of `probe.metrics` of every measured floor: name of the floor → name of the figure → figure. Results of
    earlier versions have none."""

    @property
    def start(self) -> Probes | None:
        """The floor of the encoder before training: `warm_start` or `untrained`."""
        return self.warm_start or self.untrained

    @property
    def start_name(self) -> str:
        """Name of that floor in tables."""
        return FLOOR_NAMES["warm_start" if self.warm_start else "untrained"]

    @property
    def start_metrics(self) -> dict[str, float]:
        """Figures of `probe.metrics` of that floor."""
        return self.metrics.get("warm_start" if self.warm_start else "untrained", {})


class WarmStart(Section):
    """The given weights with which an encoder started."""

    source: str
    """The source in words, without the folder in which it is."""
    fingerprint: str
    """SHA-256 of the tensors."""
    notes: tuple[str, ...] = ()
    """Changes and omissions: a first layer adapted to the channels, a classifier left out."""


class ContinuedRun(Section):
    """The run that a run continues."""

    pretrain_hash: str
    """Its hash."""
    epochs: int
    """Its number of epochs, after which this run begins."""


class ProbedSet(Section):
    """A labelled set on which an encoder was probed."""

    fingerprint: str
    """Identifies the images and their labels."""
    classes: int
    """Number of classes."""
    train_images: int
    """Number of images on which the probes were trained."""
    val_images: int
    """Number of images on which they were judged, from which the accuracies' binomial intervals are computed."""
    protocols: tuple[Protocol, ...]
    """The protocols of the figures."""


class SetFigures(NamedTuple):
    """The figures of one set, as tables show them."""

    name: str
    """Source and name of the set."""
    probes: Probes
    selection: Selection | None
    floors: Floors
    val_images: int | None
    metrics: dict[str, float]
    """Figures of `probe.metrics` on this set."""


class Diagnostics(Section):
    """Diagnostics of the features on validation images. They need no labels."""

    rankme: float
    """Effective rank: exp of the entropy of the normalised singular values (arXiv 2210.02885)."""
    feature_std: float
    """Spread of unit-length features: √(mean squared distance to their mean); 0 = all equal, about 1 = spread."""
    feature_dim: int
    """Number of channels of the features."""
    lidar: float | None = None
    """LiDAR: effective rank that distinguishes images from views of one image (arXiv 2312.04000); 10 crops of each of
    at most 1,000 validation images, and at most a tenth of all images. None in results of earlier versions, and for
    one image."""
    alpha_req: float | None = None
    """α-ReQ: exponent of the power law of the covariance's eigenvalues 4 to 100 (arXiv 2202.05808). None in results of
    earlier versions, and for fewer than eight eigenvalues above 0."""
    heldout_loss: float | None = None
    """The method's own loss on at most 1,000 validation images, with fixed views and masks, in evaluation mode. None in
    results of earlier versions, for methods that learn from labels or do not train, if it is not finite, and for a
    method of one's own on several processes."""
    collapse_evidence: str | None = None
    """Reason in words why the features count as collapsed; None if they do not."""


class Cost(Section):
    """Computational cost of the run. All measured values are volatile: they differ between equal runs."""

    encoder_params: int
    """Parameters of one encoder."""
    predictor_params: int
    """Parameters of predictor, token and projection head."""
    flops_per_image: float
    """FLOPs (2 x multiply-adds) of a training step per image, forward and backward, at the mean fraction of visible
    cells."""
    train_seconds: float
    """Wall time of training steps over all sessions of the run, in seconds."""
    gpu_hours: float
    """train_seconds x GPUs / 3600; 0 on the CPU."""
    images_per_s: float
    """Training throughput over all processes, in images per second."""
    peak_memory_bytes: int | None
    """Peak device memory (GPU) or resident set (CPU) during training, over all sessions of the first process; probes
    and floors are not included. None if unknown: training by an earlier version, probed by this one."""


class TrialResult(Section):
    """The outcome of one run. 'The same result' means equality of everything but cost, software, started and
    finished."""

    pretrain_hash: str
    """Hash of every setting that changes the numbers."""
    probe_hash: str
    """Hash of the probe settings."""
    method: str
    """Name of the method."""
    encoder: str
    """The encoder: arch, stem, stages and width."""
    dataset: str
    """Source and name of the images."""
    seed: int
    """runtime.seed."""
    status: Literal["finished", "failed", "collapsed"]
    """The status of the run at its end."""
    error: str | None = None
    """The error, if the run failed."""
    log_tail: str | None = None
    """The last lines that a failed trial of a study printed. Volatile."""
    epochs: int | None = None
    """Number of epochs trained."""
    final_loss: float | None = None
    """Mean loss of the last logged interval."""
    train_images: int | None = None
    """Number of images used from the training set."""
    val_images: int | None = None
    """Number of images used from the validation set, from which the accuracies' binomial intervals are computed."""
    skipped_images: tuple[str, ...] = ()
    """Images left out as unreadable (`data.on_error: skip`)."""
    repaired_images: tuple[str, ...] = ()
    """Damaged JPEG files that libjpeg repaired while reading, by name and reason."""
    warm_start: WarmStart | None = None
    """The given initial weights (`encoder.init`); None for random ones."""
    continues: ContinuedRun | None = None
    """The run that this run continues (`train --from`); None for a run of its own."""
    probed_encoder: Literal["target", "context"] | None = None
    """The encoder that was probed."""
    probe: dict[str, Any] | None = None
    """The config's probe section, which `probe_hash` identifies."""
    probe_sets: dict[str, ProbedSet] | None = None
    """The sets of `probe.data` by name; None if the probes are of the run's own images."""
    probes: Probes | dict[str, Probes] | None = Probes()
    """Accuracies of the trained encoder; None for images without labels; by the set's name if there are several
    sets."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Figures of `probe.metrics` of the trained encoder, by name; `SET: name` if there are several sets."""
    selection: Selection | dict[str, Selection] | None = None
    """Choices made on the held-out tenth; by the set's name if there are several sets."""
    floors: Floors | dict[str, Floors] = Floors()
    """Accuracies without pretraining; by the set's name if there are several sets."""
    diagnostics: Diagnostics | None = None
    """Diagnostics of the features."""
    cost: Cost | None = None
    """Cost of the run. Volatile."""
    software: dict[str, str] = Field(default_factory=dict)
    """Versions, commit and hardware of the last session that trained; `trained_at`: the commit or commits that trained
    the run. Volatile."""
    probe_software: dict[str, str] = Field(default_factory=dict)
    """The same for the session that probed, if it differs; empty otherwise. Volatile."""
    started: str = ""
    """When the run began, ISO 8601 UTC. Volatile."""
    finished: str = ""
    """When the result was written, ISO 8601 UTC. Volatile."""

    @property
    def has_figures(self) -> bool:
        """Return whether the run has accuracies: it finished or collapsed."""
        return self.status != "failed"

    @property
    def start(self) -> tuple[str, ...]:
        """The start of the training in words, if the weights were not random: a sentence per fact."""
        found = []
        if self.continues:
            found.append(
                f"continues run {self.continues.pretrain_hash[:12]}, whose {self.continues.epochs} epochs are among "
                f"the {self.epochs} of this run"
            )
        if self.warm_start:
            found.append("; ".join([f"warm start: weights of {self.warm_start.source}", *self.warm_start.notes]))
        return tuple(found)

    @property
    def by_set(self) -> tuple[SetFigures, ...]:
        """The figures of every probed set, in order; empty for images without labels."""
        if self.probes is None:
            return ()
        if isinstance(self.probes, Probes):
            assert not isinstance(self.selection, dict) and isinstance(self.floors, Floors)
            (name, val_images), *_ = [
                *((name, probed.val_images) for name, probed in (self.probe_sets or {}).items()),
                (self.dataset, self.val_images),
            ]
            return (SetFigures(name, self.probes, self.selection, self.floors, val_images, self.metrics),)
        found = []
        for name, probes in self.probes.items():
            selection = self.selection.get(name) if isinstance(self.selection, dict) else None
            floors = self.floors.get(name, Floors()) if isinstance(self.floors, dict) else Floors()
            probed = (self.probe_sets or {}).get(name)
            start = f"{name}: "
            metrics = {key.removeprefix(start): value for key, value in self.metrics.items() if key.startswith(start)}
            images = probed.val_images if probed else None
            found.append(SetFigures(name, probes, selection, floors, images, metrics))
        return tuple(found)

    @property
    def first_set(self) -> SetFigures:
        """The figures of the first probed set, by which runs are compared; without any figure for images without
        labels."""
        return next(iter(self.by_set), SetFigures(self.dataset, Probes(), None, Floors(), None, {}))

    def lasting(self) -> dict[str, object]:
        """Return everything that must be equal for two equal runs. (final_loss is left out: it is a mean over the
        logging interval, which may be chosen freely.)"""
        volatile = {"cost", "software", "probe_software", "started", "finished", "final_loss", "log_tail"}
        return self.model_dump(mode="json", exclude=volatile)
