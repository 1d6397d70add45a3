"""Places on the command line and in files: `~` is home, and what does not exist is refused before torch is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnjepa.ablations.search.place import place_of
from cnnjepa.cli.app import app
from cnnjepa.data.open import open_sources
from cnnjepa.places import image_path, refuse_missing_images, refuse_no_run
from cnnjepa.schemas import ConfigError, TorchvisionData, load_config, read_config
from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.paths import user_path
from cnnjepa.schemas.preset_files import names_a_source

STUDY = "preset: smoke\naxes: {predictor.depth: [1, 2]}\n"
SEARCH = "preset: smoke\nspace: {lr: 'log(1e-4, 1e-1)'}\n"
PLACES = "preset: tiny64_cpu\naxes: {data.path: [there, nope]}\n"

IMAGES = "data.path nope does not exist; give the images' directory or .tar archive with --data PATH"
MISSING = [
    ("train --preset tiny64_cpu --data nope", IMAGES),
    ("train --preset smoke --data nope", IMAGES),
    ("train --preset tiny64 --set data.path=nope", IMAGES),
    ("train --config nope.yaml", "config file nope.yaml does not exist"),
    ("train --preset smoke --resume --checkpoint nope.pt", "checkpoint nope.pt does not exist; none does"),
    ("probe nope", "nope is not a run folder: it does not exist"),
    ("probe run --checkpoint nope.pt", "checkpoint run/checkpoints/nope.pt does not exist; there are last.pt"),
    ("probe run --data nope", IMAGES),
    ("masks --preset smoke --data nope --out x.png", IMAGES),
    ("masks --preset smoke --out nope/x.png", "--out nope/x.png: the folder nope does not exist; make it first"),
    ("doctor --data nope", IMAGES),
    ("ablate nope.yaml", "study file nope.yaml does not exist"),
    ("ablate study.yaml --data nope", IMAGES),
    ("ablate study.yaml --data nope --plan", IMAGES),
    ("ablate places.yaml", IMAGES),
    ("ablate predictor --depths 1,2 --data nope", IMAGES),
    ("search nope.yaml", "search file nope.yaml does not exist"),
    ("search search.yaml --data nope", IMAGES),
    ("benchmark --data nope", IMAGES),
    ("benchmark --equal-time nope.json", "--equal-time nope.json: was not written by"),
    ("data check nope", "PATH nope does not exist; give a directory of images"),
    ("data pack nope packed", "SOURCE nope does not exist; give a directory of images"),
    ("export nope --to onnx", "nope is not a run folder: it does not exist"),
    ("export there --to onnx", "there is not a run folder: it has no config.yaml"),
    ("export run --to onnx --checkpoint nope.pt", "checkpoint run/checkpoints/nope.pt does not exist"),
    ("report nope", "studies/nope holds no study"),
    ("report --root nope", "nope/studies holds no study"),
    ("archive nope --to archived", "studies/nope holds no study"),
    ("status nope", "studies/nope holds no study"),
    ("status --root nope", "nope/studies holds no study"),
    ("config show --config nope.yaml", "config file nope.yaml does not exist"),
    ("config diff nope.yaml demo", "config file nope.yaml does not exist"),
    ("evaluate nope", "encoder 'nope' does not exist"),
    ("evaluate random:smoke --on nope", "--on nope does not exist"),
    ("embed nope --data there --out f.npy", "encoder 'nope' does not exist"),
    ("embed random:smoke --data nope --out f.npy", "--data nope does not exist"),
]

# Runs command lines in one process, and notes after each how it ended and whether torch was imported.
RUNNER = """
import contextlib, io, json, sys, time
from cnnjepa.cli.main import main
for line in json.loads(sys.stdin.read()):
    sys.argv, said, code, start = ["cnnjepa", *line.split()], io.StringIO(), None, time.perf_counter()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as left:
            code = left.code
    print(json.dumps([code, said.getvalue(), "torch" in sys.modules, time.perf_counter() - start]))
