"""The folder for the sockets and logs of an embedded Ray: it must be writable and its path short."""

import os
import tempfile
from pathlib import Path

from cnnjepa.schemas import ConfigError
from cnnjepa.socket_paths import short_folder

# Length of the suffix that Ray appends: `/session_<date>_<time>_<microseconds>_<process>/sockets/plasma_store` is 67
# bytes with a process number of seven digits.
_ROOM = 68


def ray_folder() -> Path:
    """Return `ray` below RAY_TMPDIR, TMPDIR or /tmp; `ray-<user id>` if `ray` belongs to another user. Raises
    ConfigError when none of them can be written or all their paths are too long."""
    asked = os.environ.get("RAY_TMPDIR")
    parents = [asked] if asked else [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    for parent in parents:
        for name in ("ray", f"ray-{os.getuid()}"):
            found = _made(Path(parent).absolute() / name)
            if found is not None:
                return found
    tried = "RAY_TMPDIR " + parents[0] if asked else ", ".join(dict.fromkeys(parents))
    raise ConfigError(
        f"Ray needs a folder for its sockets, and none can be made in {tried}: it must be writable and its path at "
        f"most {107 - _ROOM - len('/ray')} characters long. Set RAY_TMPDIR to such a folder, or give --executor local "
        "(studies)"
    )


def _made(path: Path) -> Path | None:
    """Return the folder, made if necessary; None if it cannot be used."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return short_folder([path], _ROOM)
