"""What a search was asked, as its folder keeps it (`search.yaml`), and whether it is asked the same again."""

from typing import Any

import yaml
from pydantic import ValidationError

from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.overrides import flat
from cnnjepa.schemas.space import SearchSpace

# What the record has beyond the search itself: the images' fingerprint, and processes a trial.
NOTED = {"images", "processes"}


def refuse_other_search(folder: StudyFolder, asked: dict[str, Any]) -> None:
    """Raises ConfigError when the folder holds another search, or one on other images. `asked`: as the record."""
    path = folder.path / "search.yaml"
    if not path.is_file():
        return
    try:
        before = _comparable(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} cannot be read ({str(error).splitlines()[0]}); give another --name") from None
    now = _comparable(asked)
    different = [
        f"  {key}: there {before.get(key, '(none)')}, asked {now.get(key, '(none)')}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]
    if different:
        shown = "\n".join(different)
        raise ConfigError(f"{folder.path} holds another search. They differ in\n{shown}\nGive another --name.")


def _comparable(record: dict[str, Any]) -> dict[str, Any]:
    """Leaves by name. Fields that came after the record have their defaults; a range is its text, because the storage
    does not take its choices in another order."""
    space = SearchSpace.model_validate({key: value for key, value in record.items() if key not in NOTED})
    ranges = {f"space.{key}": str(asked) for key, asked in space.space.items()}
    noted = {key: value for key, value in record.items() if key in NOTED}
    return flat(space.model_dump(mode="json", exclude={"space"})) | ranges | noted
