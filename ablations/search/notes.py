"""Fields of `search.yaml` that are not part of the search itself."""

from typing import Any

# The fingerprint of the images, and the number of processes per trial.
NOTED = {"images", "processes"}
# Fields that only records of later versions have: the base config's hashes, and the folder's own id, which moves with
# it.
_LATER = {"base", "base_probe", "id"}


def without_notes(record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the search alone."""
    return {key: value for key, value in record.items() if key not in NOTED | _LATER}
