"""A run that fails says how it is continued, and the same command without --resume says what the folder holds."""

import sys
from pathlib import Path

import pytest

from cnnjepa.cli.main import main
from cnnjepa.errors import ImageError, RunError
from cnnjepa.training import pretrain as module

pytestmark = pytest.mark.medium

SETTINGS = ("train_images=64", "val_images=48", "runtime.batch_size=16", "device=cpu", "checkpoint_every_steps=1")
SMALL = ["train", "--preset", "smoke", *(word for setting in SETTINGS for word in ("--set", setting))]


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[object, list[str]]:
    """(exit code, the messages of the command)."""
    monkeypatch.setattr(sys, "argv", ["cnnjepa", *SMALL, *more])
    with pytest.raises(SystemExit) as ending:
        main()
    return ending.value.code, [line for line in capsys.readouterr().err.splitlines() if line.startswith("cnnjepa: ")]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RunError("the disk is gone"), 1, "cnnjepa: the disk is gone"),
        (
            ImageError("D/cat.jpg cannot be decoded"),
            2,
            "cnnjepa: D/cat.jpg cannot be decoded; `cnnjepa data check PATH`",
        ),
    ],
)
def test_a_run_whose_first_step_fails_is_continued_by_the_command_that_it_names(
    error: Exception, code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    step, left = module.train_step, [error]

    def failing_once(*given):  # type: ignore[no-untyped-def]
        if left:
            raise left.pop()
        return step(*given)

    monkeypatch.setattr(module, "train_step", failing_once)
    ended, lines = said(monkeypatch, capsys, "--out", str(run))
    assert ended == code and lines[0].startswith(message) and len(lines) == 2
    before, _, named = lines[1].partition(": cnnjepa train")
    assert before == (
        f"cnnjepa: {run} holds the failed run; this continues it from the beginning, because it has no checkpoint"
    )
    assert named.endswith(f"--out {run} --resume")
    ended, lines = said(monkeypatch, capsys, "--out", str(run))
    assert (ended, lines) == (
        2, [f"cnnjepa: --out {run} holds a run that failed; continue it with --resume, or give another --out"]
    )  # fmt: skip
    assert said(monkeypatch, capsys, "--out", str(run), "--resume", "--set", "floors=false") == (0, [])


def test_a_run_that_fails_later_is_continued_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, made = module.train_step, []

    def failing_third(*given):  # type: ignore[no-untyped-def]
        made.append(1)
        if len(made) == 3:
            raise RunError("the disk is gone")
        return step(*given)

    monkeypatch.setattr(module, "train_step", failing_third)
    ended, lines = said(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert ended == 1 and len(lines) == 2
    assert f"{tmp_path / 'run'} holds the failed run; this continues it from its last checkpoint: cnnjepa" in lines[1]
