"""Files of evaluations, `evaluations/<task>-<set>-<hash>.json`. They are added, never replaced."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cnnjepa.errors import RunError
from cnnjepa.names import file_name
from cnnjepa.schemas.evaluation import TaskSection
from cnnjepa.schemas.evaluation_result import EvaluationResult
from cnnjepa.schemas.extension import extension_of
from cnnjepa.storage.atomic_files import write_atomically

FOLDER = "evaluations"

_DIGITS = 12  # of the hash, in file names

# Newer settings, each with the value that earlier evaluations used. At that value a setting is left out of the hash, so
# that those evaluations keep their names.
NEWER: dict[str, dict[str, Any]] = {}


def evaluation_hash(encoder_fingerprint: str, dataset_fingerprint: str, settings: TaskSection) -> str:
    """Return the hash of everything that determines the outcome: encoder, images, and the settings of the task, with
    the source of a user's task."""
    own = extension_of(settings)
    before = NEWER.get(settings.name, {})
    values = {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if name not in settings.PLACES and not (name in before and before[name] == value)
    }
    identity = {
        "encoder": encoder_fingerprint,
        "data": dataset_fingerprint,
        "task": values,
        "source": own.fingerprint if own else "",
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class EvaluationStore:
    """The evaluations of one encoder, in the folder `evaluations` of `home`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / FOLDER

    def path(self, task: str, dataset: str, digest: str) -> Path:
        """Return the file of an evaluation."""
        name = task.rpartition(":")[2]
        return self.folder / f"{file_name(f'{name}-{dataset}')}-{digest[:_DIGITS]}.json"

    def read(self, path: Path) -> EvaluationResult | None:
        """Return the result in a file, or None if there is no such file. Raises RunError if it is damaged."""
        try:
            return EvaluationResult.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise RunError(
                f"{path} cannot be read ({str(error).splitlines()[0]}); remove it to evaluate again"
            ) from None

    def write(self, path: Path, result: EvaluationResult, per_image: Mapping[str, NDArray[np.float32]]) -> None:
        """Write the figures of single images into a `.npz` file, and then the result. Raises RunError if the disk
        is full."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {self.folder} ({error.strerror})") from None
        if per_image:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **per_image)  # type: ignore[arg-type]
            write_atomically(path.with_suffix(".npz"), buffer.getvalue())
        write_atomically(path, (result.model_dump_json(indent=2) + "\n").encode())

    def per_image(self, path: Path) -> dict[str, NDArray[np.float32]]:
        """Return the figures of single images of a result, in percent; empty if the task has none."""
        try:
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path.with_suffix('.npz')} cannot be read ({error}); remove {path} to evaluate again"
            ) from None

    def all(self) -> dict[Path, EvaluationResult]:
        """Return all results in the folder, by file, in alphabetical order. Raises RunError for a damaged file."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            result = self.read(path)
            if result is not None:
                found[path] = result
        return found
