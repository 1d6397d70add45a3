"""The `cnnjepa` command and its subcommands."""

from typing import Annotated

import typer

from cnnjepa import __version__
from cnnjepa.cli import (
    ablate,
    archive,
    benchmark,
    config,
    data,
    doctor,
    export,
    masks,
    probe,
    report,
    search,
    status,
    train,
)

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
app.command(name="archive", epilog=archive.EXAMPLE)(archive.archive)
app.command(name="keep", epilog=archive.EXAMPLE, hidden=True)(archive.keep)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
