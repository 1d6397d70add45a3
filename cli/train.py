"""`cnnjepa train`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import (
    ConfigOption,
    DataOption,
    PresetOption,
    ProbeDataOption,
    SetOption,
    at_home,
    probed_on,
    refuse_missing,
    requested_config,
)
from cnnjepa.commands import command
from cnnjepa.names import file_name

EXAMPLE = "Example:  cnnjepa train --preset demo --set predictor.depth=3 --out runs/depth3"


def train(
    preset: PresetOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    data: DataOption = None,
    probe_data: ProbeDataOption = None,
    continued: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A finished run, by folder or hash, to continue for more epochs: --set runtime.epochs=TOTAL.",
            metavar="RUN",
            callback=at_home,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Run folder to write; runs/PRESET-seedN by default.", metavar="DIR", callback=at_home
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint, if there is one.")] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", help="With --resume: the checkpoint to resume from.", metavar="FILE", callback=at_home
        ),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(
            "--max-hours", help="Stop with a checkpoint after this many hours (exit code 75).", min=0, metavar="H"
        ),
    ] = None,
) -> None:
    """Pretrain an encoder, probe it, and write a run folder.

    --from RUN starts with the config, weights, moving average, optimiser state and step counter of RUN. From that step
    on, learning rate, weight decay and momentum follow the schedule of the new total length, so the learning rate rises
    again. The new run has its own folder, hash and checkpoints; encoder, method, images, batch and seed must not
    change.

    Exit codes: 0 done, 1 failed, 2 invalid request, 3 collapsed, 75 stopped with a checkpoint (run again with
    --resume to continue). Start it with torchrun for several GPUs.
    """
    if not continued:
        refuse_missing(data, preset, sets, config)
    from cnnjepa.errors import ImageError, RunError, Stopped
    from cnnjepa.launcher import launched
    from cnnjepa.places import refuse_missing_images, refuse_no_checkpoint
    from cnnjepa.schemas import ConfigError
    from cnnjepa.warm_start.location import located
    from cnnjepa.warm_start.request import continued_config, default_folder

    if continued and (preset or config):
        raise ConfigError("--from RUN takes the config of RUN; give neither --preset nor --config with it")
    if continued:
        asked = continued_config(continued, sets or [], data, probed_on(probe_data))
    else:
        asked = requested_config(preset, config, sets, data, probe_data=probe_data)
    if checkpoint and not resume:
        raise ConfigError("--checkpoint requires --resume")
    refuse_missing_images(asked.data)
    if not (resume or continued):  # these runs have a copy of the weights
        located(asked.encoder)
    if checkpoint:
        refuse_no_checkpoint(checkpoint)
    stem = preset or (config.stem if config else "run")
    stem = file_name(stem) if len(stem.encode()) > 200 else stem  # the file system's limit is 255 bytes
    usual = default_folder(asked) if continued else Path("runs") / f"{stem}-seed{asked.runtime.seed}"
    run_dir = out or usual
    is_main = launched().rank == 0  # before torch is imported, so that leftover variables are refused at once

    from cnnjepa.cli.progress import TerminalWatcher
    from cnnjepa.cli.summary import print_summary
    from cnnjepa.training.pretrain import pretrain
    from cnnjepa.training.run_folder import RunFolder

    with TerminalWatcher(asked.runtime.batch_size) as watcher:
        try:
            result = pretrain(
                asked,
                run_dir,
                resume=resume,
                checkpoint=checkpoint,
                max_hours=max_hours,
                watcher=watcher if is_main else None,
            )
        except Stopped as stopped:
            watcher.close()
            if is_main:
                begun = (run_dir / "checkpoints" / "last.pt").exists()
                how = "resume with" if begun else "nothing was trained yet, run again"
                print(f"cnnjepa: stopped ({stopped}); {how}: {_again()}", file=sys.stderr)
            raise typer.Exit(75) from None
        except (RunError, ImageError) as error:
            if is_main and RunFolder(run_dir).begun and "--resume" not in str(error):
                begun = (run_dir / "checkpoints" / "last.pt").exists()
                state = "its last checkpoint" if begun else "the beginning, because it has no checkpoint"
                error.add_note(f"{run_dir} holds the failed run; this continues it from {state}: {_again()}")
            raise
    if is_main:
        print_summary(result, run_dir)
    raise typer.Exit(3 if result.status == "collapsed" else 0)


def _again() -> str:
    """Return this command line for another run: with --resume, and without --checkpoint."""
    from cnnjepa.launcher import launched

    words = iter(sys.argv[1:])
    kept = []
    for word in words:
        if word == "--checkpoint":
            next(words, None)
        elif word != "--resume" and not word.startswith("--checkpoint="):
            kept.append(word)
    world_size = launched().world_size
    launcher = ["torchrun", "--nproc-per-node", str(world_size), "-m", "cnnjepa"] if world_size > 1 else ["cnnjepa"]
    return command(*launcher, *kept, "--resume")
