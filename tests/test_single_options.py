"""Options that are given twice or contradict each other, closed readers, and names that are not UTF-8."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cnnjepa.cli import main as main_module
from cnnjepa.cli.app import app
from cnnjepa.schemas import ConfigError, load_config


def refusal(*words: str) -> str:
    """The message with which a command is refused."""
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["train", "--preset", "smoke", "--preset=demo"], "--preset"),
        (["ablate", "predictor", "--plan", "--depths", "1,2", "--depths", "3"], "--depths"),
        (["ablate", "--seeds", "0", "predictor_depth", "--seeds", "1"], "--seeds"),
        (["search", "--space", "lr=log(0.1, 1)", "--trials", "2", "--trials", "3"], "--trials"),
        (["search", "--space", "lr=log(0.1, 1)", "--prune", "--no-prune"], "--prune/--no-prune"),
        (["data", "check", "here", "--threads", "1", "--threads", "2"], "--threads"),
        (["report", "--root", "a", "--root", "b"], "--root"),
        (["config", "show", "--config", "a.yaml", "--config", "b.yaml"], "--config"),
    ],
)
def test_a_second_value_of_an_option_is_refused_and_never_dropped(words: list[str], option: str) -> None:
    assert refusal(*words) == f"{option} is given 2 times; give it once"


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        (["config", "show", "--preset", "smoke"], "seed=3", "runtime.seed=4"),
        (["train", "--preset", "smoke"], "runtime.seed=3", "seed=3"),
        (["ablate", "predictor"], "seed=3", "seed=4"),
        (["probe", "run"], "seed=3", "seed=4"),
    ],
)
def test_a_field_that_is_set_twice_is_refused_in_any_spelling(command: list[str], first: str, second: str) -> None:
    words = [*command, "--set", first, "--set", "predictor.depth=4", "--set", second]
    assert refusal(*words) == f"--set runtime.seed is given 2 times ({first}, {second}); give it once"


def test_a_list_option_and_a_switch_may_be_repeated() -> None:
    words = ["config", "show", "--preset", "smoke", "--set", "seed=3", "--set", "predictor.depth=4"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0 and "seed: 3" in shown.output and "depth: 4" in shown.output
    assert CliRunner().invoke(app, ["config", "schema", "--json", "--json"]).exit_code == 0


def test_paragraphs_of_help_are_wrapped_at_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = [line.strip() for line in CliRunner().invoke(app, ["train", "--help"]).output.splitlines()]
    start = next(number for number, line in enumerate(shown) if line.startswith("Exit codes:"))
    assert "--resume to continue" in " ".join(shown[start : start + 2])
    assert len(shown[start]) > 70 and len(shown[start + 1]) > 60


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["config", "show", "--preset", "smoke"], "source=synthetic"),
        (["config", "show", "--preset", "tiny64"], "data.path=there"),
        (["ablate", "predictor", "--plan"], "data.source=synthetic"),
        (["search", "--space", "lr=log(0.1, 1)"], "data.source=synthetic"),
    ],
)
def test_data_and_a_setting_that_names_other_images_are_refused(words: list[str], given: str) -> None:
    message = refusal(*words, "--data", "here", "--set", given)
    assert "--data here and --set data." in message and message.endswith("name different images; give only one of them")
    assert given.partition("=")[2] in message


def test_data_may_be_given_with_the_source_that_reads_it(tmp_path: Path) -> None:
    config = load_config("smoke", data=tmp_path, overrides=["data.source=hdf5"])
    assert config.data.source == "hdf5" and getattr(config.data, "path", None) == tmp_path


def test_a_closed_reader_ends_a_printing_command_by_sigpipe_and_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "cnnjepa", "config", "presets"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert done.returncode == -signal.SIGPIPE and done.stderr == b""


def test_images_whose_path_is_not_utf8_are_refused_before_a_run() -> None:
    with pytest.raises(ConfigError, match=r"data\.path: b'caf\\xe9' is not UTF-8, in which results are written"):
        load_config("smoke", data=Path(os.fsdecode(b"caf\xe9")))


def test_a_library_that_cannot_use_such_a_name_gives_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "export", os.fsdecode(b"caf\xe9")])
    assert main_module._report(RuntimeError("bad path")) == 2
    assert capsys.readouterr().err == (
        "cnnjepa: RuntimeError: bad path. caf\\xe9 is not UTF-8, which this command needs; rename it\n"
    )
