"""The batch scripts of docs/cluster.md, run as SLURM runs them: the warning signal reaches the batch shell alone."""

import os
import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs" / "cluster.md"

# What the scripts call. The driver tells what it receives, and needs a moment to write its checkpoints.
PROGRAMS = {
    "cnnjepa": """
        trap 'echo USR1 >> "$TOLD"; /bin/sleep 0.3; exit 75' USR1
        echo "$@" >> "$TOLD"; [ -n "$DRIVER_FAILS" ] && exit 1
        while :; do /bin/sleep 0.05; done""",
    "scontrol": """
        case $1 in show) echo head; echo other;; *) echo "$@" >> "$TOLD";; esac""",
    "srun": "exit 0",
    "sleep": "exit 0",
}


def scripts() -> list[str]:
    blocks = re.findall(r"(?m)^    #!/bin/bash\n(?:(?:    .*)?\n)+", DOCS.read_text(encoding="utf-8"))
    return [textwrap.dedent(block) for block in blocks]


def started(script: str, folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    for name, body in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/bash\n{textwrap.dedent(body)}\n")
        (folder / name).chmod(0o755)
    (folder / "job").write_text(script)
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TOLD": str(folder / "told"), "SLURM_JOB_ID": "17",
        "SLURM_NNODES": "2", "DATA": "data", "SCRATCH": str(folder), **variables,
    }  # fmt: skip
    return subprocess.Popen(["bash", folder / "job"], env=environment)


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().splitlines() if (folder / "told").exists() else []


def test_the_page_holds_two_scripts() -> None:
    assert [("--executor local" in script, "B:USR1" in script) for script in scripts()] == [(False, True), (True, True)]


@pytest.mark.processes
@pytest.mark.parametrize("script", scripts(), ids=["ray", "array"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_warning_to_the_batch_shell_reaches_the_driver_and_the_job_is_requeued(
    script: str, times: int, tmp_path: Path
) -> None:
    job = started(script, tmp_path)
    until = time.monotonic() + 30
    while not told(tmp_path) and time.monotonic() < until:
        time.sleep(0.02)
    for _ in range(times):
        job.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
    assert job.wait(30) == 75
    assert told(tmp_path)[1:] == ["USR1", "requeue 17"] or told(tmp_path)[1:] == ["USR1", "USR1", "requeue 17"]


@pytest.mark.processes
@pytest.mark.parametrize("script", scripts(), ids=["ray", "array"])
def test_a_driver_that_fails_is_not_requeued(script: str, tmp_path: Path) -> None:
    assert started(script, tmp_path, DRIVER_FAILS="yes").wait(30) == 1
    assert len(told(tmp_path)) == 1
