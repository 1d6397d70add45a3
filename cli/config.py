"""`cnnjepa config show|diff|schema|presets`."""

import json
from typing import Annotated

import typer

from cnnjepa.cli.options import ConfigOption, DataOption, PresetOption, SetOption, asked_config

app = typer.Typer(
    no_args_is_help=True,
    help="See what can be asked for, and what a preset or file asks.",
    epilog="Example:  cnnjepa config show --preset in100",
)


@app.command(epilog="Example:  cnnjepa config show --preset demo --set predictor.depth=3")
def show(
    preset: PresetOption = None, config: ConfigOption = None, sets: SetOption = None, data: DataOption = None
) -> None:
    """Print the whole config as YAML, every default filled in; `--config` reads it back."""
    import yaml

    asked = asked_config(preset, config, sets, data)
    print(yaml.safe_dump(asked.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100), end="")


@app.command(epilog="Example:  cnnjepa config diff in100 runs/mine/config.yaml")
def diff(
    left: Annotated[str, typer.Argument(help="A preset or a YAML file.")],
    right: Annotated[str, typer.Argument(help="A preset or a YAML file.")],
) -> None:
    """Print the fields in which two configs differ."""
    from rich.console import Console
    from rich.table import Table

    from cnnjepa.schemas.overrides import flat

    ours, theirs = (flat(_named(name).model_dump(mode="json")) for name in (left, right))
    table = Table("field", left, right)
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name, "–") != theirs.get(name, "–"):
            table.add_row(name, str(ours.get(name, "–")), str(theirs.get(name, "–")))
    Console().print(table if table.row_count else "no differences")


def _named(name: str):  # type: ignore[no-untyped-def]
    from pathlib import Path

    from cnnjepa.schemas import load_config, preset_names, read_config

    return load_config(name) if name in preset_names() or not Path(name).is_file() else read_config(Path(name))


@app.command(epilog="Example:  cnnjepa config schema --json > schema.json")
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="JSON Schema instead of text, for editors.")] = False,
) -> None:
    """Print every field with its default, meaning and source."""
    from cnnjepa.schemas import PretrainConfig
    from cnnjepa.schemas.reference import config_reference

    print(json.dumps(PretrainConfig.model_json_schema(), indent=2) if as_json else config_reference(), end="\n")


@app.command(epilog="Example:  cnnjepa config presets")
def presets() -> None:
    """List the presets, each with its first comment lines."""
    from rich.console import Console

    from cnnjepa.schemas import preset_names
    from cnnjepa.schemas.load import preset_text

    console = Console()
    for name in preset_names():
        comments = [line[2:] for line in preset_text(name).splitlines() if line.startswith("# ")]
        console.print(f"[bold]{name}[/]", highlight=False)
        for line in comments:
            console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
