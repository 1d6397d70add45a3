"""What `search.yaml` has beyond the search itself."""

from typing import Any

# The images' fingerprint, and processes per trial.
NOTED = {"images", "processes"}
# Further, in records of later versions: the base config's names, and the folder's own name, which moves with it.
_LATER = {"base", "base_probe", "id"}


def without_notes(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of the search alone."""
    return {key: value for key, value in record.items() if key not in NOTED | _LATER}
