"""Evaluation of encoders on sets: plans what is to be done, leaves out what is there, and stores each outcome."""

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnnjepa.clock import now
from cnnjepa.data import DataSet
from cnnjepa.data.masks import masks_of
from cnnjepa.errors import ImageError, RunError
from cnnjepa.evaluation.sets import identity_of, images_of, named, opened
from cnnjepa.evaluation.store import EvaluationStore, evaluation_hash
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, task_of
from cnnjepa.names import file_name
from cnnjepa.probes.features import scratch_folder
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.references.encoder import ReferencedEncoder
from cnnjepa.references.frozen import reading_processes
from cnnjepa.schemas import ConfigError, DataConfig
from cnnjepa.schemas.evaluation import TaskSection
from cnnjepa.schemas.evaluation_result import EvaluationResult
from cnnjepa.schemas.numbers import counted
from cnnjepa.storage.locks import locked
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment

ENCODERS = "encoders"
"""Folder below the root for encoders that have no folder of their own."""

_PATIENCE = 24 * 3600.0  # seconds to wait for another process that runs the same task

Say = Callable[[str], None]
Tick = Callable[[], None]


@dataclass(frozen=True)
class PlannedTask:
    """One task with one encoder on one set."""

    encoder: ReferencedEncoder
    images: DataSet
    section: DataConfig
    settings: TaskSection
    store: EvaluationStore
    path: Path
    """File of the result."""

    @property
    def label(self) -> str:
        """Name in messages."""
        return f"{self.settings.name} of {self.encoder.label} on {self.images.name}"

    def found(self) -> "Evaluated | None":
        """Return the result, if the task was done before. Raises RunError if its file is damaged."""
        result = self.store.read(self.path)
        return None if result is None else Evaluated(self, result, self.store.per_image(self.path))


@dataclass(frozen=True)
class Evaluated:
    """The result of a task, with the figures of single images."""

    planned: PlannedTask
    result: EvaluationResult
    per_image: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def home_of(encoder: ReferencedEncoder, root: Path) -> Path:
    """Return the folder that holds the evaluations of an encoder: its own, or one below `root`/encoders."""
    if encoder.folder is not None:
        return encoder.folder
    return root / ENCODERS / f"{file_name(encoder.label)}-{encoder.fingerprint[:8]}"


def planned_tasks(
    encoders: Sequence[ReferencedEncoder],
    on: Sequence[str],
    tasks: Sequence[TaskSection],
    asked: Sequence[str] | None,
    root: Path,
    data_overrides: Sequence[str] = (),
) -> list[PlannedTask]:
    """Return the tasks in the order in which they run: by set, encoder and task. `asked` are the names of tasks that
    the user wrote; a task that was not asked for is left out on a set without the labels that it needs. Without a set
    in `on`, it is the images of the first encoder that is a run, or the embedded ones.

    Raises ConfigError for a set that cannot be opened, for one without the labels that a requested task needs, and for
    sets or encoders that are equal.
    """
    first_run = next((encoder.config for encoder in encoders if encoder.config), None)
    plan: list[PlannedTask] = []
    _refuse_equal(encoders)
    places: list[str | None] = [*on] or [None]
    for place in places:
        cache: dict[str, DataSet] = {}
        for encoder in encoders:
            section = images_of(place, encoder.preprocessing, data_overrides, first_run)
            reading = section.model_dump_json()
            if reading not in cache:
                with _naming_its_inputs(encoder):
                    cache[reading] = opened(section, place)
            images = cache[reading]
            store = EvaluationStore(home_of(encoder, root))
            for settings in tasks:
                is_asked = asked is not None and settings.name in asked
                judged = _labels_for(settings, section, images, is_asked, place)
                if judged is None:
                    continue
                digest = evaluation_hash(encoder.fingerprint, judged, settings)
                path = store.path(settings.name, images.name, digest)
                plan.append(PlannedTask(encoder, images, section, settings, store, path))
    if len({one.path for one in plan}) < len(plan):
        raise ConfigError("--on names the same images twice; give every set once")
    if not plan:
        raise ConfigError(
            f"none of the tasks {', '.join(task.name for task in tasks)} can be done on images without labels; give a "
            "labelled set with --on, or labels with --set data.labels=FILE"
        )
    return plan


@contextlib.contextmanager
def _naming_its_inputs(encoder: ReferencedEncoder) -> Iterator[None]:
    """Add the kind of images that the encoder takes to the error of an image that cannot be read."""
    try:
        yield
    except ImageError as error:
        inputs = encoder.preprocessing
        kind = f"{counted(inputs.channels, 'channel')} of {inputs.dtype}"
        error.add_note(f"{encoder.label} takes images with {kind}; other images need another encoder")
        raise


