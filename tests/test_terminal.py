"""Output to a terminal, a pipe and a log file: names as they are, whole numbers, plain lines, commands that run."""

import ast
import io
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import cnnjepa_alone
from nasty_names import NASTY
from rich.text import Text
from studies import result_of, write_run, write_study

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.cli.main import main
from cnnjepa.cli.progress import TerminalWatcher
from cnnjepa.cli.sheet import Sheet
from cnnjepa.cli.study_run import print_outcome
from cnnjepa.cli.terminal import console, prepare_streams, say
from cnnjepa.commands import command
from cnnjepa.errors import RunError
from cnnjepa.names import file_name, file_names, visible
from cnnjepa.schemas.study import Study
from cnnjepa.training.watcher import RunPlan

CLI = Path(__file__).parents[1] / "cli"


class Screen(io.StringIO):
    """A stream that says it is a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def printed(monkeypatch: pytest.MonkeyPatch, *shown: Any, terminal: bool = False, **environment: str) -> str:
    """Return the console's output of some renderables."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    for one in shown:
        console().print(one)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "50.0 +-1.2, 2x3, ...-> +-+ cafe \\u732b \\xff\n"),
        ("latin-1", "50.0 ±1.2, 2×3, ...-> +-+ café \\u732b \\xff\n"),
        ("utf-8", "50.0 ±1.2, 2×3, …→ ┌─┐ café 猫 \\xff\n"),
    ],
)
def test_what_a_stream_cannot_encode_becomes_ascii(
    monkeypatch: pytest.MonkeyPatch, encoding: str, expected: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    prepare_streams()
    print("50.0 ±1.2, 2×3, …→ ┌─┐ café 猫 \udcff", flush=True)
    assert raw.getvalue().decode(encoding) == expected


@pytest.mark.medium
def test_ascii_output_and_a_width_of_nothing_leave_messages_and_exit_codes_alone() -> None:
    narrow = {"PYTHONIOENCODING": "ascii", "COLUMNS": "0"}
    listed = cnnjepa_alone("config", "presets", **narrow)
    assert listed.returncode == 0 and "\nsmoke\n" in listed.stdout and listed.stdout.isascii()
    wrong = cnnjepa_alone("train", "--bogus", **narrow)
    assert wrong.returncode == 2 and "No such option: --bogus" in wrong.stderr and wrong.stderr.isascii()
    unknown = cnnjepa_alone("train", "--preset", "猫[/x]", **narrow)
    assert unknown.returncode == 2 and "\\u732b[/x]" in unknown.stderr


def test_names_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NASTY:
        screen = Screen(False)
        monkeypatch.setattr(sys, "stdout", screen)
        say(console(), ("runs/", "bold"), name)
        assert screen.getvalue() == f"runs/{visible(name)}\n"
    table = Sheet(("arm", "n"), title=("study [/x]",))
    for number, name in enumerate(NASTY):
        table.add(name, str(number))
    text = printed(monkeypatch, table, COLUMNS="400")
    assert text.startswith("study [/x]\n")
    for name in NASTY:
        assert visible(name) in text.replace("\n", "\n")
    assert "\x1b" not in text


def test_consoles_are_made_in_one_place() -> None:
    for path in CLI.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        made = [call for call in calls if isinstance(call, ast.Name) and call.id == "Console"]
        assert not made or path.name == "terminal.py", path
        assert "rich.markup" not in path.read_text(), path


def watched(monkeypatch: pytest.MonkeyPatch, terminal: bool, folder: str = "runs[/x]/[abl] y") -> str:
    """Return the output of a run of three epochs of ten steps."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    with TerminalWatcher(16) as watcher:
        watcher.started(RunPlan(Path(folder), "f" * 64, 3, 10, 0, 160, 16, 1000, 100, 1e6, 0.5, "cpu", ["a note [b]"]))
        for step in range(1, 31):
            watcher.stepped(step)
            values = {"epoch": step / 10, "loss": 0.5, "lr": 0.1, "images_per_s": 10.0, "seconds": float(step)}
            watcher.logged("train", values)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("terminal", "environment"), [(False, {}), (False, {"FORCE_COLOR": "1"}), (True, {"TERM": "dumb"})]
)
def test_a_line_per_epoch_where_a_bar_cannot_be_redrawn(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = watched(monkeypatch, terminal)
    lines = text.splitlines()
    assert [line[:10] for line in lines if line.startswith("epoch")] == [f"epoch    {n}" for n in (1, 2, 3)]
    assert "\r" not in text and ("\x1b" in text) == ("FORCE_COLOR" in environment)
    assert "runs[/x]/[abl] y" in lines[0] and any("a note [b]" in line for line in lines)


@pytest.mark.parametrize(("width", "last"), [("80", ["            held-out loss 0.5123"]), ("160", [])])
def test_the_figures_of_an_online_probe_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, width: str, last: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    screen = Screen(False)
    monkeypatch.setattr(sys, "stderr", screen)
    figures = {"knn_top1": 45.31, "rankme": 412.34, "lidar": 120.4, "alpha_req": 1.234, "feature_std": 0.45}
    with TerminalWatcher(16) as watcher:
        for epoch in (1, 10):
            watcher.logged("probe", {"epoch": epoch, **figures, "heldout_loss": 0.51234})
    first, *rest = screen.getvalue().splitlines()
    assert first == "online probes: k-NN on held-out training images, loss on validation images"
    assert max(map(len, (first, *rest))) <= int(width) and len(rest) == 2 + 2 * len(last)
    line = "epoch    1  k-NN 45.3 %  RankMe 412.3  LiDAR 120.4  α-ReQ 1.23  spread 0.450"
    assert rest[: 1 + len(last)] == ([line, *last] if last else [f"{line}  held-out loss 0.5123"])


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    text = watched(monkeypatch, True)
    assert "\r" in text and "epoch    1  loss" not in text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in watched(monkeypatch, True)  # no colour; bold and the cursor's moves stay


def test_a_long_path_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "deep dir/" + "a" * 200
    monkeypatch.setenv("COLUMNS", "60")
    assert f"{folder}  ffffffffffff  on cpu" in watched(monkeypatch, False, folder).splitlines()


LONG = "a named arm whose name goes on " * 4 + "without" * 12
ROWS = [
    ("depth=1", "3", "70.2 ±0.4", "60.2 ±0.4", "0.011 M", "1,234"),
    (LONG, "3", "71.5 ±11.4", "–", "12.345 M", "99,999"),
]


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_tables_fold_names_and_never_cut_a_number(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    table = Sheet(("arm", "n", "linear", "k-NN", "predictor", "images/s"))
    for row in ROWS:
        table.add(*row)
    text = printed(monkeypatch, table, COLUMNS=str(width))
    assert max(Text(line).cell_len for line in text.splitlines()) <= width and "…" not in text
    words = text.split()
    for row in ROWS:
        for figure in " ".join(row[1:]).split():
            assert figure in words
    letters = "".join(LONG.split())
    assert set(letters) <= set("".join(words)) and text.count("without") >= 1
    is_table = text.splitlines()[0].split() == ["arm", "n", "linear", "k-NN", "predictor", "images/s"]
    assert is_table == (width >= 80)


NAMED = Study(
    name="named", preset="smoke", seeds=(0, 1),
    axes={"loss": {"[abl] " + "long " * 15: {"loss.name": "l2"}, "[/x]": {"loss.name": "smooth_l1"}}},
)  # fmt: skip


def failing_study(root: Path) -> None:
    """One arm finished at both seeds, one failed at the first and not yet run at the second."""
    trials = write_study(root, NAMED, lambda arm, seed: (71.3, 61.4) if arm.startswith("[abl]") else None)
    failed = next(trial for trial in trials if trial.arm.label == "[/x]" and trial.seed == 0)
    tail = 'Traceback [/x]\n  File "a"\nRuntimeError: [bold]no'
    write_run(
        root, failed, result_of(failed, 1.0, 1.0, status="failed", error="it broke: " + "why " * 40, log_tail=tail)
    )


@pytest.mark.parametrize("width", [80, 60])
def test_failures_of_a_study_are_shown_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int) -> None:
    failing_study(tmp_path)
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen(False)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "status", "named", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    lines = screen.getvalue().splitlines()
    assert "[/x]: 1 failed, 1 waiting" in lines
    assert "failed [/x], seed 0: it broke: " + "why " * 40 in lines
    assert "    RuntimeError: [bold]no" in lines and "--retry-failed runs what failed again" in lines
    assert any(line.split()[-4:-2] == ["71.3", "±0.0"] for line in lines) or "71.3 ±0.0" in screen.getvalue()


def test_the_command_below_an_outcome_runs_as_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "deep dir" / ("a" * 60) / "[abl] $HOME"
    failing_study(root)
    print_outcome(StudyFolder(root, "named"), Pool(root), StudyFolder(root, "named").trials())
    line = capsys.readouterr().out.splitlines()[-1]
    status, board = line.removeprefix("Look:  ").split("   ")
    assert shlex.split(status) == ["cnnjepa", "status", "named", "--root", str(root)]
    assert shlex.split(board) == ["tensorboard", "--logdir", str(root / "studies" / "named" / "tensorboard")]


def test_commands_to_copy_reach_a_shell_word_by_word() -> None:
    words = [name for name in NASTY if "\0" not in name]
    line = command("printf", "%s\\0", *words)
    assert "\n" not in line
    said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == words
    assert command("cnnjepa", "status", "x", root=Path()) == "cnnjepa status x"
    assert command("cnnjepa", "status", "x", root=Path("a b")) == "cnnjepa status x --root 'a b'"


def test_file_names_are_short_and_different() -> None:
    names = file_names(NASTY, also=" =,")
    assert len({name.casefold() for name in names.values()}) == len(NASTY)
    for name in names.values():
        assert len(name.encode()) <= 200 and name.isascii() and "/" not in name and name[0] not in ".-"
    assert file_name("depth=2, seed 0", also=" =,") == "depth=2, seed 0" and file_name("in100") == "in100"
    assert file_name("a b") != file_name("a_b") == "a_b"


def test_a_default_run_folder_has_a_name_that_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / ("c" * 245 + ".yaml")
    config.write_text("extends: smoke\n")
    chosen: list[Path] = []

    def pretrain(asked: Any, run_dir: Path, **more: Any) -> None:
        chosen.append(run_dir)
        raise RunError("enough")

    monkeypatch.setattr("cnnjepa.training.pretrain.pretrain", pretrain)
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "train", "--config", config.name])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1 and len(chosen[0].name.encode()) <= 206 and chosen[0].name.endswith("-seed0")
