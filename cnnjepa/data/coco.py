"""COCO's annotation files as tables of labels: JSON with `images`, `annotations` and `categories`."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from cnnjepa.schemas import ConfigError


def read_coco(file: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Return a row per image with its `path`, its further fields, and its category as `label`, and notes. If any image
    has no category or several, no row has a label, and a note says so.

    Raises ConfigError for JSON that is not COCO's, and OSError for a file that cannot be read.
    """
    try:
        content = json.loads(file.read_bytes())
        images = {image["id"]: _row(image) for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content.get("categories", ())}
        categories: dict[Any, set[str]] = defaultdict(set)
        for annotation in content.get("annotations", ()):
            if "category_id" in annotation:
                number = annotation["category_id"]
                categories[annotation["image_id"]].add(names.get(number, str(number)))
    except (ValueError, KeyError, TypeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"data.labels {file} is not COCO's JSON ({what}); it needs images with id and file_name, annotations with "
            "image_id and category_id, and categories with id and name"
        ) from None
    none = sum(not categories[number] for number in images)
    several = sum(len(categories[number]) > 1 for number in images)
    if images and not none and not several:
        return [{**row, "label": next(iter(categories[number]))} for number, row in images.items()], []
    note = (
        f"{file}: of {len(images):,} images {several:,} have several categories and {none:,} have none; labels need "
        "one per image, so the set is read without labels"
    )
    return list(images.values()), [note]


def _row(image: dict[str, Any]) -> dict[str, str]:
    """Return the path of an image, and its fields that are numbers or text, such as `video_id`."""
    plain = {name: str(value) for name, value in image.items() if isinstance(value, str | int)}
    return {**plain, "path": image["file_name"]}
