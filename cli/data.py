"""`cnnjepa data check`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Look at images before a run does.", epilog="Example:  cnnjepa data check photos.tar"
)


@app.callback()
def _data() -> None:
    pass


@app.command(epilog="Example:  cnnjepa data check /data/imagenet100")
def check(
    path: Annotated[Path, typer.Argument(help="A directory, a .tar(.gz) of one, or a folder of HDF5 files.")],
    threads: Annotated[int, typer.Option("--threads", help="Images decoded at once.", min=1)] = 2,
) -> None:
    """Read every image and name the ones that cannot be; exit code 1 when there are any."""
    from rich.console import Console
    from rich.progress import track

    from cnnjepa.data.check import check_images
    from cnnjepa.schemas import load_config

    config = load_config(data=path, overrides=["image_size=64", "min_keep=0", "sampler=unbiased", "stem=small"]).data
    console = Console(stderr=True)
    problems, good, sizes = 0, Counter[str](), Counter[tuple[int, int]]()
    for found in track(check_images(config, threads), "checking", console=console, disable=not console.is_terminal):
        if found.problem:
            problems += 1
            print(found.problem)
        elif found.size:
            good[found.split] += 1
            sizes[found.size] += 1
    shapes = ", ".join(f"{w}x{h}: {n:,}" for (h, w), n in sizes.most_common(3))
    by_split = ", ".join(f"{split} {count:,}" for split, count in good.items())
    others = " and others" if len(sizes) > 3 else ""
    print(f"{good.total():,} images can be read ({by_split}); sizes {shapes}{others}")
    if problems:
        print(f"{problems:,} cannot; remove them, or train with --set on_error=skip", file=sys.stderr)
        raise typer.Exit(1)
