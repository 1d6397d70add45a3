"""Options that several commands share."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cnnjepa.schemas import PretrainConfig


def at_home(given: Any) -> Any:
    """Return the paths of an option with a leading `~` replaced, which no shell does in `--data=~/d`. Other words stay
    unchanged."""
    if isinstance(given, list):
        return [at_home(path) for path in given]
    if given is None or not str(given).startswith("~"):
        return given
    from cnnjepa.schemas.paths import user_path

    try:
        return type(given)(user_path(given))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def each_once(given: list[str] | None) -> list[str] | None:
    """Return the `--set` flags. Raises ConfigError for a field that is set twice, in any spelling: the last value would
    count, and the others would be dropped silently."""
    if not given or len(given) == 1:
        return given
    from cnnjepa.schemas.errors import ConfigError
    from cnnjepa.schemas.overrides import parse_overrides

    flags: dict[str, list[str]] = {}
    for flag, (path, _) in zip(given, parse_overrides(given), strict=True):
        flags.setdefault(path, []).append(flag)
    for path, repeated in flags.items():
        if len(repeated) > 1:
            raise ConfigError(f"--set {path} is given {len(repeated)} times ({', '.join(repeated)}); give it once")
    return given


PresetOption = Annotated[
    str | None, typer.Option("--preset", help="A preset; `cnnjepa config presets` lists them.", metavar="NAME")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="A YAML file whose settings override the preset's.", metavar="FILE", callback=at_home
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a field, named by any unambiguous ending of its path: predictor.depth=2. Repeatable.",
        metavar="KEY=VALUE",
        callback=each_once,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Images: a directory, a .tar(.gz) of one, or a folder of HDF5 files.",
        metavar="PATH",
        callback=at_home,
    ),
]
ProbeDataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--probe-data",
        help="A labelled set on which the encoder is probed, as for --data. Repeatable. The training set by default, "
        "if it has labels. PATH:labels=FILE gives it a table of labels; groups, train_split and val_split likewise.",
        metavar="PATH[:KEY=VALUE]",
        callback=at_home,
    ),
]
RootOption = Annotated[
    Path,
    typer.Option(
        "--root", help="Folder of runs/ and studies/, which all machines must see.", metavar="DIR", callback=at_home
    ),
]


def requested_config(
    preset: str | None,
    config: Path | None,
    sets: list[str] | None,
    data: Path | None,
    default: str | None = None,
    probe_data: list[str] | None = None,
) -> "PretrainConfig":
    """Return the config that these options describe. Raises ConfigError."""
    from cnnjepa.schemas import ConfigError, load_config, preset_names

    if preset is None and config is None and default is None:
        raise ConfigError(f"give --preset NAME or --config FILE; presets are {', '.join(preset_names())}")
    return load_config(preset or (None if config else default), config, sets or [], data, probed_on(probe_data))


def refuse_missing(
    data: Path | None, preset: str | None, sets: list[str] | None, file: str | Path | None = None
) -> None:
    """Raise ConfigError if nothing exists at `--data`, before the models of the config are built (a third of a second).
    `file` is a config or study. Where a source is named, the config knows what must exist, and nothing is raised."""
    if data is None or data.exists() or any("source" in flag or "download" in flag for flag in sets or []):
        return
    from cnnjepa.schemas.errors import ConfigError
    from cnnjepa.schemas.preset_files import names_a_source

    try:
        text = Path(file).read_text(encoding="utf-8") if file else ""
    except (OSError, UnicodeDecodeError):
        return  # the file is at fault
    if not names_a_source(f"extends: {preset}\n{text}" if preset else text):
        raise ConfigError(
            f"data.path {data} does not exist; give the images' directory or .tar archive with --data PATH"
        )


def probed_on(given: list[str] | None) -> dict[str, Any]:
    """Return the change of a config for `--probe-data`. Raises ConfigError for a path that does not exist."""
    return {"probe.data": [_probe_set(text) for text in given]} if given else {}


def probe_data_sets(given: list[str] | None) -> list[str]:
    """Return `--probe-data` as `--set` flags, with absolute paths. Raises ConfigError like `probed_on`."""
    changes = probed_on(given)
    return [f"{path}={json.dumps(value)}" for path, value in changes.items()]


_KEYS = ("labels", "groups", "train_split", "val_split")


def _probe_set(text: str) -> str | dict[str, Any]:
    """Return an entry of `probe.data` for PATH, or for PATH:labels=FILE and the like, with absolute paths."""
    from cnnjepa.schemas.data import LABEL_WORDS
    from cnnjepa.schemas.errors import ConfigError
    from cnnjepa.schemas.yaml_text import read_yaml

    path, *rest = [text] if Path(text).exists() else re.split(rf":({'|'.join(_KEYS)})=", text)
    if not Path(path).exists():
        raise ConfigError(
            f"--probe-data {path} does not exist; give a directory of labelled images, or an archive, and behind it "
            f"settings such as :labels=FILE ({', '.join(_KEYS)})"
        )
    settings: dict[str, Any] = dict(zip(rest[::2], rest[1::2], strict=True))
    if "groups" in settings:
        settings["groups"] = read_yaml(settings["groups"], "--probe-data")
    if settings.get("labels", "auto") not in LABEL_WORDS:
        settings["labels"] = str(at_home(Path(settings["labels"])).absolute())
    whole = str(Path(path).absolute())
    return {"path": whole, **settings} if settings else whole


def listed(text: str | None, flag: str) -> list[Any] | None:
    """Return `1,2,3` as [1, 2, 3], with values read as YAML; None if the flag was not given. Raises ConfigError when a
    value is missing, a mapping, or given twice in any spelling."""
    from cnnjepa.schemas import ConfigError
    from cnnjepa.schemas.yaml_text import read_yaml

    if text is None:
        return None
    try:
        values = read_yaml(f"[{text}]", flag)
    except ConfigError:
        raise ConfigError(f"{flag} {text!r}: write values with commas between them, for example 1,2,3") from None
    if not values or None in values:
        raise ConfigError(f"{flag} {text!r}: a value is missing; write values with commas between them")
    if wrong := [value for value in values if isinstance(value, dict | list)]:
        raise ConfigError(f"{flag} {text!r}: {wrong[0]!r} is not a single value; write values with commas between them")
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ConfigError(f"{flag} {text!r}: {twice[0]!r} is given twice; give every value once")
    return list(values)
