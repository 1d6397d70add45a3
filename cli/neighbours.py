"""`cnnjepa neighbours`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnjepa.cli.options import at_home

if TYPE_CHECKING:
    from cnnjepa.embedding.feature_file import FeatureFile
    from cnnjepa.embedding.queries import Query
    from cnnjepa.embedding.search import Neighbour

    Found = list[tuple[Query, list[Neighbour]]]

EXAMPLE = "Example:  cnnjepa neighbours features.parquet photo.jpg --out sheet.png"

_MOST_ROWS = 100  # rows of a sheet


def neighbours(
    features: Annotated[
        Path, typer.Argument(help="A file that `cnnjepa embed` wrote.", metavar="FEATURES", callback=at_home)
    ],
    images: Annotated[
        list[str] | None, typer.Argument(help="Names in the file, or image files.", metavar="IMAGE…")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of neighbours.", min=1)] = 9,
    pairs: Annotated[
        float | None,
        typer.Option("--pairs", help="List pairs of at least this similarity instead.", metavar="S", min=-1, max=1),
    ] = None,
    most: Annotated[int, typer.Option("--most", help="Maximum number of pairs to list.", min=1)] = 1000,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Contact sheet to write: .png or .jpg.", metavar="FILE", callback=at_home),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Where the images are now, for the contact sheet.", metavar="PATH", callback=at_home
        ),
    ] = None,
) -> None:
    """Find the images of a file of features that are nearest to an image, by cosine similarity.

    The features of an image that is not in the file are computed with the encoder that the file names. --pairs lists
    near-duplicates: pairs of images in the file with at least that similarity. The search is exact, with FAISS if it is
    installed.
    """
    from cnnjepa.schemas.errors import ConfigError

    if bool(images) == (pairs is not None):
        raise ConfigError("give either images or --pairs SIMILARITY" + (", not both" if images else ""))
    if out is not None and out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"--out {out}: the ending must be .png or .jpg")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.embedding.feature_file import open_features
    from cnnjepa.names import visible
    from cnnjepa.schemas.numbers import counted

    file, where, notes = open_features(features), console(), console(stderr=True)

    def named(row: int) -> str:
        label = f"  ({visible(file.caption(row))})" if file.caption(row) else ""
        return f"{visible(file.names[row])}{label}"

    if pairs is not None:
        found, count = _pairs(file, pairs, most)
        for query, near in found:
            assert query.row is not None
            say(where, f"{near[0].similarity:.4f}  {named(query.row)}  {named(near[0].row)}")
        more = f"; the {most:,} most similar are listed" if count > most else ""
        say(notes, f"{counted(count, 'pair')} of similarity {pairs:g} or more{more}")
        found = found[:_MOST_ROWS]
    else:
        found = _nearest(file, images or [], k)
        for query, near in found:
            say(where, (query.name, "bold"))
            for one in near:
                say(where, f"  {one.similarity:.4f}  {named(one.row)}")
    if out is not None and found:
        from cnnjepa.commands import quoted
        from cnnjepa.embedding.contact_sheet import tiles, write_sheet
        from cnnjepa.embedding.queries import images_of

        write_sheet(tiles(file, images_of(file, data), found), out)
        say(notes, f"Look:  {quoted(out)}")


def _nearest(file: "FeatureFile", images: list[str], k: int) -> "Found":
    import torch

    from cnnjepa.embedding.queries import queries
    from cnnjepa.embedding.search import neighbours as search

    asked = queries(file, images)
    near = search(file.vectors, torch.stack([query.vector for query in asked]), k, [query.row for query in asked])
    return list(zip(asked, near, strict=True))


def _pairs(file: "FeatureFile", least: float, most: int) -> tuple["Found", int]:
    """Return every pair as a query with one neighbour, and the number of all pairs."""
    from torch.nn.functional import normalize

    from cnnjepa.embedding.queries import Query
    from cnnjepa.embedding.search import Neighbour
    from cnnjepa.tensor_ops.similar_pairs import similar_pairs

    pairs, count = similar_pairs(normalize(file.vectors, dim=1), least, most)
    return [
        (
            Query(file.names[pair.first], file.vectors[pair.first], pair.first, None),
            [Neighbour(pair.second, pair.similarity)],
        )
        for pair in pairs
    ], count
