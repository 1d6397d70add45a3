"""How the `cnnjepa` command starts, and how errors become messages and exit codes.

Signals and streams come first: the command line itself is imported after them, and torch, which takes seconds, later.
"""

import sys

from cnnjepa import signals, telling
from cnnjepa.names import visible

# Exit codes; docs/cli.md lists them.
FAILED, WRONG, STOPPED = 1, 2, 75

# Commands that answer a stop signal at their next safe point, with exit code 75. Any other ends at once.
_STOPPABLE: tuple[list[str], ...] = (["train"], ["probe"], ["ablate"], ["search"], ["benchmark"])

# Commands whose product is what they print: a reader that goes away ends them. Any other works on files, and goes on.
_PRINTING: tuple[list[str], ...] = ([], ["config"], ["status"], ["doctor"], ["data", "check"])


def main() -> None:
    """Runs the command line; never shows a traceback unless `--debug` is given."""
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
    except Exception as error:
        if debug:
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Prints an error as one message; gives the exit code."""
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
    _tell(f"unexpected {type(error).__name__}: {error}. This is our mistake; --debug shows where.")
    return FAILED


def _tell(text: str) -> None:
    print(f"cnnjepa: {visible(text, lines=True)}", file=sys.stderr)
