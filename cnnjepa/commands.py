"""Commands shown to a user: complete, and quoted for a shell."""

import re
import shlex
from pathlib import Path

from cnnjepa.names import visible


def command(*words: object, root: Path | None = None) -> str:
    """Return the words as one line that a POSIX shell can run unchanged. `root` is the `--root` of the command that
    prints the line; it is added unless it is the current directory."""
    given = [*map(str, words)]
    if root is not None and root != Path():
        given += ["--root", str(root)]
    return " ".join(map(quoted, given))


def quoted(word: object) -> str:
    """Return one word quoted for a POSIX shell. Control characters are written as `$'\\n'`, so that the command stays
    on one line."""
    text = str(word)
    if visible(text) == text:
        return shlex.quote(text)
    within = re.sub(r"([\\'])", r"\\\1", text)
    return f"$'{visible(within)}'"
