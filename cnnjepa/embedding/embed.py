"""Computation of the features of all images of a set, and their file."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cnnjepa import __version__, signals
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.source import Subset
from cnnjepa.embedding.feature_file import facts_of, open_features
from cnnjepa.embedding.formats import WRITERS, Header, Rows
from cnnjepa.embedding.image_list import ImageList, list_images
from cnnjepa.embedding.parts import Part, Parts
from cnnjepa.embedding.request import EmbedRequest
from cnnjepa.errors import InUseError, RunError, Stopped
from cnnjepa.launcher import launched
from cnnjepa.references.encoder import ReferencedEncoder
from cnnjepa.references.frozen import frozen_encoder, reading_processes
from cnnjepa.references.open import open_encoder
from cnnjepa.references.preprocessing import images_config
from cnnjepa.schemas import ConfigError, DataConfig, RuntimeConfig
from cnnjepa.storage.locks import locked
from cnnjepa.training.distributed import prepared_device

Tick = Callable[[int, int], None]
"""Called with the numbers of finished images and of all images."""


class Embedded(NamedTuple):
    """The result of `embed`."""

    path: Path
    rows: int
    skipped: int
    """Unreadable images that were left out."""
    complete: bool
    """False if other processes are still working on their share, and one of them will write the file."""
    existed: bool = False
    """True if the file was there already, with the same settings."""


class Job:
    """Encoder, images and parts of a request, opened."""

    def __init__(self, request: EmbedRequest) -> None:
        """Raises ConfigError for everything that a user can get wrong."""
        request.check()
        self.request = request
        self.encoder: ReferencedEncoder = open_encoder(
            request.reference, root=request.root, which=request.which, checkpoint=request.checkpoint,
            overrides=request.overrides,
        )  # fmt: skip
        self.data = _data_config(request, self.encoder)
        self.images: ImageList = list_images(self.data, request.split)
        dim, (height, width) = self.encoder.feature_dim, self.encoder.map_size
        self.shape = (dim, height, width) if request.dense else (dim,)
        bytes_per_image = int(np.prod(self.shape)) * np.dtype(request.dtype).itemsize
        self.parts = Parts(
            request.out, self.images.labels.numel(), request.batch_size, bytes_per_image, request.part_images
        )
        self.facts: dict[str, Any] = json.loads(json.dumps(_facts(self)))

    def compute(self, rank: int, processes: int, local_rank: int, tick: Tick) -> None:
        """Compute the missing parts of a process's share. Raises Stopped after a stop signal."""
        wanted = self.parts.missing(rank, processes)
        done, total = self.parts.finished_images(rank, processes)
        tick(done, total)
        if not wanted:
            return
        device = prepared_device(RuntimeConfig(device=self.request.device), local_rank)
        frozen = frozen_encoder(self.encoder, device)
        indices = torch.cat([self.parts.indices(number) for number in wanted])
        workers = reading_processes(self.request.workers, device)
        config = self.encoder.preprocessing.config.model_copy(update={"on_error": self.data.on_error})
        loaded = evaluation_batches(
            Subset(self.images, indices), config, self.encoder.preprocessing.resize, self.request.batch_size, workers
        )
        with contextlib.closing(loaded) as batches:
            for number in wanted:
                places, values = list[Tensor](), list[Tensor]()
                for _ in range(-(-self.parts.indices(number).numel() // self.request.batch_size)):
                    batch = next(batches)
                    places.append(indices[batch.places])
                    if batch.places.numel():
                        values.append(self._numbers(frozen.maps(batch.pixels), places[-1]))
                    done += batch.places.numel() + len(batch.skipped)
                    tick(done, total)
                    if (name := signals.received()) is not None:
                        raise Stopped(name)
                found = torch.cat(values) if values else torch.empty(0, *self.shape)
                self.parts.write(number, Part(torch.cat(places), found.numpy().astype(self.request.dtype, copy=False)))

    def _numbers(self, maps_BCHW: Tensor, places_B: Tensor) -> Tensor:
        """Return a batch's features of the file's type, on the CPU. Raises RunError if one is not finite."""
        values = maps_BCHW if self.request.dense else maps_BCHW.mean((2, 3))
        values = values.to(getattr(torch, self.request.dtype)).cpu()
        wrong = ~values.flatten(1).isfinite().all(1)
        if wrong.any():
            name = self.images.name(int(places_B[wrong][0]))
            why = "" if self.request.dtype == "float32" else " in float16; try --dtype float32"
            raise RunError(f"the features of {name} are not finite{why}")
        return values

    def join(self) -> Embedded:
        """Write the file from the parts, if all are there, and delete them."""
        parts, out = self.parts, self.request.out
        absent = Embedded(out, 0, 0, False)
        if parts.missing():
            return absent
        try:
            with locked(parts.folder):
                if parts.missing():  # another process has joined them
                    return absent
                rows = parts.rows_written()
                if not rows:
                    raise RunError("no image of this set can be read; `cnnjepa data check PATH` lists what is wrong")
                labelled = bool(self.images.class_names)
                header = Header(rows, self.shape, self.request.dtype, labelled, self.facts)
                try:
                    suffixes = WRITERS[out.suffix](parts.aside, header, self._rows())
                except OSError as error:
                    raise RunError(f"cannot write into {parts.folder} ({error.strerror or error})") from None
                parts.publish(suffixes)
                parts.remove()
        except InUseError:
            return absent
        return Embedded(out, rows, parts.images - rows, True)

    def _rows(self) -> Iterator[Rows]:
        for part in self.parts.read():
            index = part.places.tolist()
            labels = [self.images.label(place) for place in index] if self.images.class_names else None
            names, splits = [self.images.name(i) for i in index], [self.images.split(i) for i in index]
            yield Rows(index, names, splits, labels, part.values)  # type: ignore[arg-type]


def embed(request: EmbedRequest, tick: Tick = lambda done, total: None) -> Embedded:
    """Write the features of all images of a set to a file. Runs as one process, as `request.processes` of them, or as
    one of those that torchrun starts; each computes a contiguous share. Memory is bounded: features are written part by
    part. After a kill the same call continues, and the file has the same bytes as without the kill.

    Does nothing if the file exists and has the same settings. Raises ConfigError if another file is there, and RunError
    if an image cannot be read (`on_error: raise`), a feature is not finite, or the disk is full.
    """
    launch = launched()
    if request.processes > 1 and launch.world_size > 1:
        raise ConfigError(
            f"--processes {request.processes}: torchrun has already started {launch.world_size} processes"
        )
    job = Job(request)
    if request.out.exists():
        return _finished(job)
    for suffix in (".csv", ".json") if request.out.suffix == ".npy" else ():
        if request.out.with_suffix(suffix).exists() and not job.parts.folder.exists():
            raise ConfigError(f"{request.out.with_suffix(suffix)} exists and would be replaced; give another --out")
    job.parts.begin(job.facts)
    if request.processes > 1:
        from cnnjepa.embedding.processes import compute_together

        compute_together(request, job.parts, tick)
    else:
        job.compute(launch.rank, launch.world_size, launch.local_rank, tick)
    return job.join()


def _finished(job: Job) -> Embedded:
    """Return the file that is already there. Raises ConfigError if it has other settings."""
    out = job.request.out
    found = facts_of(out)
    if found != job.facts:
        differing = "" if found is None else f" ({', '.join(k for k in job.facts if found.get(k) != job.facts[k])})"
        raise ConfigError(f"--out {out} exists with other content{differing}; delete it, or give another name")
    job.parts.remove()  # of a process that was killed after it had written the file
    rows = len(open_features(out).names)
    return Embedded(out, rows, job.parts.images - rows, True, existed=True)


def _data_config(request: EmbedRequest, encoder: ReferencedEncoder) -> DataConfig:
    if request.data is not None:
        return images_config(encoder.preprocessing, request.data, request.sets)
    assert encoder.config is not None
    return images_config(encoder.preprocessing, encoder.config.data.model_dump(mode="json"))


def _facts(job: Job) -> dict[str, Any]:
    """Return the settings of the file: everything on which its content depends, and what opens encoder and images."""
    request, encoder = job.request, job.encoder
    place = Path(encoder.reference).expanduser()
    place = place.resolve() if place.exists() else encoder.folder or Path(encoder.reference)
    return {
        "encoder": {
            "reference": str(place), "label": encoder.label,
            "fingerprint": encoder.fingerprint, "which": request.which, "checkpoint": request.checkpoint,
        },
        "preprocessing": asdict(encoder.preprocessing),
        "data": {**job.data.model_dump(mode="json"), **_absolute(job.data)},
        "images": job.images.fingerprint(),
        "split": request.split,
        "dense": request.dense,
        "dtype": request.dtype,
        "batch_size": request.batch_size,
        "version": __version__,
    }  # fmt: skip


def _absolute(data: DataConfig) -> dict[str, str]:
    return {} if data.images_path is None else {"path": str(data.images_path.resolve())}