def _refuse_equal(encoders: Sequence[ReferencedEncoder]) -> None:
    seen: dict[str, str] = {}
    for encoder in encoders:
        if encoder.fingerprint in seen:
            raise ConfigError(
                f"{seen[encoder.fingerprint]} and {encoder.reference} are the same encoder: weights and preprocessing "
                "are equal; give it once"
            )
        seen[encoder.fingerprint] = encoder.reference


def _labels_for(
    settings: TaskSection, section: DataConfig, images: DataSet, asked: bool, place: str | None
) -> str | None:
    """Return what identifies the images and the labels that the task needs, or None if the set has no such labels.
    Raises ConfigError if the task was asked for nevertheless, and for a set that lacks some masks."""
    if settings.LABELS == "masks":
        masks = masks_of(section, images, getattr(settings, "masks", None))
        if masks is not None:
            return hashlib.sha256(f"{identity_of(section, images)} {masks.fingerprint()}".encode()).hexdigest()
        if asked:
            raise ConfigError(
                f"task {settings.name} needs masks, and there are none for {named(place)}; give their folder with "
                f"--set {settings.name}.masks=DIR, or put images into a folder images and masks into masks next to it"
            )
        return None
    if settings.LABELS == "none" or images.labelled:
        return identity_of(section, images)
    if asked:
        raise ConfigError(
            f"task {settings.name} needs labels, and there are none for {named(place)} "
            f"({images.found or images.name}); give them with --set data.labels=FILE (a table of path and label) or "
            "folders named by class"
        )
    return None


def run_tasks(
    plan: Sequence[PlannedTask],
    device: torch.device,
    tick: Tick = lambda: None,
    say: Say = lambda text: None,
    workers: int | None = None,
) -> Iterator[Evaluated]:
    """Run the planned tasks that have no result yet, and yield every result as soon as it is there. Features are
    extracted once per encoder and set. Raises Stopped when `tick` does; what was finished is kept."""
    software = environment(Processes(0, 1, device))
    readers = reading_processes(workers, device)
    for _, group in itertools.groupby(plan, key=lambda one: (id(one.encoder), id(one.images))):
        with contextlib.ExitStack() as until_done:
            subject: Subject | None = None
            for one in group:
                if (there := one.found()) is not None:
                    yield there
                    continue
                with locked(one.store.folder / "claims" / one.path.stem, _PATIENCE):
                    if (there := one.found()) is not None:  # another process did it meanwhile
                        yield there
                        continue
                    if subject is None:
                        scratch = until_done.enter_context(scratch_folder(one.store.folder))
                        subject = Subject(one.encoder, one.images, one.section, device, scratch, tick, readers)
                    say(one.label)
                    done = _run(one, subject, tick, software)
                yield done


def _run(one: PlannedTask, subject: Subject, tick: Tick, software: dict[str, Any]) -> Evaluated:
    started, extracting = time.monotonic(), subject.extraction_seconds
    with layer_randomness(subject.device):
        seed_layers(0, "evaluation")
        with _naming_its_inputs(one.encoder):
            outcome = task_of(one.settings).evaluate(subject, tick)
    if not outcome.figures:
        raise RunError(f"task {one.settings.name} gave no figure")
    seconds = time.monotonic() - started - (subject.extraction_seconds - extracting)
    result = _result(one, outcome, subject, software, seconds)
    one.store.write(one.path, result, outcome.per_image)
    return Evaluated(one, result, outcome.per_image)


def _result(
    one: PlannedTask, outcome: Outcome, subject: Subject, software: dict[str, Any], seconds: float
) -> EvaluationResult:
    images = one.images
    return EvaluationResult(
        encoder=one.encoder.label,
        encoder_fingerprint=one.encoder.fingerprint,
        dataset=images.name,
        dataset_fingerprint=identity_of(one.section, images),
        task=one.settings.name,
        settings=one.settings.model_dump(mode="json"),
        figures=outcome.figures,
        main=next(iter(outcome.figures)),
        chosen=outcome.chosen,
        notes=tuple(outcome.notes),
        details=outcome.details,
        train_images=images.train.labels.numel(),
        val_images=images.val.labels.numel(),
        classes=images.classes,
        skipped=len(subject.skipped),
        software=software,
        seconds=round(seconds, 3),
        finished=now(),
    )
