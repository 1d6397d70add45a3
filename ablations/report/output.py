"""The folder of a report. Each file is written as a whole; files of an earlier report that are no longer made are
removed."""

from pathlib import Path

from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.storage.atomic_files import write_atomically

_MANIFEST = ".written"


class ReportFolder:
    """Folder of a report. It records the files that it wrote, and removes no others."""

    def __init__(self, path: Path) -> None:
        """Open the folder. Raises ConfigError when `path` is a file."""
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; a report needs a folder")
        self.path = path
        self._written: dict[str, None] = {}

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file below the folder. Raises RunError when the disk refuses."""
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {path} ({error.strerror or error})") from None
        # Bytes of a file's name that are not UTF-8 become escapes.
        write_atomically(path, content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        self._written[name] = None

    def close(self) -> None:
        """Remove the files that an earlier report wrote and this one did not."""
        manifest = self.path / _MANIFEST
        before = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
        for name in before:
            path = (self.path / name).resolve()
            if name not in self._written and path.is_relative_to(self.path.resolve()):
                path.unlink(missing_ok=True)
        names = sorted(self._written)
        self.write(_MANIFEST, "".join(f"{name}\n" for name in names))
