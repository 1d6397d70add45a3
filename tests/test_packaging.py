"""The wheel: what it holds, that it runs from another folder in an environment of its own, and what an import loads."""

import email
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from runs import small_config, train_alone

import cnnjepa

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the last commit, built from a clone."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True, capture_output=True)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel installed by pip, and this environment's other packages on its path; gives
    its folder of programs."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    programs = place / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return programs


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """The command in `folder`, with nothing of this checkout on the path."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CNNJEPA"))}
    return subprocess.run(
        [str(environment / command[0]), *command[1:]],
        capture_output=True, text=True, cwd=folder, env=variables, timeout=300,
    )  # fmt: skip


@pytest.mark.processes
def test_the_wheel_holds_only_cnnjepa_with_its_data_and_its_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"cnnjepa", wheel.name.split("-py3")[0] + ".dist-info"}
    for wanted in (
        "cnnjepa/py.typed", "cnnjepa/schemas/presets/in1k.yaml", "cnnjepa/cli/main.py", "cnnjepa/data/synthetic.py",
        "cnnjepa/ablations/published.yaml", "cnnjepa/ablations/studies/predictor_depth.yaml",
        "cnnjepa/ablations/report/page/page.html.j2", "cnnjepa/ablations/report/page/page.js",
        "cnnjepa/ablations/report/page/page.css",
    ):  # fmt: skip
        assert wanted in names


@pytest.mark.processes
def test_the_version_is_written_in_one_place(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    described = email.message_from_bytes(archive.read(name))
    assert described["Version"] == cnnjepa.__version__
    assert "Typing :: Typed" in described.get_all("Classifier", [])
    assert described.get_all("Project-URL") == ["Paper, https://arxiv.org/abs/2408.07514"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [cnnjepa.__version__]
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.processes
@pytest.mark.slow
def test_an_installed_wheel_trains_from_another_folder(environment: Path, tmp_path: Path) -> None:
    where = run(environment, tmp_path, "python", "-c", "import cnnjepa; print(cnnjepa.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(environment.parent), where.stdout + where.stderr
    assert run(environment, tmp_path, "cnnjepa", "--version").stdout == f"cnnjepa {cnnjepa.__version__}\n"
    shown = run(environment, tmp_path, "cnnjepa", "config", "show", "--preset", "in1k")
    assert "epochs: 101" in shown.stdout, shown.stderr
    trained = run(environment, tmp_path, "cnnjepa", "train", "--preset", "smoke", "--out", "trained")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "trained" / "result.json").is_file()


@pytest.mark.processes
def test_an_installed_wheel_names_the_requirements_of_its_extras(environment: Path, tmp_path: Path) -> None:
    code = "from cnnjepa.optional import install_command; print(install_command('vit', 'timm'))"
    shown = run(environment, tmp_path, "python", "-c", code)
    assert shown.stdout == "pip install 'timm>=1.0.15'\n", shown.stderr
    every = run(environment, tmp_path, "python", "-c", code.replace("'vit', 'timm'", "'export', 'onnx'")).stdout
    assert every.startswith("pip install ") and "onnxruntime>=" in every and "safetensors>=" in every


def test_a_checkout_names_its_folder_and_the_extra() -> None:
    from cnnjepa.optional import install_command

    assert install_command("vit", "timm") == f"pip install -e '{ROOT}[vit]'"


HEAVY = ("ray", "optuna", "plotly", "tensorboard", "matplotlib", "h5py", "scipy", "timm", "typer", "cnnjepa.ablations")


def loaded(code: str, folder: Path, *watched: str) -> str:
    """Which of the watched modules are loaded after the code, in a process of its own."""
    code = f"{code}\nimport sys\nprint([name for name in {watched!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder).stdout


@pytest.mark.processes
def test_importing_the_package_loads_nothing_but_the_package(tmp_path: Path) -> None:
    assert loaded("import cnnjepa", tmp_path, *HEAVY, "torch", "numpy", "pydantic", "yaml") == "[]\n"


@pytest.mark.processes
def test_loading_an_encoder_loads_neither_the_study_packages_nor_tensorboard(tmp_path: Path) -> None:
    train_alone(small_config("runtime.epochs=1", "warmup_epochs=0"), tmp_path / "run")
    code = "import cnnjepa; assert cnnjepa.load_encoder('run').training is False"
    assert loaded(code, tmp_path, *HEAVY, "torch.utils.tensorboard") == "[]\n"
