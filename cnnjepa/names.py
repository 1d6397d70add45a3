"""User-chosen names (arms, data sets, classes, files) as one line of text, as Markdown and as file names."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_LINE_ENDS = ("Zl", "Zp")
# These characters reorder the text around them, so that a name can look like another.
_DIRECTIONS = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_LONGEST = 200
"""Maximum length of a file name in bytes. File systems allow 255, and `.tmp` and other suffixes need room."""


def visible(text: str, lines: bool = False) -> str:
    """Return the text on one line. Control characters, line ends and bytes that are not UTF-8 become escapes such as
    `\\n` and `\\x1b`. With `lines`, line ends and tabs are kept."""
    kept = "\n\t" if lines else ""
    return "".join(letter if letter in kept or not _is_invisible(letter) else escaped(letter) for letter in text)


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", *_LINE_ENDS) or letter in _DIRECTIONS


def escaped(letter: str) -> str:
    """Return `\\n`, `\\xff`, `\\u732b` or `\\U0001f431`. A byte of a file name that is not UTF-8 is written as that
    byte."""
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # Python's representation of such a byte
        code -= 0xDC00
    if letter in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Return the text of a paragraph on one line: line ends become spaces, other control characters become escapes."""
    return visible(re.sub(r"\s*[\r\n]\s*", " ", text))


def shortened(text: str, longest: int = 60) -> str:
    """Return short text unchanged, and longer text as its beginning, its end and four digits of its hash, so that
    different texts stay different."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:4]
    return f"{text[: longest - 24]}…{text[-16:]} ({digest})"


def markdown_text(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, also at the beginning of a paragraph."""
    safe = re.sub(r"([|*_<>`\\\[\]~$])", r"\\\1", one_line(text).replace("&", "&amp;"))
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", re.sub(r"^(#|[+=-](?=\s|$)|==|--)", r"\\\1", safe))


def file_name(text: str, also: str = "") -> str:
    """Return a file name with ASCII letters, digits, `-`, `_`, `.` and the characters of `also`, of at most 200 bytes.
    Text that already is such a name is returned unchanged. Any other text gets a hash at its end, so that different
    texts have different names."""
    kept = "".join(
        letter if (letter.isascii() and letter.isalnum()) or letter in "-_." + also else "_" for letter in text
    )
    if kept == text and 0 < len(text.encode()) <= _LONGEST and text[0] not in ".-" and text[-1] not in ". ":
        return text
    return _hashed(kept, text)


def file_names(texts: Iterable[str], also: str = "") -> dict[str, str]:
    """Return the `file_name` of every text. The names differ even if the file system ignores case."""
    names = {text: file_name(text, also) for text in texts}
    taken = Counter(name.casefold() for name in names.values())
    return {text: name if taken[name.casefold()] == 1 else _hashed(name, text) for text, name in names.items()}


def _hashed(kept: str, text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    head = kept.encode()[: _LONGEST - 9].decode(errors="ignore").lstrip(".-").rstrip(". ") or "_"
    return f"{head}-{digest}"
