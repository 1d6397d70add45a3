"""The time as it is written into files."""

import datetime


def now() -> str:
    """Return the current time, ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
