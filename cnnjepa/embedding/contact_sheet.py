"""A picture of images in rows: a query, then its neighbours, with similarities and names."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cnnjepa.data.pixels import shown
from cnnjepa.embedding.feature_file import FeatureFile
from cnnjepa.embedding.image_list import ImageList
from cnnjepa.embedding.queries import Files, Query
from cnnjepa.embedding.search import Neighbour
from cnnjepa.errors import RunError
from cnnjepa.names import visible
from cnnjepa.references.preprocessing import section_config

_SIDE, _GAP, _TEXT = 144, 8, 13  # pixels: side of a picture, gap, height of a line
_LINES = 2


class Tile(NamedTuple):
    """One image of the sheet."""

    pixels: Tensor
    """[K, H, W] of any type."""
    caption: str
    name: str


def tiles(features: FeatureFile, images: ImageList, found: list[tuple[Query, list[Neighbour]]]) -> list[list[Tile]]:
    """Return the rows of a sheet: every query, then its neighbours with similarity and class. Raises ImageError for an
    image that cannot be read."""
    rows = []
    for query, near in found:
        if query.file is None:
            assert query.row is not None
            pixels = images.load(features.index[query.row])
        else:
            pixels = Files([query.file], section_config(features.facts["data"]).pixels).load(0)
        first = Tile(pixels, features.caption(query.row) if query.row is not None else "query", query.name)
        others = [
            Tile(
                images.load(features.index[one.row]), f"{one.similarity:.4f} {features.caption(one.row)}".rstrip(),
                features.names[one.row],
            )
            for one in near
        ]  # fmt: skip
        rows.append([first, *others])
    return rows


def write_sheet(rows: list[list[Tile]], out: Path) -> None:
    """Write the picture; the first tile of a row is framed. Raises RunError if the file cannot be written."""
    height, width = _SIDE + _LINES * _TEXT + _GAP, _SIDE + _GAP
    sheet = Image.new("RGB", (_GAP + width * max(map(len, rows)), _GAP + height * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 2)
    for number, row in enumerate(rows):
        for place, tile in enumerate(row):
            left, top = _GAP + place * width, _GAP + number * height
            picture = Image.fromarray(shown(tile.pixels[None])[0].permute(1, 2, 0).numpy())
            scale = _SIDE / max(picture.size)
            picture = picture.resize(tuple(max(1, round(side * scale)) for side in picture.size))  # type: ignore[arg-type]
            sheet.paste(picture, (left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2))
            if place == 0:
                pen.rectangle((left - 2, top - 2, left + _SIDE + 1, top + _SIDE + 1), outline="#D55E00", width=2)
            for line, text in enumerate((tile.caption, tile.name)):
                pen.text((left, top + _SIDE + 2 + line * _TEXT), _fitting(visible(text), pen, font), "black", font)
    try:
        sheet.save(out)
    except OSError as error:
        raise RunError(f"cannot write {out} ({error.strerror or error})") from None


def _fitting(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the text, or as much of its end as a picture is wide."""
    if pen.textlength(text, font) <= _SIDE:
        return text
    while text and pen.textlength(f"…{text}", font) > _SIDE:
        text = text[1:]
    return f"…{text}"
