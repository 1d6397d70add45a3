"""`result.json`: what a run found. Read by studies and reports, so its names are a contract."""

from typing import Any, Literal

from pydantic import Field

from cnnjepa.schemas.base import Section


class ProbeFigures(Section):
    """Accuracies on the validation set in percent; None where a probe was not made."""

    linear_top1: float | None = None
    """Linear probe, top-1."""
    linear_top5: float | None = None
    """Linear probe, top-5."""
    knn_top1: float | None = None
    """k-NN probe, top-1."""
    knn_top5: float | None = None
    """k-NN probe, top-5."""


class Probes(Section):
    """The two protocols; never mixed in one column."""

    published: ProbeFigures | None = None
    """Best of the linear probe's epochs on the validation set, as the paper."""
    held_out: ProbeFigures | None = None
    """Everything chosen on a tenth of the training set, validation touched once."""


class Selection(Section):
    """What protocol `held_out` chose, with its accuracies in percent on the held-out tenth."""

    linear_top1: float
    """Best linear accuracy on the held-out tenth."""
    linear_lr: float
    """The learning rate that gave it."""
    linear_epoch: int
    """The epoch that gave it, from 1."""
    knn_top1: float
    """Best k-NN accuracy on the held-out tenth."""
    knn_k: int
    """The neighbour count that gave it."""


class Floors(Section):
    """What is reached without pretraining."""

    untrained: Probes | None = None
    """The same network untrained, batch-norm statistics calibrated on training images."""
    pixels: Probes | None = None
    """Raw pixels, averaged down to at most 32x32."""


class Diagnostics(Section):
    """The health of the features on validation images."""

    rankme: float
    """Effective rank: exp of the entropy of the normalised singular values (arXiv 2210.02885)."""
    feature_std: float
    """Spread of unit-length features: √(mean squared distance to their mean); 0 = all equal, about 1 = spread."""
    feature_dim: int
    """Channels of a feature."""
    collapse_evidence: str | None = None
    """Why the features count as collapsed, in words; None when they do not."""


class Cost(Section):
    """What it took. Everything measured here is volatile: it differs between equal runs."""

    encoder_params: int
    """Parameters of one encoder."""
    predictor_params: int
    """Parameters of predictor, token and projection head."""
    flops_per_image: float
    """FLOPs (2 x multiply-adds) of a training step an image, forward and backward, at the mean visible share."""
    train_seconds: float
    """Wall time of training steps over all sessions of the run, in seconds."""
    gpu_hours: float
    """train_seconds x GPUs / 3600; 0 on the CPU."""
    images_per_s: float
    """Training throughput over all processes."""
    peak_memory_bytes: int | None
    """Peak device memory (GPU) or resident set (CPU) of training, over all sessions of the first process; probes and
    floors are left out. None where it is not known: training by an earlier version, judged by this one."""


class TrialResult(Section):
    """The outcome of one run. 'The same result' means everything but cost, software, started and finished."""

    pretrain_hash: str
    """Name of every setting that changes the numbers."""
    probe_hash: str
    """Name of the probe settings."""
    method: str
    """Which method."""
    encoder: str
    """Which encoder: arch, stem, stages and width."""
    dataset: str
    """Source and name of the images."""
    seed: int
    """runtime.seed."""
    status: Literal["finished", "failed", "collapsed"]
    """How it ended."""
    error: str | None = None
    """What went wrong, when it failed."""
    log_tail: str | None = None
    """The last lines that a failed trial of a study printed. Volatile."""
    epochs: int | None = None
    """Epochs trained."""
    final_loss: float | None = None
    """Mean loss of the last logged interval."""
    train_images: int | None = None
    """Images of the training set used."""
    val_images: int | None = None
    """Images of the validation set used; gives the accuracies' binomial intervals."""
    skipped_images: tuple[str, ...] = ()
    """Images left out as unreadable (`data.on_error: skip`)."""
    probed_encoder: Literal["target", "context"] | None = None
    """Which encoder the probes saw."""
    probe: dict[str, Any] | None = None
    """The config's probe section, which `probe_hash` names."""
    probes: Probes = Probes()
    """The accuracies."""
    selection: Selection | None = None
    """What the held-out tenth chose."""
    floors: Floors = Floors()
    """What is reached without pretraining."""
    diagnostics: Diagnostics | None = None
    """Feature health."""
    cost: Cost | None = None
    """Volatile."""
    software: dict[str, str] = Field(default_factory=dict)
    """Versions, commit and hardware of the last session that trained; `trained_at`: the commit or commits that trained
    the run. Volatile."""
    probe_software: dict[str, str] = Field(default_factory=dict)
    """The same of the session that probed, where it differs; empty otherwise. Volatile."""
    started: str = ""
    """When the run began, ISO 8601 UTC. Volatile."""
    finished: str = ""
    """When the result was written, ISO 8601 UTC. Volatile."""

    @property
    def has_figures(self) -> bool:
        """Whether the run was judged: it finished or collapsed."""
        return self.status != "failed"

    def lasting(self) -> dict[str, object]:
        """Everything that two equal runs must share (final_loss is a mean over the logging interval, which is free)."""
        volatile = {"cost", "software", "probe_software", "started", "finished", "final_loss", "log_tail"}
        return self.model_dump(mode="json", exclude=volatile)
