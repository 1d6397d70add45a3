"""The file or server that holds a search's trials (`--storage`), checked before anything is created."""

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.paths import user_path

_FORMS = "--storage takes a database URL (sqlite:///FILE, postgresql://…, mysql://…) or journal:FILE"

# Options that SQLite's driver reads after `?`. Any other text there belongs to a path whose `?` was not written as %3F.
_SQLITE_OPTIONS = {"cache", "cached_statements", "check_same_thread", "detect_types", "isolation_level", "mode",
                   "timeout", "uri"}  # fmt: skip

_JOURNAL_START = b'{"op_code":'


@dataclass(frozen=True)
class Place:
    """A storage that may or may not exist yet."""

    url: str
    """SQLAlchemy's URL, with the password; `journal:FILE` for a journal. Paths are absolute."""
    shown: str
    """The same without the password, for messages."""
    file: Path | None
    """Absolute path; None on a server."""
    journal: bool

    @property
    def exists(self) -> bool:
        """True if there may be trials in it. A server is always queried."""
        return self.file is None or self.file.exists()


def place_of(given: str | None, folder: Path) -> Place:
    """Return the storage that `--storage` names; for None, `optuna.db` in the study's folder, which need not exist.

    Raises ConfigError for a URL that cannot be read, a database in memory, and a file that cannot be written or is not
    a journal.
    """
    if given is None:
        file = folder.absolute() / "optuna.db"
        _refuse_unwritable(file, "the search's own storage", may_lack_folder=True)
        return _sqlite(URL.create("sqlite", database=str(file)))
    if given.startswith("journal:"):
        name = given.removeprefix("journal:")
        if not name:
            raise ConfigError(f"--storage {given}: the file is missing; {_FORMS}")
        file = _at_home(name, given)
        _refuse_unwritable(file, f"--storage {given}")
        _refuse_other_file(file, given)
        return Place(f"journal:{file}", f"journal:{file}", file, journal=True)
    try:
        url = make_url(given)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise ConfigError(f"--storage {given}: it is not a URL; {_FORMS}") from None
    if backend != "sqlite":
        return Place(url.render_as_string(hide_password=False), str(url), None, journal=False)
    database = url.database or ":memory:"
    if database == ":memory:" or "mode=memory" in given:
        raise ConfigError(f"--storage {given}: a database in memory is lost with the process; name a file")
    after = given.partition("?")[2]
    if after and (not url.query or set(url.query) - _SQLITE_OPTIONS):
        raise ConfigError(f"--storage {given}: ?{after} is not an option of SQLite; write a ? in a path as %3F")
    if database.startswith("file:"):  # SQLite's own form of a path, which SQLite reads itself
        return Place(url.render_as_string(hide_password=False), str(url), None, journal=False)
    file = _at_home(database, given)
    _refuse_unwritable(file, f"--storage {given}")
    return _sqlite(url.set(database=str(file)))


def _at_home(name: str, given: str) -> Path:
    try:
        return user_path(name).absolute()
    except ValueError as error:
        raise ConfigError(f"--storage {given}: {error}") from None


def _sqlite(url: URL) -> Place:
    text = url.render_as_string(hide_password=False)
    assert url.database
    if make_url(text).database != url.database:  # SQLAlchemy before 2.1 does not escape `?` and `%`
        raise ConfigError(
            f"{url.database}: the installed SQLAlchemy cannot name a database in this folder; give a --root without ? "
            "and %, or install SQLAlchemy 2.1"
        )
    return Place(text, text, Path(url.database), journal=False)


def _refuse_unwritable(file: Path, what: str, may_lack_folder: bool = False) -> None:
    """Raise ConfigError if no storage can be written there. Both kinds of storage write further files next to the named
    one."""
    if file.is_dir():
        raise ConfigError(f"{what}: {file} is a folder; name a file in it")
    folder = file.parent
    if not folder.is_dir():
        if may_lack_folder and not folder.exists():
            return
        lacks = "is not a folder" if folder.exists() else "does not exist; make it first, or name another file"
        raise ConfigError(f"{what}: the folder {folder} {lacks}")
    for path in (folder, file):
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError(f"{what}: {path} is not writable for this user; name another file")


def _refuse_other_file(file: Path, given: str) -> None:
    """Raise ConfigError if the file holds anything other than a journal of Optuna."""
    if not file.exists():
        return
    with open(file, "rb") as opened:
        start = opened.read(len(_JOURNAL_START))
    if start and start != _JOURNAL_START:
        raise ConfigError(f"--storage {given}: {file} is not a journal of Optuna's; name a new file")
