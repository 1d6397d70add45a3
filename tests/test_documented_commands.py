"""Every command that README and docs show is run, smaller where it is heavy; the others are checked word by word."""

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documented
import pytest
import recipes
import test_benchmarks
import torch
import typer
from commands import cnnjepa, run_file
from image_sets import encoded, picture
from reports import DEPTHS, outcome
from runs import small_config, train_alone, write_images
from studies import write_study
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.data.examples import write_examples
from cnnjepa.embedding.embed import embed
from cnnjepa.embedding.request import EmbedRequest
from cnnjepa.export import export_run
from cnnjepa.pretrained import load_encoder
from cnnjepa.schemas.study import Study

ROOT = documented.ROOT
COMMANDS = documented.commands()
OWN_NETWORK = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
                         torch.nn.Conv2d(8, 8, 3, stride=2, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
"""
RECIPES = {
    "mine": "extend_method.md", "masks": "extend_masking.md", "nets": "extend_encoder.md", "images": "extend_data.md",
    "changes": "extend_augmentation.md", "metrics": "extend_metric.md",
    "tasks": "extend_task.md",
}  # fmt: skip
MY_STUDY = "preset: smoke\naxes: {predictor.depth: [1, 2]}\n"
MY_SEARCH = "preset: smoke\nspace: {optimizer.lr: 'log(1e-4, 1e-1)'}\nset: {%s}\n"
# Studies that the documents have run before they are reported.
REPORTED = ("predictor-ablation", "predictor-smoke", "masking-smoke", "my_study")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands name: images, a run, studies, files."""
    folder = tmp_path_factory.mktemp("documented")
    write_images(folder / "images")
    with tarfile.open(folder / "photos.tar", "w") as archive:
        for split in ("train", "val"):
            archive.add(folder / "images" / split, split)
    shutil.copytree(folder / "images", folder / "packed")
    write_saved_set(folder / "saved")
    write_labels(folder)
    (folder / "shards").mkdir()
    for split in ("train", "val"):
        with tarfile.open(folder / "shards" / f"{split}-0.tar", "w") as archive:
            archive.add(folder / "images" / split, split)
    write_examples(folder / "examples")
    train_alone(small_config(), folder / "runs" / "demo")
    for name in ("first", "photos"):
        shutil.copytree(folder / "runs" / "demo", folder / "runs" / name)
    export_run(folder / "runs" / "demo", "safetensors", folder / "exported")
    embed(EmbedRequest(str(folder / "runs" / "demo"), folder / "features.parquet", folder / "photos.tar"))
    (folder / "photo.jpg").write_bytes(encoded(picture(0, 40, 40), "JPEG"))
    torch.save(load_encoder(folder / "runs" / "demo").state_dict(), folder / "first.pt")
    for name in REPORTED:
        for root in (folder, folder / "results"):
            write_study(root, Study(**{**DEPTHS.model_dump(), "name": name}), outcome)
    for module, recipe in RECIPES.items():
        recipes.written(recipe, folder, module)
    with (folder / "mine.py").open("a", encoding="utf-8") as mine:
        mine.write(OWN_NETWORK)
    (folder / "my_study.yaml").write_text(MY_STUDY, encoding="utf-8")
    (folder / "best.yaml").write_text("extends: smoke\noptimizer: {lr: 0.001}\n", encoding="utf-8")
    settings = ", ".join(setting.replace("=", ": ") for setting in documented.TINY)
    (folder / "space.yaml").write_text(MY_SEARCH % settings, encoding="utf-8")
    costs = json.loads((ROOT / "results/photos/benchmarks/method_cost.json").read_bytes())
    costs.update(preset="demo", batch=32, image_size=32)  # as if `demo` had been measured
    (folder / "costs.json").write_text(json.dumps(costs), encoding="utf-8")
    return folder


def write_labels(folder: Path) -> None:
    """COCO's JSON of the images in photos.tar, a folder of videos, and scans of patients with their table."""
    files = sorted(path.relative_to(folder / "images") for path in (folder / "images").rglob("*.*"))
    images = [{"id": i, "file_name": str(path)} for i, path in enumerate(files)]
    classes = sorted({path.parent.name for path in files})
    found = [{"image_id": i, "category_id": classes.index(path.parent.name)} for i, path in enumerate(files)]
    names = [{"id": i, "name": name} for i, name in enumerate(classes)]
    content = json.dumps({"images": images, "annotations": found, "categories": names})
    (folder / "instances.json").write_text(content, encoding="utf-8")
    for video in range(4):
        (folder / "frames" / f"video{video}").mkdir(parents=True)
        for frame in range(48):
            file = folder / "frames" / f"video{video}" / f"{frame}.png"
            file.write_bytes(encoded(picture(video * 48 + frame, 40, 40)))
    (folder / "scans").mkdir()
    rows = ["path,label,patient"]
    for scan in range(96):
        (folder / "scans" / f"{scan}.png").write_bytes(encoded(picture(scan, 40, 40)))
        rows.append(f"{scan}.png,{'benign' if scan % 4 < 2 else 'malignant'},p{scan // 2}")
    (folder / "scans.csv").write_text("\n".join(rows), encoding="utf-8")


def write_saved_set(path: Path) -> None:
    """A saved set of the library `datasets`; nothing if it is not installed."""
    try:
        import datasets
    except ModuleNotFoundError:
        return
    images = [{"bytes": encoded(picture(i, 40, 40)), "path": None} for i in range(96)]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(96)]}, features=kinds)
    datasets.DatasetDict(train=rows, validation=rows).save_to_disk(str(path))


