"""What can go wrong while running. Asking for something wrong is `cnnjepa.schemas.ConfigError`."""

from cnnjepa.schemas.errors import ConfigError


class RunError(RuntimeError):
    """Something failed while running (disk full, data gone, loss not finite). Exit code 1."""


class ImageError(RunError):
    """An image cannot be read; the message names it. Exit code 2: the data asked for is at fault."""


class ProcessLostError(RunError):
    """A process that the run needs is gone: a loader process, or another rank. Exit code 1. The checkpoint is intact:
    the run can be resumed, and a study tries such a trial again."""


class InUseError(ConfigError):
    """Another process trains in this folder. Exit code 2."""


class Stopped(Exception):  # noqa: N818 - not an error: a checkpoint is written and the run can go on
    """The run was asked to stop and has written a checkpoint. Exit code 75."""