"""


def test_what_does_not_exist_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    for name, text in (("study", STUDY), ("search", SEARCH), ("places", PLACES)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "there").mkdir()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("extends: smoke\n")
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps([line for line, _ in MISSING]), cwd=tmp_path, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [
        (line, end)
        for (line, says), end in zip(MISSING, ends, strict=True)
        if end[0] != 2 or says not in end[1] or end[2]
    ]
    assert not wrong
    # Loaded machines are slow; torch alone takes seconds.
    assert sorted(end[3] for end in ends)[len(ends) // 2] < 0.5
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_path_is_refused_before_the_models_are_built(tmp_path: Path) -> None:
    """Measured: 0.19 s of a processor; 0.4 s with the models."""
    code = "import sys; sys.argv = ['cnnjepa', *sys.argv[1:]]\nfrom cnnjepa.cli.main import main\n"
    code += "try: main()\nexcept SystemExit as left: print(left.code, 'cnnjepa.schemas.config' in sys.modules)"
    (tmp_path / "study.yaml").write_text(STUDY)
    for line in ("train --preset tiny64 --data nope", "ablate study.yaml --data nope", "data check nope"):
        done = subprocess.run([sys.executable, "-c", code, *line.split()], cwd=tmp_path, text=True, capture_output=True)
        assert done.stdout.split() == ["2", "False"], (line, done.stderr)


def test_a_source_that_is_named_decides_what_must_exist() -> None:
    assert names_a_source("extends: cifar-byol") and names_a_source("data: {source: hdf5}")
    assert names_a_source("preset: none-of-ours") and names_a_source("data: {download: true}")
    assert not names_a_source("extends: tiny64") and not names_a_source("data: {source: synthetic}")


def test_a_missing_table_of_labels_is_refused_before_the_images_are_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnjepa.data.readers.Directory.scan", lambda self: pytest.fail("scanned"))
    for given, named in (("none.csv", "none.csv"), ("a_{split}.csv", "a_train.csv")):
        config = load_config("smoke", data=tmp_path, overrides=[f"data.labels={tmp_path / given}"])
        with pytest.raises(
            ConfigError, match=f"data.labels {tmp_path / named} does not exist; give auto, none, folders"
        ):
            open_sources(config.data)
        with pytest.raises(ConfigError, match="does not exist"):
            refuse_missing_images(config.data)


def test_a_folder_that_a_download_fills_need_not_exist(tmp_path: Path) -> None:
    assert image_path(TorchvisionData(path=tmp_path / "new", download=True)) == tmp_path / "new"
    with pytest.raises(ConfigError, match=r"data\.path .*new does not exist; give the folder of torchvision's files"):
        image_path(TorchvisionData(path=tmp_path / "new"))
    with pytest.raises(ConfigError, match=r"data\.path is not set"):
        image_path(TorchvisionData())


def test_a_missing_checkpoint_with_an_earlier_one_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("extends: smoke\n")
    (tmp_path / "checkpoints" / "previous.pt").write_bytes(b"")
    refuse_no_run(tmp_path, "last.pt")


# `~`


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place, work = tmp_path / "home", tmp_path / "work"
    place.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(work)
    return place


def test_home_is_written_out_where_no_shell_does_it(home: Path) -> None:
    assert user_path("~/d") == home / "d" and user_path("~") == home
    assert user_path("a/~/d") == Path("a/~/d") and user_path(Path("d")) == Path("d")
    assert user_path("~root") == Path(os.path.expanduser("~root"))
    Path("~b").mkdir()
    assert user_path("~b/c") == Path("~b/c")  # a folder of this name, as an editor leaves it


@pytest.mark.parametrize("given", ["~no-such-user/d", "a\0b"])
def test_a_home_that_nobody_has_is_refused(given: str, home: Path) -> None:
    with pytest.raises(ValueError, match=r"no home directory ~no-such-user|null character"):
        user_path(given)


def test_home_is_written_out_in_configs_flags_and_axes(home: Path) -> None:
    config = home / "c.yaml"
    config.write_text("extends: tiny64\ndata: {path: ~/d}\n")
    assert read_config(config).data.path == home / "d"
    assert load_config("tiny64", overrides=["data.path=~/d"]).data.path == home / "d"
    assert load_config("tiny64", data=Path("~/d")).data.path == home / "d"
    assert load_config("tiny64", changes={"data.path": "~/d"}).data.path == home / "d"
    for source in ("folder", "torchvision", "hdf5"):
        tree = f'{{"data": {{"source": "{source}", "path": "~/d"}}}}'
        assert PretrainConfig.model_validate_json(tree).data.path == home / "d"  # as a trial's process reads it
    with pytest.raises(ConfigError, match=r"^data\.path: ~no-such-user/d: there is no home directory ~no-such-user;"):
        load_config("tiny64", overrides=["data.path=~no-such-user/d"])
    assert place_of("journal:~/j.log", Path("s")).file == home / "j.log"
    with pytest.raises(ConfigError, match="no home directory ~no-such-user"):
        place_of("journal:~no-such-user/j.log", Path("s"))


def test_every_path_of_every_command_knows_home() -> None:
    """The callback is what replaces `~`; a new path option without it fails here."""
    from typer.main import get_command

    from cnnjepa.cli.options import at_home

    bare: list[str] = []
    seen: list[str] = []

    def look(command: object, name: str) -> None:
        for sub, inner in getattr(command, "commands", {}).items():
            look(inner, f"{name} {sub}")
        for parameter in getattr(command, "params", []):
            marked = parameter.metavar in ("PATH", "DIR", "FILE", "RUN", "SPACE.yaml", "COSTS.json")
            if marked or parameter.name in ("path", "source", "dest", "left", "right"):
                seen.append(f"{name} {parameter.name}")
                if at_home.__name__ not in repr(parameter.callback):
                    bare.append(seen[-1])

    look(get_command(app), "cnnjepa")
    assert not bare and len(seen) > 30


def test_home_is_written_out_in_options(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "c.yaml").write_text("extends: smoke\nruntime: {epochs: 7}\n")
    (home / "d").mkdir()
    app(["config", "show", "--config=~/c.yaml", "--data=~/d"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert f"path: {home}/d" in shown and "epochs: 7" in shown