def after(words: tuple[str, ...], option: str) -> list[str]:
    """The word that follows an option, if it is there."""
    return [words[words.index(option) + 1]] if option in words else []


# Files and folders that a command writes, which must not hold what another command left.
WRITTEN: dict[str, Callable[[tuple[str, ...]], list[str]]] = {
    "train": lambda words: after(words, "--out"),
    "data": lambda words: ["packed"] if words[1] == "pack" else [],
    "archive": lambda words: after(words, "--to"),
    "embed": lambda words: after(words, "--out"),
    "ablate": lambda words: [] if "--plan" in words else ["runs/by_hash", "studies"],
}


def group_of(words: list[str]) -> tuple[Any, list[str]]:
    """(the command that the words name, the words after its name)."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def cases() -> list[Any]:
    """One per different command of this program; those that train, draw or measure are marked slow."""
    different: dict[tuple[str, ...], tuple[tuple[str, ...], documented.Command]] = {}
    whole = [command for command in documented.inline() if is_whole(command)]
    for command in [*COMMANDS, *documented.of_make(), *whole]:
        if command.program in ("cnnjepa", "torchrun") and "…" not in command.text:
            arguments = documented.substituted(command)
            different.setdefault(unnamed(arguments), (arguments, command))
    return [
        pytest.param(
            arguments, id=f"{command.document}:{command.line}",
            marks=[] if arguments[0] in ("config", "status") or "--plan" in arguments else pytest.mark.slow,
        )
        for arguments, command in different.values()
    ]  # fmt: skip


def is_whole(command: documented.Command) -> bool:
    """Return whether a sentence names a command that can be run as it is: not a name, an option, or a placeholder."""
    vague = r"…|\b[A-Z]{2,}\b|--help"
    if command.program != "cnnjepa" or re.search(vague, command.text):
        return False
    found, rest = group_of(command.words)
    if not rest or (found.name == "search" and rest[0].startswith("-") and "--space" not in rest):
        return False
    try:
        found.make_context("cnnjepa", list(rest))
    except Exception:  # an option without its value, or an argument that is left out
        return False
    return True


def unnamed(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments without a name that changes nothing else: of the folder of a run, or of the study in a report."""
    if arguments[0] == "train" and "--out" in arguments:
        place = arguments.index("--out")
        return (*arguments[:place], "--out", *arguments[place + 2 :])
    if arguments[0] == "report" and len(arguments) == 2 and not arguments[1].startswith("-"):
        return "report", "STUDY"
    return arguments


