"""A folder for Matplotlib's font cache, for users whose home folder cannot be written."""

import os
import tempfile
from pathlib import Path


def ensure_matplotlib_cache() -> None:
    """Set the cache folder; call this before Matplotlib is imported. If Matplotlib cannot write into its own folder
    (`docker run --user`), it warns on every call and rebuilds its font cache. In that case it gets a folder below the
    temporary folder."""
    if "MPLCONFIGDIR" in os.environ:
        return
    own = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")) / "matplotlib"
    existing = next(folder for folder in (own, *own.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        folder = Path(tempfile.gettempdir()) / f"matplotlib-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["MPLCONFIGDIR"] = str(folder)
