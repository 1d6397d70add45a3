"""Names that a user chose (arms, data sets, classes, files), as one line of text, as Markdown and as file names."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_LINE_ENDS = ("Zl", "Zp")
# They reorder the text around them, so that a name can look like another.
_DIRECTIONS = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_LONGEST = 200
"""Bytes of a file name; file systems take 255, and `.tmp` and other endings need room."""


def visible(text: str, lines: bool = False) -> str:
    """The text on one line: control characters, line ends and bytes that are no UTF-8 become escapes such as `\\n` and
    `\\x1b`. With `lines`, line ends and tabs stay."""
    kept = "\n\t" if lines else ""
    return "".join(letter if letter in kept or not _is_invisible(letter) else escaped(letter) for letter in text)


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", *_LINE_ENDS) or letter in _DIRECTIONS


def escaped(letter: str) -> str:
    """`\\n`, `\\xff`, `\\u732b` or `\\U0001f431`; a byte of a file name that is no UTF-8 is that byte."""
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries such a byte
        code -= 0xDC00
    if letter in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """The text of a paragraph on one line: line ends become spaces, other control characters escapes."""
    return visible(re.sub(r"\s*[\r\n]\s*", " ", text))


def shortened(text: str, longest: int = 60) -> str:
    """The text, or its beginning, its end and four digits of its hash, so that different texts stay different."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:4]
    return f"{text[: longest - 24]}…{text[-16:]} ({digest})"


def markdown_text(text: str) -> str:
    """Text that Markdown takes as it stands, at the beginning of a paragraph too."""
    safe = re.sub(r"([|*_<>`\\\[\]~$])", r"\\\1", one_line(text).replace("&", "&amp;"))
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^(#|[+=-](?=\s|$)|==|--)", r"\\\1", safe))


def file_name(text: str, also: str = "") -> str:
    """A name for a file that keeps ASCII letters, digits, `-`, `_`, `.` and the characters of `also`, and has at most
    200 bytes. Text that is such a name is returned as it is; any other has a hash at its end, so that different texts
    have different names."""
    kept = "".join(
        letter if (letter.isascii() and letter.isalnum()) or letter in "-_." + also else "_" for letter in text
    )
    if kept == text and 0 < len(text.encode()) <= _LONGEST and text[0] not in ".-" and text[-1] not in ". ":
        return text
    return _hashed(kept, text)


def file_names(texts: Iterable[str], also: str = "") -> dict[str, str]:
    """Text → its `file_name`, different for every text even where a file system ignores case."""
    names = {text: file_name(text, also) for text in texts}
    taken = Counter(name.casefold() for name in names.values())
    return {text: name if taken[name.casefold()] == 1 else _hashed(name, text) for text, name in names.items()}


def _hashed(kept: str, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    head = kept.encode()[: _LONGEST - 9].decode(errors="ignore").lstrip(".-").rstrip(". ") or "_"
    return f"{head}-{digest}"
