"""Text in pictures: names that a user chose, in letters that a font has."""

from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from cnnjepa.names import escaped, one_line, shortened

# Common system fonts with Chinese, Japanese and Korean letters. The first one that is installed is used.
_EAST_ASIAN = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "Source Han Sans", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "SimHei",
    "MS Gothic", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
FONTS = ["DejaVu Sans", *[name for name in _EAST_ASIAN if name in fontManager.get_font_names()][:1]]
"""Font families of the pictures. The first family that has a letter draws it."""

_LETTERS_PER_INCH = 13  # at nine points
_UNDERSCORE = "\u200b_"  # a label that begins with `_` has no place in a legend; the space before it has no width


def figure_text(text: str, longest: int = 60) -> str:
    """Return a label for matplotlib: one line of at most `longest` letters, with `\\u732b` for a letter that no font
    has."""
    shown = "".join(letter if _has(letter) else escaped(letter) for letter in shortened(one_line(text), longest))
    return _UNDERSCORE + shown[1:] if shown.startswith("_") else shown


def legend_columns(labels: Iterable[str], inches: float) -> int:
    """Return how many of the labels fit next to each other in a legend of this width, at most four."""
    longest = max(map(len, labels), default=1) + 5  # room for the line before each label
    return max(1, min(4, int(inches * _LETTERS_PER_INCH / longest)))


@cache
def _has(letter: str) -> bool:
    fonts = (get_font(findfont(FontProperties(family=[name]))) for name in FONTS)
    return any(font.get_char_index(ord(letter)) for font in fonts)
