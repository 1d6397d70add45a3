"""Telling never ends a run: output, logs, progress and TensorBoard may fail; data may not."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runs import small_config

from cnnjepa.errors import RunError
from cnnjepa.storage import journal
from cnnjepa.telling import open_log, unfailing
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.watcher import Watcher

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs the device /dev/full")

# Smallest runs of the command line.
QUICK = [word for text in (
    "train_images=64", "val_images=48", "runtime.batch_size=16", "epochs=1", "warmup_epochs=0",
    "linear_epochs=1", "device=cpu", "probe.floors=false", "probe.every_epochs=1",
) for word in ("--set", text)]  # fmt: skip


def assert_whole(run: Path) -> None:
    assert json.loads((run / "result.json").read_text())["status"] == "finished"
    assert (run / "checkpoints" / "last.pt").exists()
    kinds = [json.loads(line)["kind"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert "train" in kinds


@pytest.mark.processes
@pytest.mark.parametrize(
    "redirected",
    [
        "2>&1 | head -1 >/dev/null",
        pytest.param(">/dev/full 2>/dev/full", marks=needs_full),
        ">&- 2>&-",
    ],
)
def test_a_run_finishes_whatever_becomes_of_its_output(redirected: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnnjepa", "train", "--preset", "smoke", *QUICK, "--out", str(tmp_path / "run")]
    script = f'"$@" {redirected}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script, "bash", *command], timeout=200, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0
    assert_whole(tmp_path / "run")


def stream_facts(code: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    prepared = "import sys\nfrom cnnjepa import telling\ntelling.unbreakable_streams()\n"
    return subprocess.run([sys.executable, "-c", prepared + code], timeout=60, **options)


@pytest.mark.processes
def test_a_character_that_the_encoding_lacks_becomes_a_question_mark() -> None:
    done = stream_facts("print('a – b \\udcff')", capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a ? b ?\n", b"")
    done = stream_facts("print('a – b')", capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.stdout == "a – b\n".encode()


@pytest.mark.processes
def test_a_closed_descriptor_is_not_taken_by_a_file_of_the_run(tmp_path: Path) -> None:
    code = f"f = open({str(tmp_path / 'data')!r}, 'w'); assert f.fileno() > 2, f.fileno()\n"
    code += "print('lost'); sys.stderr.write('lost')\nimport os; os.write(1, b'lost'); f.close()"
    done = stream_facts(code, preexec_fn=lambda: [os.close(number) for number in (0, 1, 2)])
    assert done.returncode == 0 and (tmp_path / "data").read_text() == ""


@pytest.mark.processes
def test_a_thread_that_fails_is_told_in_one_line() -> None:
    code = "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='writer'); t.start(); t.join()"
    done = stream_facts(code, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"note: writer ended with ZeroDivisionError: division by zero\n")


@needs_full
def test_a_log_on_a_full_disk_takes_lines_without_raising(tmp_path: Path) -> None:
    for path in (FULL, tmp_path / "file" / "log"):
        (tmp_path / "file").write_text("not a folder")
        with open_log(path) as log:
            print("lost", file=log, flush=True)
    with open_log(tmp_path / "new" / "log") as log:
        print("a – b", file=log)
    assert (tmp_path / "new" / "log").read_text(encoding="utf-8") == "a – b\n"


class _Broken(Watcher):
    def stepped(self, step: int) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def started(self, plan: Any) -> None:
        raise RuntimeError("no such tracker")


@pytest.mark.medium
def test_a_display_and_a_board_that_fail_are_told_once_and_the_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(self: object, name: str, value: float, step: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", refused)
    result = pretrain(
        small_config("epochs=1", "warmup_epochs=0", "probe.floors=false"), tmp_path / "run", watcher=_Broken()
    )
    assert result.status == "finished"
    assert_whole(tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("the display of progress failed (RuntimeError: no such tracker)") == 1
    refusal = "TensorBoard failed (OSError: [Errno 28] No space left on device); the run continues without it"
    assert said.count(refusal) == 2  # by the curves, and by the settings at the end
    assert "Broken pipe" not in said


def test_a_board_that_cannot_be_made_is_told_and_lines_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("not a folder")
    book = journal.Journal(tmp_path, 0)
    book.write("train", 1, {"loss": 0.5})
    book.sync()
    book.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"kind": "train", "step": 1, "loss": 0.5}
    assert "TensorBoard failed (FileExistsError" in capsys.readouterr().err


@needs_full
def test_metrics_that_cannot_be_written_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to(FULL)
    book = journal.Journal.__new__(journal.Journal)
    book._path, book._file = tmp_path / "metrics.jsonl", open(FULL, "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(RunError, match=r"cannot write .*metrics.jsonl \(No space left on device\)"):
        book.write("train", 1, {"loss": 0.5})
    book._file.close()


def test_only_failures_of_a_person_or_a_signal_pass_through() -> None:
    class Interrupted:
        def tell(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unfailing(Interrupted, "it").tell()
    assert unfailing(lambda: io.StringIO("text"), "it").read() == "text"
