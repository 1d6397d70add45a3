"""Errors that can occur while running. A wrong request is `cnnjepa.schemas.ConfigError`."""

from typing import TYPE_CHECKING

from cnnjepa.schemas.errors import ConfigError

if TYPE_CHECKING:
    from cnnjepa.schemas.pixels import PixelKind


class RunError(RuntimeError):
    """An operation failed while running (disk full, data missing, loss not finite). Exit code 1."""


class ImageError(RunError):
    """An image cannot be read; the message names it. Exit code 2, because the user's data are the cause."""

    fits: "PixelKind | None" = None
    """The form in which the image can be read, if only its depth or its channels are others than the config's."""


class ProcessLostError(RunError):
    """A process that the run needs is gone: a loader process, or another rank. Exit code 1. The checkpoint is intact,
    so the run can be resumed, and a study repeats such a trial."""


class InUseError(ConfigError):
    """Another process is training in this folder. Exit code 2."""


class Stopped(Exception):  # noqa: N818 - not an error: a checkpoint is written and the run can be resumed
    """The run was stopped on request and has written a checkpoint. Exit code 75."""
