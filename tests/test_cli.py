"""Commands as a person types them: output, files and exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from commands import cnnjepa, cnnjepa_alone
from reports import DEPTHS, outcome
from studies import write_study
from typer.testing import CliRunner

from cnnjepa.ablations.report.figures.mask_samples import _images
from cnnjepa.cli.app import app
from cnnjepa.schemas import load_config, preset_names

ROOT = Path(__file__).parents[1]
RUN = ["--set", "train_images=64", "--set", "val_images=48", "--set", "runtime.batch_size=16", "--set", "device=cpu",
       "--set", "linear_epochs=2"]  # fmt: skip


def commands() -> list[tuple[str, ...]]:
    group = typer.main.get_command(app)
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [(name, sub) for sub in inner] if inner else [(name,)]
    return found


@pytest.mark.parametrize("command", [(), *commands()], ids=" ".join)
def test_every_commands_help_ends_with_an_example(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    last = [line.strip() for line in shown.output.splitlines() if line.strip()]
    assert any(line.startswith("Example:  cnnjepa") for line in last[-3:]), last[-3:]


def test_help_imports_neither_torch_nor_pydantic() -> None:
    code = "import sys; sys.argv = ['cnnjepa', '--help']\nfrom cnnjepa.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'ray', 'pydantic', 'numpy', 'cnnjepa.training') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_help_answers_at_once() -> None:
    """Seconds of a processor, which another program's load does not change; measured 0.34 s. Guards against a heavy
    import."""
    seconds = []
    for _ in range(3):
        before = os.times()
        assert cnnjepa_alone("--help").returncode == 0
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 1.0


@pytest.mark.processes
def test_train_prints_a_summary_and_where_to_look(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = cnnjepa("train", "--preset", "smoke", *RUN, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for text in ("cnnjepa, target encoder", "floor: untrained encoder", "floor: raw pixels", "RankMe", str(out)):
        assert text in done.stdout
    assert "epoch    1  loss" in done.stderr and "k-NN" in done.stderr
    probed = cnnjepa("probe", str(out), "--encoder", "context", "--set", "linear_epochs=1")
    assert probed.returncode == 0, probed.stderr
    assert "context encoder" in probed.stdout and "result.json stays" in probed.stdout
    assert json.loads((out / "result.json").read_text())["probed_encoder"] == "target"
    (added,) = (out / "results").iterdir()
    assert json.loads(added.read_text())["probed_encoder"] == "context"
    shown = cnnjepa("probe", str(out), "--checkpoint", "best.pt")
    assert shown.returncode == 0 and "shown only" in shown.stdout


# (arguments, what the message must say); every one is exit code 2 and writes nothing.
WRONG = [
    (["--preset", "smok"], ["preset 'smok' does not exist", "nearest is 'smoke'"]),
    (["--preset", "smoke", "--set", "predictor.dpth=2"], ["no such config field", "nearest is 'predictor.depth'"]),
    (["--preset", "smoke", "--set", "depth=two"], ["method.predictor.depth: 'two' is text; write a whole number"]),
    (["--preset", "smoke", "--set", "epochs"], ["write key=value"]),
    (["--preset", "smoke", "--set", "strategy=random", "--set", "ratio=0.999"], ["leaves 0 of 64 cells visible"]),
    (["--preset", "smoke", "--set", "strategy=random", "--set", "ratio=0.001"], ["leaves 64 of 64 cells visible"]),
    (["--preset", "smoke", "--set", "masking.scale=[0.01,0.02]"], ["never more than masking.min_keep"]),
    (["--preset", "smoke", "--set", "image_size=34"], ["not divisible", "the nearest valid value is 32 or 36"]),
    (
        ["--preset", "smoke", "--set", "train_images=32", "--set", "runtime.batch_size=64"],
        ["fewer than a global batch of 64", "runtime.batch_size must be at most 32"],
    ),
    (["--preset", "smoke", "--set", "device=cuda"], ["no usable CUDA GPU", "it must be cpu or auto here"]),
    (["--preset", "smoke", "--data", "no/such/place"], ["data.path no/such/place does not exist"]),
    (["--preset", "smoke", "--config", "no.yaml"], ["config file no.yaml does not exist"]),
    ([], ["give --preset NAME or --config FILE"]),
    (["--preset", "in100"], ["data.path is not set"]),
    (["--preset", "smoke", "--checkpoint", "x.pt"], ["--checkpoint requires --resume"]),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=lambda value: " ".join(value)[:40])
def test_wrong_input_is_one_message_with_code_2_and_writes_nothing(
    arguments: list[str],
    says: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cnnjepa.cli import main

    if "device=cuda" in arguments:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "train", *arguments, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        main.main()
    captured = capsys.readouterr()
    assert left.value.code == 2
    assert all(text in captured.err for text in says), captured.err
    assert "Traceback" not in captured.err and captured.err.startswith("cnnjepa: ")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("package", "importers", "command", "says"),
    [
        ("timm", "timm", "train --preset demo-ijepa --set train_images=640 --set val_images=48",
         f"needs timm, which is not installed: pip install -e '{ROOT}[vit]'"),
        ("h5py", "cnnjepa.data.hdf5", "train --preset smoke --data x.h5", "this needs h5py, which is not installed: "
         "pip install 'h5py'"),
        ("matplotlib", "matplotlib", "masks --preset smoke --out m.png", "needs matplotlib, which is not installed: "
         "pip install 'matplotlib'"),
        ("optuna", "cnnjepa.ablations.search", "search --preset smoke --space optimizer.lr=log(1e-4,1e-1)",
         "needs optuna, which is not installed: pip install 'optuna'"),
        ("plotly", "plotly", "report --root .", "needs plotly, which is not installed: pip install 'plotly'"),
        ("ray", "ray", "search --preset smoke --space optimizer.lr=log(1e-4,1e-1)",
         "needs Ray, which is not installed: pip install 'ray[tune]'"),
    ],
)  # fmt: skip
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    package: str, importers: str, command: str, says: str, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / "x.h5").touch()
    if package == "plotly":
        write_study(tmp_path, DEPTHS, outcome)
    done = cnnjepa(*command.split(), cwd=tmp_path, without=(package, importers))
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: folder.mkdir(), "holds no images; their names must end in"),
        (lambda folder: one_class(folder), "are of one class"),
        (lambda folder: truncated(folder), "cannot be decoded"),
    ],
    ids=["empty folder", "one class", "truncated JPEG"],
)
def test_wrong_data_is_one_message(prepare, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "data"
    prepare(folder)
    done = cnnjepa("train", "--preset", "smoke", "--data", str(folder), "--set", "train_images=null", "--set",
                   "val_images=null", "--set", "runtime.batch_size=4", "--set", "device=cpu",
                   "--out", str(tmp_path / "run"))  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


def jpegs(folder: Path, classes: int) -> None:
    from torchvision.io import write_jpeg

    from cnnjepa.data.synthetic import render

    for split in ("train", "val"):
        images, _ = render(split, 12, 32)  # type: ignore[arg-type]
        for i, image in enumerate(images):
            path = folder / split / f"class{i % classes}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jpeg(image, str(path))


def one_class(folder: Path) -> None:
    """All images of another class have an ending that is none of an image."""
    jpegs(folder, 2)
    for split in ("train", "val"):
        for path in (folder / split / "class1").iterdir():
            path.rename(path.with_suffix(".xyz"))


def truncated(folder: Path) -> None:
    jpegs(folder, 2)
    path = folder / "train" / "class1" / "3.jpg"
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.processes
def test_data_check_names_every_unreadable_image(tmp_path: Path) -> None:
    truncated(tmp_path / "data")
    done = cnnjepa("data", "check", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "class1/3.jpg cannot be decoded" in done.stdout and "23 images can be read" in done.stdout
    jpegs(tmp_path / "good", 2)
    assert cnnjepa("data", "check", str(tmp_path / "good")).returncode == 0


@pytest.mark.processes
def test_config_show_can_be_read_back(tmp_path: Path) -> None:
    shown = cnnjepa("config", "show", "--preset", "tiny64", "--set", "depth=4")
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    again = cnnjepa("config", "show", "--config", str(tmp_path / "mine.yaml"))
    assert again.stdout == shown.stdout and "depth: 4" in again.stdout
    differing = cnnjepa("config", "diff", "tiny64", str(tmp_path / "mine.yaml")).stdout
    assert re.search(r"^method\.predictor\.depth +2 +4 *$", differing, re.M)


@pytest.mark.processes
def test_config_presets_and_schema_name_everything() -> None:
    listed = cnnjepa("config", "presets").stdout
    assert all(name in listed for name in preset_names()) and "Run:" in listed
    assert "`multi_block_probability`" in cnnjepa("config", "schema").stdout
    assert json.loads(cnnjepa("config", "schema", "--json").stdout)["title"] == "PretrainConfig"


@pytest.mark.processes
def test_masks_writes_a_picture(tmp_path: Path) -> None:
    done = cnnjepa("masks", "--preset", "in100", "--out", str(tmp_path / "masks.png"), "--batches", "50")
    assert done.returncode == 0, done.stderr
    assert "21.5245" in done.stdout and (tmp_path / "masks.png").stat().st_size > 50_000
    assert cnnjepa("masks", "--preset", "in100", "--out", str(tmp_path / "masks.txt")).returncode == 2


@pytest.mark.processes
def test_doctor_judges_this_machine() -> None:
    done = cnnjepa("doctor", "--set", "train_images=256", "--set", "runtime.batch_size=16")
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("torch", "packed encoder = masked encoder", "efficiency", "images/s", "bottleneck"):
        assert text in done.stdout


def test_a_collapsed_run_leaves_with_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnnjepa.cli import main
    from cnnjepa.schemas import Diagnostics, ProbeFigures, Probes, TrialResult

    health = Diagnostics(rankme=1.0, feature_std=0.0, feature_dim=96, collapse_evidence="RankMe is 1.000 of 96")
    figures = ProbeFigures(linear_top1=6.2, linear_top5=31.0, knn_top1=6.2, knn_top5=31.0)
    result = TrialResult(
        pretrain_hash="a", probe_hash="b", method="cnnjepa", encoder="resnet18", dataset="synthetic-32", seed=0,
        status="collapsed", probes=Probes(held_out=figures), diagnostics=health, val_images=100, final_loss=0.0,
    )  # fmt: skip
    monkeypatch.setattr("cnnjepa.training.pretrain.pretrain", lambda *_, **__: result)
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "train", "--preset", "smoke", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 3
    assert "collapsed: RankMe is 1.000 of 96" in capsys.readouterr().out


@pytest.mark.processes
def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in cnnjepa("train", "--preset", "nope", "--debug").stderr


def test_version() -> None:
    from cnnjepa import __version__

    assert cnnjepa_alone("--version").stdout == f"cnnjepa {__version__}\n"


@pytest.mark.parametrize("size", [8, 320])
def test_masks_draws_sizes_at_which_no_image_is_drawn(size: int) -> None:
    """Synthetic images have 16 to 256 pixels; the picture has any size that the encoder takes."""
    settings = [f"image_size={size}", "stem=small", "stages=3", "masking.strategy=random"]
    config = load_config("tiny64", overrides=settings)
    assert tuple(_images(config).shape) == (8, 3, size, size)
