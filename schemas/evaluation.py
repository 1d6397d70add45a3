"""Tasks on which a trained encoder is evaluated (`cnnjepa evaluate`), and their settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import BASES, ExtensibleSection, Kind, extension, is_named
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.yaml_text import read_word

Share = Annotated[float, Field(gt=0, lt=1)]

Labels = Literal["none", "classes", "several", "masks"]
"""Labels of an image: none, one class, several classes at once, or a class for every pixel."""


class TaskSection(ExtensibleSection):
    """The settings of a task. They are part of the name of its result."""

    EXTENDS: ClassVar[Kind] = "task"

    LABELS: ClassVar[Labels] = "classes"
    """The labels that the task needs."""

    PLACES: ClassVar[frozenset[str]] = frozenset()
    """Settings that say where something lies. What lies there is part of the name of a result, its place is not."""

    ASKED_FOR: ClassVar[bool] = False
    """True if the task runs only when it is named, because it takes long."""

    name: str
    """The task that this section configures."""


class HeldOutTask(TaskSection):
    """A task that makes its choices on a part of the training images."""

    held_out_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the training images on which settings are chosen, stratified by class. The task is then fitted on all of
    them, and the validation images are used once. Source: ours."""

    split_seed: int = 0
    """Seed of that split."""


class LinearFit(HeldOutTask):
    """A task that fits a linear classifier on pooled features."""

    epochs: int = Field(default=90, ge=1)
    """Epochs over the training features. Source: docs/sources.md#probe-linear."""

    batch_size: int = Field(default=512, ge=2)
    """Images per step, fixed order, last partial batch dropped. Source: docs/sources.md#probe-batch."""

    lrs: tuple[PositiveFloat, ...] = Field(default=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2), min_length=1)
    """Adam's learning rates among which protocol `held_out` chooses. Source: ours, half decades around 1e-3."""


class LinearTask(LinearFit):
    """A linear classifier on pooled features, trained with Adam, as the linear probe of a run."""

    name: Literal["linear"] = "linear"
    """The task that this section configures."""

    protocol: Literal["held_out", "published"] = "held_out"
    """`held_out`: epoch and learning rate are chosen on held-out training images. `published`: the best epoch on the
    validation images at one learning rate, as in the paper (optimistic)."""

    lr: float = Field(default=1e-3, gt=0)
    """Adam's learning rate in protocol `published`. Source: docs/sources.md#probe-linear."""


class KnnTask(HeldOutTask):
    """Weighted k-nearest-neighbour votes on pooled features, cosine similarity, as the k-NN probe of a run."""

    name: Literal["knn"] = "knn"
    """The task that this section configures."""

    protocol: Literal["held_out", "published"] = "held_out"
    """`held_out`: k is chosen on held-out training images. `published`: k as in the paper."""

    k: int = Field(default=200, ge=1)
    """Number of neighbours in protocol `published`; at most a tenth of the training images is used. Source:
    docs/sources.md#probe-knn."""

    ks: tuple[PositiveInt, ...] = Field(default=(5, 10, 20, 50, 100, 200), min_length=1)
    """Numbers of neighbours among which protocol `held_out` chooses. Source: ours."""

    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the votes. Source: docs/sources.md#probe-knn."""


class LowShotTask(TaskSection):
    """Logistic regression on pooled features with few labels: the same seeded draws of labelled images for every
    encoder. Few labels per class follow MSN (arXiv 2204.07141), 1 % and 10 % of the labels follow SimCLR (arXiv
    2002.05709)."""

    name: Literal["lowshot"] = "lowshot"
    """The task that this section configures."""

    shots: tuple[PositiveInt, ...] = (1, 5, 10)
    """Labelled images per class."""

    shares: tuple[Share, ...] = (0.01, 0.1)
    """Labelled shares of the training images, spread evenly over classes."""

    draws: int = Field(default=10, ge=2)
    """Number of draws of labelled images. The figure is their mean."""

    seed: int = 0
    """Seed of the draws."""

    cs: tuple[PositiveFloat, ...] = Field(default=(0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0), min_length=1)
    """Inverse strengths of the squared penalty (scikit-learn's `C`), among which cross-validation within the labelled
    images chooses. Features have unit length, so large values are among them. Source: ours, decades."""

    c_single: float = Field(default=100.0, gt=0)
    """Value used where a class has a single labelled image, so that nothing can be held out. Source: ours."""

    folds: int = Field(default=5, ge=2)
    """Folds of the cross-validation; at most the smallest number of labelled images of a class. Source: ours."""

    @model_validator(mode="after")
    def _some_labels(self) -> Self:
        if not (self.shots or self.shares):
            raise ValueError("shots and shares are both empty; give numbers of labelled images in one of them")
        return self


class RetrieveTask(TaskSection):
    """Retrieval by class: every validation image is a query, the other validation images are ranked by cosine
    similarity. Near-duplicate pairs within the set are listed as well."""

    name: Literal["retrieve"] = "retrieve"
    """The task that this section configures."""

    recall_at: tuple[PositiveInt, ...] = Field(default=(1, 5, 10), min_length=1)
    """Recall at k: share of queries with an image of their class among the k nearest. Source: arXiv 1511.06452."""

    most_queries: int = Field(default=10_000, ge=1)
    """Maximum number of queries, spread evenly over classes. All validation images are ranked for each of them."""

    duplicate_similarity: float = Field(default=0.99, gt=0, le=1)
    """Cosine similarity from which two images of the set count as near-duplicates. Source: ours."""

    most_duplicates: int = Field(default=100, ge=0)
    """Maximum number of near-duplicate pairs that are listed, the most similar first."""


