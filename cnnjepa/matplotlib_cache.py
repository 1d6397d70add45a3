"""A folder in which Matplotlib may keep its font cache, also where the home folder cannot be written."""

import os
import tempfile
from pathlib import Path


def ensure_matplotlib_cache() -> None:
    """Call before Matplotlib is imported. Where it could not write into its own folder (`docker run --user`), it would
    warn on every call and build its font cache anew; it gets one below the temporary folder instead."""
    if "MPLCONFIGDIR" in os.environ:
        return
    own = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")) / "matplotlib"
    existing = next(folder for folder in (own, *own.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        folder = Path(tempfile.gettempdir()) / f"matplotlib-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["MPLCONFIGDIR"] = str(folder)
