"""The files of the presets, without the models of the config."""

import re
from importlib.resources import files

FOLDER = files("cnnjepa.schemas") / "presets"


def names_a_source(text: str) -> bool:
    """Return whether the text of a config, or a preset that it extends, names a source of images other than folders
    and drawn ones. An unknown preset counts as one that does."""
    text = re.sub(r"#.*", "", text)
    if re.search(r"\bsource:(?! *(?:synthetic|folder)\b)|\bdownload:", text):
        return True
    for name in re.findall(r"(?:extends|preset): *([\w-]+)", text):
        file = FOLDER / f"{name}.yaml"
        if not file.is_file() or names_a_source(file.read_text(encoding="utf-8")):
            return True
    return False
