"""Start of the `cnnjepa` command, and conversion of errors to messages and exit codes.

Signals and streams are set up first. The command line is imported after them, and torch, which takes seconds, later.
"""

import os
import signal
import sys

from cnnjepa import signals, telling
from cnnjepa.names import visible

# Exit codes; docs/cli.md lists them.
FAILED, WRONG, STOPPED = 1, 2, 75

# Commands that end at their next safe point after a stop signal, with exit code 75. Other commands end at once.
_STOPPABLE: tuple[list[str], ...] = (
    ["train"], ["probe"], ["evaluate"], ["embed"], ["ablate"], ["search"], ["benchmark"],
)  # fmt: skip

# Commands that only print: they end when their reader goes away. Other commands work on files, and continue.
_PRINTING: tuple[list[str], ...] = ([], ["config"], ["status"], ["doctor"], ["data", "check"])


def main() -> None:
    """Run the command line. A traceback is shown only with `--debug`."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    words = [a for a in arguments if not a.startswith("-")]
    if words[:1] in _STOPPABLE:
        signals.listen()
    if words[:1] not in _PRINTING and words[:2] not in _PRINTING:
        telling.unbreakable_streams()
    try:
        from cnnjepa.cli.app import app
        from cnnjepa.cli.terminal import prepare_streams

        prepare_streams()
        app(arguments)
    except SystemExit as ending:
        _end_if_the_reader_left(ending)
        raise
    except Exception as error:
        if debug:
            raise
        code = _report(error)
        for note in getattr(error, "__notes__", ()):
            _tell(note)
        sys.exit(code)


def _end_if_the_reader_left(ending: SystemExit) -> None:
    """End by SIGPIPE, as other programs do, if standard output was closed by its reader (`cnnjepa config presets |
    head -1`). Without this, typer and rich would end with exit code 1, and the last flush would print an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as closed:
        ending.__context__ = closed
    if isinstance(ending.__context__, BrokenPipeError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)


def _report(error: Exception) -> int:
    """Print an error as one message and return the exit code."""
    from cnnjepa.errors import ImageError, RunError, Stopped
    from cnnjepa.optional import absent
    from cnnjepa.schemas.errors import ConfigError

    if isinstance(error, Stopped):
        _tell(f"stopped ({error}); run the same command again")
        return STOPPED
    if isinstance(error, ImageError):
        _tell(f"{error}; `cnnjepa data check PATH` finds all such images, --set on_error=skip leaves them out")
        return WRONG
    if isinstance(error, ConfigError):
        _tell(str(error))
        return WRONG
    if isinstance(error, ImportError) and (told := absent(error)):
        _tell(told)
        return WRONG
    if isinstance(error, RunError | OSError):
        _tell(str(error))
        return FAILED
    if undecodable := [word for word in sys.argv if _not_utf8(word)]:
        _tell(f"{type(error).__name__}: {error}. {undecodable[0]} is not UTF-8, which this command needs; rename it")
        return WRONG
    _tell(f"unexpected {type(error).__name__}: {error}. This is our mistake; --debug shows where.")
    return FAILED


def _not_utf8(word: str) -> bool:
    """Return whether a word of the command line has bytes that are not UTF-8, which Python writes as surrogates."""
    return any("\udc80" <= letter <= "\udcff" for letter in word)


def _tell(text: str) -> None:
    print(f"cnnjepa: {visible(text, lines=True)}", file=sys.stderr)
