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
    demo_data,
    doctor,
    embed,
    evaluate,
    export,
    masks,
    neighbours,
    probe,
    report,
    search,
    status,
    train,
)
from cnnjepa.cli.single_options import Commands

app = Commands(
    name="cnnjepa",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Pretrain convolutional networks with CNN-JEPA, probe them, and compare settings and methods.",
    epilog="Example:  cnnjepa train --preset smoke",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"cnnjepa {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (may stand anywhere in the command).")
    ] = False,
) -> None:
    pass


# In the order of `cnnjepa --help`. A command's function has the name of its module.
for _module in (
    train,
    probe,
    evaluate,
    embed,
    neighbours,
    export,
    masks,
    doctor,
    benchmark,
    search,
    status,
    report,
    archive,
    demo_data,
):
    _name = _module.__name__.rpartition(".")[2]
    app.command(name=_name.replace("_", "-"), epilog=_module.EXAMPLE)(getattr(_module, _name))
app.command(name="keep", epilog=archive.EXAMPLE, hidden=True)(archive.keep)
for _group in (ablate, config, data):
    app.add_typer(_group.app, name=_group.__name__.rpartition(".")[2])
