"""`studies/<name>/trials.jsonl`: the trials of an archived study, one per line, with result and logged figures.

An archived study has this file in place of `trials.json` and of the run folders. A line is a JSON object:
`{"trial": …, "result": …, "logged": […]}`, with the fields of `TrialRecord` and of `TrialResult`, and the lines of the
run's `metrics.jsonl`. `result` is null for a trial without a result; `logged` is null if nothing was logged.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnnjepa.errors import RunError
from cnnjepa.schemas import TrialResult
from cnnjepa.storage.atomic_files import write_atomically

FILE_NAME = "trials.jsonl"


@dataclass(frozen=True)
class ArchivedTrial:
    """A line of the file."""

    trial: dict[str, Any]
    """Fields of the trial's `TrialRecord`."""
    result: dict[str, Any] | None
    """Fields of its `TrialResult`."""
    logged: list[Any] | None
    """Lines of `metrics.jsonl`, see `logged_lines`."""


def write_archived_trials(path: Path, trials: Iterable[ArchivedTrial]) -> None:
    """Write the file; an earlier one is replaced. Raises RunError when the disk refuses."""
    lines = [json.dumps(asdict(trial), separators=(",", ":"), ensure_ascii=False) for trial in trials]
    write_atomically(path, "".join(line + "\n" for line in lines).encode())


def read_archived_trials(path: Path) -> list[ArchivedTrial]:
    """Return every line. Raises OSError, or ValueError naming the line that is not as expected."""
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not text:
            continue
        try:
            found.append(ArchivedTrial(**json.loads(text)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number}: {error}") from None
    return found


def logged_lines(text: str) -> list[Any]:
    """Parse the text of a `metrics.jsonl`. A line that is not JSON, for example torn by a crash, stays a string."""
    return [_parsed(line) for line in text.splitlines()]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


class ArchivedTrials:
    """The archived trials of all studies below one root, found by (pretrain_hash, probe_hash). Files are read once, at
    the first query."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], ArchivedTrial]:
        found = {}
        for path in sorted((self._root / "studies").glob(f"*/{FILE_NAME}")):
            try:
                lines = read_archived_trials(path)
                found.update({(line.trial["pretrain_hash"], line.trial["probe_hash"]): line for line in lines})
            except (OSError, ValueError, KeyError, TypeError):
                continue  # `StudyFolder.trials` of that study reports the error
        return found

    def result(self, pretrain_hash: str, probe_hash: str) -> TrialResult | None:
        """Return the trial's result; None if it was not archived. Raises RunError when it cannot be read."""
        line = self._by_key.get((pretrain_hash, probe_hash))
        if line is None or line.result is None:
            return None
        try:
            return TrialResult.model_validate(line.result)
        except ValidationError as error:
            raise RunError(
                f"the archived result of {pretrain_hash[:12]} cannot be read "
                f"({error.error_count()} fields are not as expected)"
            ) from None

    def logged(self, pretrain_hash: str, probe_hash: str) -> list[Any] | None:
        """Return the lines that the trial logged; None if none were archived."""
        line = self._by_key.get((pretrain_hash, probe_hash))
        return None if line is None else line.logged
