"""`evaluations/*.json`: the outcome of one task on one set. Reports read it, so its names are a contract."""

from typing import Any, Literal

from pydantic import Field

from cnnjepa.schemas.base import Section


class EvaluationFigure(Section):
    """A figure with its uncertainty."""

    value: float
    """The figure; a mean if `kind` is `draws`."""

    low: float | None = None
    high: float | None = None
    """95 % interval; None if the task gives none."""

    kind: Literal["images", "draws", "none"] = "none"
    """Source of the interval. `images`: the finite number of validation images; `draws`: the draws of labelled images
    (Student's t); `none`: there is no interval."""

    unit: Literal["%", ""] = "%"
    """Unit of the figure."""

    draws: tuple[float, ...] = ()
    """The figure of every draw, in the order of the draws, which are the same for all encoders."""

    higher_is_better: bool = True
    """False for errors."""


class EvaluationResult(Section):
    """The outcome of one task with one encoder on one set."""

    encoder: str
    """Short name of the encoder, for tables."""

    encoder_fingerprint: str
    """SHA-256 of the encoder's weights and preprocessing."""

    dataset: str
    """Source and name of the set."""

    dataset_fingerprint: str
    """Identifies the images and their labels."""

    task: str
    """Name of the task."""

    settings: dict[str, Any]
    """The settings of the task."""

    figures: dict[str, EvaluationFigure]
    """The figures by name. Those of single images lie in the file of the same name with the ending `.npz`."""

    main: str
    """Name of the figure that tables show first."""

    chosen: dict[str, float] = Field(default_factory=dict)
    """Settings that the task chose on held-out training images."""

    notes: tuple[str, ...] = ()
    """Facts that a reader of the figures should know: figures left out, near-duplicates found."""

    details: dict[str, Any] = Field(default_factory=dict)
    """Further content of the task, such as the list of near-duplicates."""

    train_images: int
    val_images: int
    classes: int
    """Number of classes; 0 without labels."""

    skipped: int = 0
    """Number of unreadable images that were left out."""

    software: dict[str, Any] = Field(default_factory=dict)
    """Versions, commit and hardware. Volatile."""

    seconds: float = 0.0
    """Wall time of the task without the extraction of features. Volatile."""

    finished: str = ""
    """Time when the task ended. Volatile."""

    def lasting(self) -> dict[str, Any]:
        """Return what is equal for two evaluations with the same outcome."""
        return self.model_dump(mode="json", exclude={"software", "seconds", "finished"})
