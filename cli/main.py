"""The `cnnjepa` command: its parts, and how errors become messages and exit codes."""

import sys
from typing import Annotated

import typer

from cnnjepa import __version__
from cnnjepa.cli import (
    ablate,
    benchmark,
    config,
    data,
    doctor,
    export,
    keep,
    masks,
    probe,
    report,
    search,
    status,
    train,
)
from cnnjepa.cli.terminal import prepare_streams
from cnnjepa.names import visible

# Exit codes; DESIGN and docs/cli.md list them.
FAILED, WRONG, COLLAPSED, STOPPED = 1, 2, 3, 75

app = typer.Typer(
    name="cnnjepa",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Pretrain convolutional networks with CNN-JEPA, probe them, and compare what changes.",
    epilog="Example:  cnnjepa train --preset smoke",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"cnnjepa {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors (anywhere on the line).")] = False,
) -> None:
    pass


app.command(name="train", epilog=train.EXAMPLE)(train.train)
app.command(name="probe", epilog=probe.EXAMPLE)(probe.probe)
app.command(name="export", epilog=export.EXAMPLE)(export.export)
app.command(name="masks", epilog=masks.EXAMPLE)(masks.masks)
app.command(name="doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
app.add_typer(ablate.app, name="ablate")
app.command(name="benchmark", epilog=benchmark.EXAMPLE)(benchmark.benchmark)
app.command(name="search", epilog=search.EXAMPLE)(search.search)
app.command(name="status", epilog=status.EXAMPLE)(status.status)
app.command(name="report", epilog=report.EXAMPLE)(report.report)
app.command(name="keep", epilog=keep.EXAMPLE)(keep.keep)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")


def main() -> None:
    """Runs the command line; never shows a traceback unless `--debug` is given."""
    prepare_streams()
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(arguments)
    except Exception as error:
        if debug:
            raise
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Prints an error as one message; gives the exit code."""
    from cnnjepa.errors import ImageError, RunError
    from cnnjepa.optional import absent
    from cnnjepa.schemas.errors import ConfigError

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