@pytest.mark.processes
@pytest.mark.parametrize("arguments", cases())
def test_a_documented_command_runs(
    arguments: tuple[str, ...], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    for written in WRITTEN.get(arguments[0], lambda words: [])(arguments):
        shutil.rmtree(written) if Path(written).is_dir() else Path(written).unlink(missing_ok=True)
    trial = next(path.name for path in (made / "runs" / "by_hash").iterdir() if path.is_dir())
    words = [trial[:8] if word == "TRIAL" else word for word in arguments]
    done = cnnjepa(*words, timeout=500, COLUMNS="120")
    # 3: so short a training may collapse.
    assert done.returncode in ((0, 3) if arguments[0] == "train" else (0,)), f"{words}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("command", [*COMMANDS, *documented.inline()], ids=lambda c: f"{c.document}:{c.line}")
def test_a_documented_command_exists_with_its_options(command: documented.Command) -> None:
    if command.program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in command.words[1:] if "=" not in word]
        assert [t for t in targets if not re.search(rf"^{re.escape(t)}:", makefile, re.MULTILINE)] == []
    elif command.program in ("python", "pytest"):
        files = [word for word in command.words[1:] if word.endswith(".py")]
        assert files or command.program == "pytest"
        assert all((ROOT / file).is_file() for file in files), command.text
        of_benchmarks = {Path(file).stem for file in files if file.startswith("benchmarks/")}
        alone = re.findall(r'run\("(\w+)"', Path(test_benchmarks.__file__).read_text(encoding="utf-8"))
        tested = {*test_benchmarks.SCRIPTS, *alone, "gpu_check", "gpu_graphs"}  # the last need a GPU
        assert of_benchmarks <= tested, "which no test runs"
        scripts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
        shared = [text for text in scripts.values() if "def add_options" in text]
        sources = "".join([*shared, *((ROOT / file).read_text(encoding="utf-8") for file in files)])
        flags = [word for word in command.words if word.startswith("--") and command.program == "python"]
        assert all(f'"{flag}"' in sources for flag in flags), command.text
    elif command.program in ("cnnjepa", "torchrun"):
        words = command.words[command.words.index("cnnjepa") :]
        found, rest = group_of(words)
        known = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
        if getattr(found, "commands", {}):  # `ablate NAME` stands for `ablate file NAME`
            known |= {name for inner in found.commands.values() for p in inner.params for name in p.opts}
            names = [word for word in rest if not word.startswith("-")]
            assert not names or words[1] == "ablate", f"{names[0]} is no command"
        unknown = [
            word
            for word in rest
            if word.startswith("--") and word.partition("=")[0] not in {*known, "--debug", "--help"}
        ]
        assert unknown == [], command.text
    else:
        assert command.program in documented.OTHERS


def test_the_documents_show_commands_of_every_kind() -> None:
    """Guards the reading of the documents: a block that is not recognised would be tested by nobody."""
    shown = {command.words[1] for command in COMMANDS if command.program == "cnnjepa"}
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    current = {name for name, command in commands.items() if not command.hidden}
    assert shown >= current, "a command is shown nowhere"
    assert len(COMMANDS) > 80 and {command.program for command in COMMANDS} >= {"make", "torchrun", "ray"}
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(code, id=where) for where, code in documented.python_blocks()])
def test_documented_python_runs_as_it_is_written(code: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.py"
    file.write_text(code, encoding="utf-8")
    done = run_file(file, tmp_path, "error", "ignore::DeprecationWarning")
    assert done.returncode == 0, done.stderr
