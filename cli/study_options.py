"""Options of every command that runs trials."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cnnjepa.cli.options import DataOption, ProbeDataOption, RootOption, SetOption, probe_data_sets, refuse_missing


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
    """Options for the machines of trials and the resources of each trial."""

    address: Annotated[
        str | None,
        typer.Option("--address", help="A running Ray cluster: auto or HOST:PORT. By default, this machine alone."),
    ] = None
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-trial",
            help="GPUs per trial; 0.5 puts two trials on one. Default: 1 where there are GPUs.",
            min=0,
        ),
    ] = None
    cpus_per_trial: Annotated[
        int | None, typer.Option("--cpus-per-trial", help="CPUs, and threads, per process of a trial.", min=1)
    ] = None
    workers_per_trial: Annotated[
        int, typer.Option("--workers-per-trial", help="Processes per trial (distributed data parallel).", min=1)
    ] = 1
    root: RootOption = Path()


@dataclasses.dataclass(frozen=True)
class StudyOptions(ClusterOptions):
    """Options of every `ablate` command in addition to its axes."""

    preset: Annotated[
        str | None,
        typer.Option("--preset", help="The base config; `cnnjepa config presets` lists them.", metavar="NAME"),
    ] = None
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Training seeds of every arm: 0,1,2.", metavar="LIST")
    ] = None
    sets: SetOption = None
    data: DataOption = None
    probe_data: ProbeDataOption = None
    name: Annotated[str | None, typer.Option("--name", help="Folder below studies/.", metavar="NAME")] = None
    executor: Annotated[
        Literal["ray", "local"],
        typer.Option("--executor", help="ray: trials in parallel, here or on a cluster; local: one after another."),
    ] = "ray"
    plan: Annotated[bool, typer.Option("--plan", help="Print the trials and their estimated cost; run nothing.")] = (
        False
    )
    images_per_s: Annotated[
        float | None,
        typer.Option(
            "--images-per-s", help="Training speed per process for the estimates; measured by default.", min=0.001
        ),
    ] = None
    extend: Annotated[bool, typer.Option("--extend", help="Add arms or seeds to an existing study.")] = False
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False


def taking(options: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a dataclass's fields to a command as options. The command gets one instance as its
    first argument."""
    hints = typing.get_type_hints(options, include_extras=True)
    # The options of the command's own class come first, then those for the machines.
    fields = sorted(dataclasses.fields(options), key=lambda field: field.name not in options.__annotations__)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in list(inspect.signature(command).parameters.values())[1:]
        ]

        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            refuse_missing(given["data"], given.get("preset"), given["sets"], given.get("study"))
            if given.get("probe_data"):
                given["sets"] = [*(given["sets"] or []), *probe_data_sets(given["probe_data"])]
            chosen = options(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            command(chosen, **given)

        wrapped.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *shared]}
        return wrapped

    return decorate
