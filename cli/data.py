"""`cnnjepa data check` and `cnnjepa data pack`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnjepa.cli.any_order import AnyOrder
from cnnjepa.cli.options import at_home
from cnnjepa.cli.single_options import Commands

if TYPE_CHECKING:
    from cnnjepa.schemas import DataConfig

app = Commands(
    cls=AnyOrder,
    no_args_is_help=True,
    help="Check a data set before training on it, and pack it so that it loads faster.",
    epilog="Example:  cnnjepa data check photos.tar",
)


@app.callback()
def _data() -> None:
    pass


def _images_at(path: Path, what: str, **splits: str | None) -> "DataConfig":
    """Return the data section of `--data PATH`, with other names of splits if given. Raises ConfigError, naming `what`,
    when nothing exists at the path."""
    from cnnjepa.schemas.errors import ConfigError

    if not path.exists():
        raise ConfigError(
            f"{what} {path} does not exist; give a directory of images, a .tar(.gz) of one, or HDF5 files"
        )
    from cnnjepa.schemas.load import load_config

    small = ["image_size=64", "min_keep=0", "sampler=unbiased", "stem=small"]  # a config that fits any images
    named = {f"data.{name}": split for name, split in splits.items() if split is not None}
    return load_config(data=path, overrides=small, changes=named).data


@app.command(epilog="Example:  cnnjepa data check /data/imagenet100")
def check(
    path: Annotated[
        Path, typer.Argument(help="A directory, a .tar(.gz) of one, or a folder of HDF5 files.", callback=at_home)
    ],
    threads: Annotated[
        int, typer.Option("--threads", help="Number of images that are decoded at the same time.", min=1)
    ] = 2,
) -> None:
    """Read every image: print sizes, depth, channels and values, and list the unreadable ones. The exit code is 1 if
    there are any. Damaged JPEG files that can be read in part are listed too.

    Files that are not used (hidden ones, those in folders below a class, other file types, …) are counted per reason.
    """
    config = _images_at(path, "PATH")
    from rich.progress import track

    from cnnjepa.cli.terminal import console, is_live, say
    from cnnjepa.data.check import Summary, check_images, read_as_stored
    from cnnjepa.data.open import empty_classes, left_out_note, open_sources
    from cnnjepa.schemas.numbers import counted

    out, progress = console(), console(stderr=True)
    sources = open_sources(config)
    problems, repaired, good, sizes = len(sources.lost), 0, Counter[str](), Counter[tuple[int, int]]()
    if sources.found:
        say(out, f"{path}: {sources.found}")
    classes: dict[tuple[str, str], bool] = {}  # (split, class): whether one of its images can be read
    for lost in sources.lost:
        say(out, lost)
    summary = Summary(read_as_stored(sources))
    checked = check_images(config, threads, sources)
    for found in track(checked, "checking", console=progress, disable=not is_live(progress)):
        place = (found.split, found.class_name)
        classes[place] = classes.get(place, False) or not found.problem
        if found.problem:
            problems += 1
            say(out, found.problem)
        elif found.size:
            if found.repaired:
                repaired += 1
                say(out, found.repaired)
            good[found.split] += 1
            sizes[found.size] += 1
            if found.values is not None:
                summary.add(found.values)
    shapes = ", ".join(f"{w}x{h}: {n:,}" for (h, w), n in sizes.most_common(3))
    by_split = ", ".join(f"{split} {count:,}" for split, count in good.items())
    others = " and others" if len(sizes) > 3 else ""
    say(out, f"{good.total():,} images can be read ({by_split}); sizes {shapes}{others}")
    if repaired:
        say(out, f"{counted(repaired, 'damaged image')} can be read only in part; replace or remove such files")
    for line in summary.lines():
        say(out, line)
    for (split, name), readable in classes.items():
        if not readable and name:
            say(out, f"no image of class {name} in {split} can be read")
    names = sources["train"].class_names
    empty = [line for split in sources for line in empty_classes(split, sources[split], names)]
    for note in [*sources.notes, *empty, *left_out_note(sources)]:
        say(out, note)
    if problems:
        say(progress, f"{problems:,} cannot be read; remove them, or train with --set on_error=skip")
        raise typer.Exit(1)


@app.command(epilog="Example:  cnnjepa data pack /data/imagenet100 /fast/imagenet100-256")
def pack(
    source: Annotated[
        Path, typer.Argument(help="A directory, a .tar(.gz) of one, or a folder of HDF5 files.", callback=at_home)
    ],
    dest: Annotated[Path, typer.Argument(help="A new folder for the shards, or one to resume.", callback=at_home)],
    shorter_side: Annotated[
        int,
        typer.Option("--shorter-side", help="Largest shorter side, in pixels; larger images are resized to it.", min=8),
    ] = 256,
    quality: Annotated[int, typer.Option("--quality", help="JPEG quality of resized images.", min=1, max=100)] = 95,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", help="Number of images that are processed at the same time; all cores by default.", min=1
        ),
    ] = None,
    train_split: Annotated[str | None, typer.Option("--train-split", help="Name of the training folder.")] = None,
    val_split: Annotated[str | None, typer.Option("--val-split", help="Name of the validation folder.")] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave unreadable images out and list them.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Write nothing; verify a packed data set again.")] = False,
) -> None:
    """Resize large images once and store all images in tar shards, which load faster. `--data DEST` reads the shards.

    Small images are copied byte for byte. After an interruption, the same command resumes. At the end, all images are
    read back and verified. A packed data set is another data set than its source, so its runs have other hashes.
    """
    config = _images_at(source, "SOURCE", train_split=train_split, val_split=val_split)
    from rich.progress import Progress

    from cnnjepa.cli.terminal import console, is_live, say
    from cnnjepa.commands import command
    from cnnjepa.data.pack import pack as pack_images
    from cnnjepa.data.pack import prepare
    from cnnjepa.data.shards import finished
    from cnnjepa.data.verify import facts
    from cnnjepa.data.verify import verify as read_back
    from cnnjepa.data.workers import usable_workers
    from cnnjepa.schemas import ConfigError
    from cnnjepa.schemas.numbers import counted
    from cnnjepa.storage.locks import locked

    threads = threads or usable_workers(256)
    packing = prepare(config, dest, shorter_side, quality, skip_unreadable)
    if verify and not packing.manifest.finished:
        raise ConfigError(
            f"{dest} is not completely packed; run this command without --verify: it resumes packing and then verifies"
        )
    bars, out = console(stderr=True), console()
    total = packing.manifest.train + packing.manifest.val

    def follow(steps: Iterator[int], title: str) -> None:
        with Progress(console=bars, disable=not is_live(bars)) as progress:
            task = progress.add_task(title, total=total)
            for done in steps:
                progress.update(task, completed=done)

    with locked(dest):
        if not verify:
            follow(pack_images(packing, threads), "packing")
        if verify or not finished(dest):
            follow(read_back(packing, threads), "reading back")
        found = facts(packing)
    for note in packing.notes:
        say(out, note)
    for name in found.skipped:
        say(out, f"left out: {name}")
    for name in found.repaired:
        say(out, name)
    say(
        out,
        f"{dest}: {found.train:,} + {found.val:,} images in {counted(found.shards, 'shard')}, "
        f"{found.size / 1e6:,.0f} MB, "
        f"{found.copied:,} of them copied unchanged; all verified. Use it with {command('--data', dest)}",
    )
