"""`cnnjepa ablate predictor|masking|FILE`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnjepa.cli.any_order import AnyOrder
from cnnjepa.cli.options import at_home, listed
from cnnjepa.cli.single_options import Commands
from cnnjepa.cli.study_options import StudyOptions, taking

if TYPE_CHECKING:
    from cnnjepa.schemas.study import Study

EXAMPLE = "Example:  cnnjepa ablate predictor --depths 1,2,3,4"

# The base config of a study that only flags describe.
_DEFAULT_PRESET = "ablation"


class _StudyGroup(AnyOrder):
    """Group in which `ablate FILE.yaml` and `ablate NAME` call the command `file` with that argument."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["file", *args]
        return super().resolve_command(ctx, args)


app = Commands(
    cls=_StudyGroup,
    no_args_is_help=True,
    help="Compare settings: train and probe every arm of a study; a finished trial is never computed again. "
    "`cnnjepa ablate FILE.yaml` runs your own study, `cnnjepa ablate NAME` one that ships with the project.",
    epilog=EXAMPLE,
)


@app.command(epilog=EXAMPLE)
@taking(StudyOptions)
def predictor(
    options: StudyOptions,
    depths: Annotated[str | None, typer.Option("--depths", help="Numbers of layers: 1,2,3,4.", metavar="LIST")] = None,
    kernels: Annotated[str | None, typer.Option("--kernels", help="Kernel sizes: 3,5,7.", metavar="LIST")] = None,
    convs: Annotated[
        str | None, typer.Option("--convs", help="Kinds of convolution: separable,dense.", metavar="LIST")
    ] = None,
) -> None:
    """Compare the predictor's depth, kernel size and kind of convolution (the authors' ablation). Every combination of
    the given values is an arm.

    Without --preset, the study runs on the embedded images and takes minutes. Finished trials are reused, and
    interrupted ones are resumed. Exit codes: 0 done, 1 a trial failed, 2 invalid request, 75 stopped (the same command
    resumes the study).
    """
    from cnnjepa.ablations.flag_studies import predictor_study

    axes = listed(depths, "--depths"), listed(kernels, "--kernels"), listed(convs, "--convs")
    carry_out(predictor_study(*axes, options.preset or _DEFAULT_PRESET), options)


@app.command(epilog="Example:  cnnjepa ablate masking --strategies mixed,multi_block,random")
@taking(StudyOptions)
def masking(
    options: StudyOptions,
    strategies: Annotated[
        str | None,
        typer.Option("--strategies", help="Masking strategies: mixed,multi_block,random,block.", metavar="LIST"),
    ] = None,
    ratios: Annotated[
        str | None, typer.Option("--ratios", help="Mask ratios of random batches: 0.4,0.6.", metavar="LIST")
    ] = None,
    blocks: Annotated[
        str | None, typer.Option("--blocks", help="Numbers of target blocks: 2,4,6.", metavar="LIST")
    ] = None,
) -> None:
    """Compare masking strategies, mask ratios and numbers of target blocks (the authors' ablation). A flag applies to
    the strategies that have its setting.

    Exit codes as for `ablate predictor`.
    """
    from cnnjepa.ablations.flag_studies import masking_study

    axes = listed(strategies, "--strategies"), listed(ratios, "--ratios"), listed(blocks, "--blocks")
    carry_out(masking_study(*axes, options.preset or _DEFAULT_PRESET), options)


@app.command(epilog="Example:  cnnjepa ablate my_study.yaml --seeds 0,1,2")
@taking(StudyOptions)
def file(
    options: StudyOptions,
    study: Annotated[
        str,
        typer.Argument(help="A YAML file, or a study that ships with the project.", metavar="FILE", callback=at_home),
    ],
) -> None:
    """Run a study from a YAML file (docs/studies.md), or one that ships with the project.

    The word `file` may be left out: `cnnjepa ablate FILE`.

    Exit codes as for `ablate predictor`.
    """
    from cnnjepa.ablations.study_files import read_study

    carry_out(read_study(study), options)


@app.command(epilog="Example:  cnnjepa ablate studies")
def studies() -> None:
    """List the studies that ship with the project, each with its question, the paper's result, cost and command."""
    from cnnjepa.ablations.study_files import shipped_studies, shipped_text
    from cnnjepa.cli.terminal import console, say

    out = console()
    for shipped in shipped_studies():
        say(out, (shipped, "bold"))
        for line in shipped_text(shipped).splitlines():
            if line.startswith("# "):
                say(out, f"    {line[2:]}")


def carry_out(study: "Study", options: StudyOptions) -> None:
    """Run a study with these options, or show its plan."""
    from cnnjepa.ablations.plan import requested_trials
    from cnnjepa.ablations.study_files import changed
    from cnnjepa.places import refuse_missing_images
    from cnnjepa.schemas.load import refuse_two_places
    from cnnjepa.schemas.overrides import parse_overrides, replaced

    overrides = dict(parse_overrides(options.sets or []))
    if options.data is not None:
        refuse_two_places(options.data, overrides)
    changes: dict[str, Any] = {"set": replaced(study.set, overrides, "set:")}
    if options.preset is not None and options.preset != study.preset:
        changes |= {"preset": options.preset, "name": f"{study.name}-{options.preset}"}
    if options.name is not None:
        changes["name"] = options.name
    if options.seeds is not None:
        changes["seeds"] = listed(options.seeds, "--seeds")
    asked = changed(study, changes)
    trials = requested_trials(asked, options.data)
    for trial in trials[:: len(asked.seeds)]:  # one of each arm
        refuse_missing_images(trial.config.data)
    from cnnjepa.cli.study_run import StudyRequest, run, show_plan

    request = StudyRequest(asked, options, trials)
    if options.plan:
        show_plan(request)
        return
    raise typer.Exit(run(request))
