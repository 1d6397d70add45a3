"""`cnnjepa config show|diff|schema|presets`."""

import json
from typing import Annotated

import typer

from cnnjepa.cli.any_order import AnyOrder
from cnnjepa.cli.options import ConfigOption, DataOption, PresetOption, SetOption, at_home, requested_config
from cnnjepa.cli.single_options import Commands

app = Commands(
    cls=AnyOrder,
    no_args_is_help=True,
    help="Show and compare configs, and document every field.",
    epilog="Example:  cnnjepa config show --preset in100",
)


@app.command(epilog="Example:  cnnjepa config show --preset demo --set predictor.depth=3")
def show(
    preset: PresetOption = None, config: ConfigOption = None, sets: SetOption = None, data: DataOption = None
) -> None:
    """Print a complete config as YAML, defaults included. `--config` accepts the output."""
    from cnnjepa.schemas.yaml_text import write_yaml

    print(write_yaml(requested_config(preset, config, sets, data).model_dump(mode="json")), end="")


@app.command(epilog="Example:  cnnjepa config diff in100 runs/mine/config.yaml")
def diff(
    left: Annotated[str, typer.Argument(help="A preset or a YAML file.", callback=at_home)],
    right: Annotated[str, typer.Argument(help="A preset or a YAML file.", callback=at_home)],
) -> None:
    """Print the fields in which two configs differ."""
    from cnnjepa.cli.sheet import Sheet
    from cnnjepa.cli.terminal import console
    from cnnjepa.schemas.overrides import differences, flat

    ours, theirs = (flat(_named(name).model_dump(mode="json")) for name in (left, right))
    table = Sheet(("field", left, right), folding=(0, 1, 2), left=(0, 1, 2))
    for name, mine, other in differences(ours, theirs, absent="–"):
        table.add(name, str(mine), str(other))
    console().print(table if table.rows else "no differences")


def _named(name: str):  # type: ignore[no-untyped-def]
    from pathlib import Path

    from cnnjepa.schemas import load_config, preset_names, read_config

    is_file = Path(name).is_file() or "/" in name or name.endswith((".yaml", ".yml"))
    return read_config(Path(name)) if is_file and name not in preset_names() else load_config(name)


@app.command(epilog="Example:  cnnjepa config schema --json > schema.json")
def schema(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON Schema of config files instead, for editors.")
    ] = False,
) -> None:
    """Print the reference of all config fields: type, default, meaning and source."""
    from cnnjepa.schemas.json_schema import config_file_schema
    from cnnjepa.schemas.reference import config_reference

    print(json.dumps(config_file_schema(), indent=2) if as_json else config_reference(), end="\n")


@app.command(epilog="Example:  cnnjepa config presets")
def presets() -> None:
    """List the presets, each with its purpose, expected accuracy, cost and command."""
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.schemas import preset_names
    from cnnjepa.schemas.load import preset_text

    out = console()
    for name in preset_names():
        comments = [line[2:] for line in preset_text(name).splitlines() if line.startswith("# ")]
        say(out, (name, "bold"))
        for line in comments:
            say(out, f"    {line}")
