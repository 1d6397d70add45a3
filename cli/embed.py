"""`cnnjepa embed`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnnjepa.cli.encoder_options import (
    ChannelsOption,
    CheckpointOption,
    DeviceOption,
    EncoderArgument,
    EncoderRootOption,
    ImageSizeOption,
    MeanOption,
    StdOption,
    WhichOption,
    WorkersOption,
    preprocessing_overrides,
)
from cnnjepa.cli.options import DataOption, SetOption, at_home

EXAMPLE = "Example:  cnnjepa embed runs/demo --data photos.tar --out features.parquet"


def embed(
    encoder: EncoderArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="File to write: .parquet, .npy (with .csv of names and .json of settings) or .h5.",
            metavar="FILE",
            callback=at_home,
        ),
    ],
    data: DataOption = None,
    split: Annotated[
        Literal["all", "train", "val"], typer.Option("--split", help="Images of one split, or all of them.")
    ] = "all",
    dense: Annotated[
        bool, typer.Option("--dense", help="Write every image's map of cells [C, h, w], not its mean; .npy or .h5.")
    ] = False,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option("--dtype", help="Type of the features in the file.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per batch.", min=1)] = 64,
    processes: Annotated[
        int, typer.Option("--processes", help="Processes on this machine, each with its own GPU if any.", min=1)
    ] = 1,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    which: WhichOption = None,
    checkpoint: CheckpointOption = "last.pt",
    image_size: ImageSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    sets: SetOption = None,
    root: EncoderRootOption = Path(),
) -> None:
    """Write the features of all images of a set to a file: name, split, label if any, and the feature vector.

    Images are resized and cropped at the centre as for probes, with the size and normalisation of the encoder. The
    vector is the mean of the last feature map over its cells, before any pooling and classifier. Without --data, a
    run's own images are used. --set changes how images are read: data.labels, data.on_error, data.val_split, …

    Memory is bounded. After a stop or a kill, the same command resumes, and the finished file has the same bytes. Start
    it with torchrun for several machines.
    """
    from cnnjepa.embedding.request import EmbedRequest

    request = EmbedRequest(
        encoder, out, data, tuple(sets or ()), split=split, dense=dense, dtype=dtype, batch_size=batch_size,
        device=device, processes=processes, workers=workers, which=which, checkpoint=checkpoint,
        overrides=preprocessing_overrides(image_size, mean, std, channels), root=root,
    )  # fmt: skip
    request.check()
    from cnnjepa.launcher import launched

    rank = launched().rank  # before torch is imported, so that leftover variables are refused at once
    from cnnjepa.cli.image_progress import ImageProgress
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.commands import command
    from cnnjepa.embedding.embed import embed as write
    from cnnjepa.schemas.numbers import counted

    with ImageProgress("embedding", shown=rank == 0) as progress:
        found = write(request, progress.at)
    if not found.complete:
        return
    skipped = f"; {counted(found.skipped, 'unreadable image')} left out" if found.skipped else ""
    say(
        console(),
        f"{found.path}: {counted(found.rows, 'image')}{skipped}{'; it was complete already' if found.existed else ''}",
    )
    say(console(), "Search it with:  ", command("cnnjepa", "neighbours", found.path, "IMAGE", "--out", "sheet.png"))