class SegmentTask(HeldOutTask):
    """Linear segmentation on frozen features, as DINOv2 evaluates (arXiv 2304.07193): a 1x1 head on the feature map,
    whose outputs are enlarged to the mask. And k-NN segmentation without training: a cell of the map gets the votes of
    the most similar training cells (after arXiv 2306.01667)."""

    LABELS: ClassVar[Labels] = "masks"
    PLACES: ClassVar[frozenset[str]] = frozenset({"masks"})

    name: Literal["segment"] = "segment"
    """The task that this section configures."""

    masks: Path | None = None
    """Folder of the masks: PNG files of one channel with the class of every pixel, 255 where none is judged, at the
    paths that the images have below theirs. None means the folder `masks` next to that of the images."""

    classes: int | None = Field(default=None, ge=2, le=255)
    """Number of classes. None means the largest class in the training masks, plus one."""

    layers: Literal["last", "stages"] = "last"
    """`last`: the head sees the last feature map. `stages`: it sees those of all stages."""

    steps: int = Field(default=1000, ge=1)
    """AdamW steps of the head; the learning rate falls linearly to 0. Source: ours (DINOv2: 40,000)."""

    batch_size: int = Field(default=32, ge=1)
    """Images per step. Source: ours (DINOv2: 16)."""

    lrs: tuple[PositiveFloat, ...] = Field(default=(3e-4, 1e-3, 3e-3, 1e-2), min_length=1)
    """Learning rates among which held-out training images choose. Features are standardised per channel. Source: ours;
    DINOv2: 1e-3."""

    weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's weight decay. Source: ours."""

    bank_cells: int = Field(default=10_000, ge=1)
    """Maximum number of training cells that k-NN segmentation searches: a seeded part of all. Source: ours."""

    k: int = Field(default=30, ge=1)
    """Nearest training cells that vote; at most a tenth of the bank. Source: ours."""

    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the votes. Source: ours, as the k-NN probe."""

    seed: int = 0
    """Seed of the order of images and of the part of the training cells."""


class RobustTask(LinearFit):
    """The linear classifier of protocol `held_out` on validation images under noise, blur, JPEG, contrast, pixelation
    and occlusion at five severities each, which follow ImageNet-C and CIFAR-10-C (arXiv 1903.12261)."""

    ASKED_FOR: ClassVar[bool] = True

    name: Literal["robust"] = "robust"
    """The task that this section configures."""

    most_images: int = Field(default=2_000, ge=1)
    """Maximum number of validation images, spread evenly over classes. Each is corrupted in 30 ways. Source: ours."""

    seed: int = 0
    """Seed of the noise and of the places of the occlusions."""


BASES["task"] = TaskSection

IMPLEMENTATIONS: dict[type[TaskSection], str] = {
    LinearTask: "cnnjepa.evaluation.tasks.linear:Linear",
    KnnTask: "cnnjepa.evaluation.tasks.knn:Knn",
    LowShotTask: "cnnjepa.evaluation.tasks.lowshot:LowShot",
    RetrieveTask: "cnnjepa.evaluation.tasks.retrieve:Retrieve",
    SegmentTask: "cnnjepa.evaluation.tasks.segment:Segment",
    RobustTask: "cnnjepa.evaluation.tasks.robust:Robust",
}
"""Config class of every built-in task, and the class that carries it out, imported when an evaluation needs it."""

TASKS: dict[str, type[TaskSection]] = {section.model_fields["name"].default: section for section in IMPLEMENTATIONS}
"""The built-in tasks by name, in the order of tables."""


def usual_tasks() -> list[str]:
    """Return the names of the tasks that run if none is named."""
    return [name for name, section in TASKS.items() if not section.ASKED_FOR]


def requested_tasks(names: Sequence[str], overrides: Sequence[str] = ()) -> list[TaskSection]:
    """Return the sections of the named tasks, with `--set TASK.FIELD=VALUE` applied. A class of one's own is named
    `package.module:Class`, and its fields `Class.FIELD`.

    Raises ConfigError for an unknown or repeated name, and for a setting of no named task.
    """
    values: dict[str, dict[str, Any]] = {}
    for name in names:
        if not is_named(name) and name not in TASKS:
            known = f"{', '.join(TASKS)}, or module:Class of your own"
            raise ConfigError(f"--tasks {name}: no such task; must be one of {known}{nearest(name, TASKS)}")
        if name in values:
            raise ConfigError(f"--tasks names {name} twice")
        values[name] = {"name": name}
    short = {name.rpartition(":")[2]: name for name in names}
    for flag in overrides:
        path, _, value = flag.partition("=")
        task, _, field = path.partition(".")
        if task not in short or not field or "=" not in flag:
            raise ConfigError(
                f"--set {flag}: must be TASK.FIELD=VALUE, where TASK is one of {', '.join(short)}{nearest(task, short)}"
            )
        if field in values[short[task]]:
            raise ConfigError(f"--set {path} is given twice; give it once")
        values[short[task]][field] = read_word(value.strip(), f"--set {path}")
    return [_section(given) for given in values.values()]


def _section(given: dict[str, Any]) -> TaskSection:
    name = given["name"]
    model: Any = TASKS[name] if name in TASKS else extension("task", name).section
    try:
        section: TaskSection = model.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(_line(name, model, found) for found in error.errors(include_url=False))) from None
    return section


def _line(task: str, model: type[TaskSection], finding: Any) -> str:
    path = ".".join([task, *map(str, finding["loc"])])
    if finding["type"] == "extra_forbidden":
        names = [name for name in model.model_fields if name != "name"]
        return f"{path}: no such field; must be one of {', '.join(names)}{nearest(str(finding['loc'][-1]), names)}"
    message = finding["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{path}: {message}" if finding["type"] == "wrong_kind" else f"{path}: {finding['input']!r}: {message}"
