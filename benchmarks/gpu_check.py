"""Everything that is to be shown on a GPU, in one command with a time limit: correctness first, then speed.

The stages are ordered by worth. Each is a process of its own with a limit; its output and figures are on disk as soon
as it ends, and a stage that fails, or is too slow, does not stop the next. No Ray is needed.

    python benchmarks/gpu_check.py --minutes 8                      # make gpu-check
    python benchmarks/gpu_check.py --minutes 4 --stages tests,step
    python benchmarks/gpu_check.py --device cpu --tiny --minutes 5  # shows that it runs

Where the package is not installed: PYTHONPATH=. python benchmarks/gpu_check.py (torch, torchvision, pydantic, pyyaml,
and for the tests pytest, hypothesis, typer, rich).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
# Seconds without which a stage is not begun: torch takes several to load.
_LEAST = 15.0


@dataclass(frozen=True)
class Stage:
    """One part of the check."""

    name: str
    shows: str
    """A few words on what it shows."""
    command: tuple[str, ...]
    """Words after `python`."""
    seconds: float
    """At most."""


@dataclass(frozen=True)
class Outcome:
    """The end of a stage."""

    name: str
    status: Literal["done", "failed", "too slow", "no time left"]
    seconds: float
    last_line: str


Runner = Callable[[Stage, float, Path], tuple[int | None, str]]
"""Runs a stage with a limit in seconds and a log file; gives its exit code (None: over the limit) and last line."""


def stages(device: str, tiny: bool, out: Path) -> list[Stage]:
    """In the order of their worth."""
    size = ("--tiny",) if tiny else ("--quick",)
    where = ("--device", device, *size)

    def script(name: str, *words: str, into: str | None = None) -> tuple[str, ...]:
        return (str(HERE / f"{name}.py"), *where, *words, "--out", str(out / (into or name)))

    def gpu_only(name: str, *words: str, into: str | None = None) -> tuple[str, ...]:
        return (str(HERE / f"{name}.py"), *size, *words, "--out", str(out / (into or name)))

    small = ("--arch", "resnet18") if tiny else ()
    at_64 = ("--image-size", "64", "--batch", "512")
    photos = ("--arch", "resnet18", "--stem", "small")
    tests = ("-m", "pytest", "-o", "addopts=", "-q", "-rf", "--durations=8", "-W", "default")
    return [
        Stage("tests", "packed = masked = dense, resume, two processes, memory",
              (*tests, "-n", "8", *(str(TESTS / file) for file in ("test_cuda.py", "kernel_cases.py"))), 120),
        Stage("graph_tests", "the step as CUDA graphs: gradients, resume, padding",
              (*tests, "-n", "4", "-k", "graph or padd",
               *(str(TESTS / file) for file in ("test_cuda.py", "kernel_cases.py"))), 80),
        Stage("encoder", "the packed encoder against its ceiling", script("gpu_encoder", "--ways", "--profile"), 90),
        Stage("step", "the pretraining step against a supervised one", script("gpu_step", "--no-loader", *small), 90),
        Stage("encoder_free", "the same where cuDNN may choose",
              script("gpu_encoder", "--any-algorithm", into="encoder_free"), 60),
        Stage("graphs", "the step as CUDA graphs", gpu_only("gpu_graphs"), 75),
        Stage("graphs_64", "the same, ResNet-18 at 64 px",
              gpu_only("gpu_graphs", *photos, *at_64, into="graphs_64"), 45),
        Stage("loader", "the step fed from JPEG files", script("gpu_step", "--only-loader", *small, into="loader"), 75),
        Stage("step_64", "ResNet-18 at 64 px",
              script("gpu_step", "--no-loader", *photos, *(() if tiny else at_64), into="step_64"), 60),
        Stage("step_convnext", "ConvNeXt-T", script("gpu_step", "--no-loader", "--arch", "convnext_tiny",
                                                    *(() if tiny else ("--batch", "64")), into="step_convnext"), 60),
        Stage("alternatives", "torch.compile and CUDA graphs of what has fixed shapes",
              script("gpu_step", "--no-loader", "--compile", "--graphs", *small, into="alternatives"), 120),
    ]  # fmt: skip


def run(stage: Stage, limit: float, log: Path) -> tuple[int | None, str]:
    """Run a stage in a process group of its own, which is ended as a whole."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CNNJEPA_KERNELS": os.environ.get("CNNJEPA_KERNELS", "on")}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *stage.command], stdout=file, stderr=subprocess.STDOUT, cwd=HERE.parent,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return code, lines[-1] if lines else ""


def check(
    todo: Sequence[Stage],
    seconds: float,
    out: Path,
    runner: Runner = run,
    clock: Callable[[], float] = time.monotonic,
    to: IO[str] = sys.stdout,
) -> list[Outcome]:
    """Run the stages in turn within `seconds`; the outcomes so far are in `out`/check.json after each."""
    out.mkdir(parents=True, exist_ok=True)
    begun, outcomes = clock(), []
    for stage in todo:
        start = clock()
        left = seconds - (start - begun)
        if left < _LEAST:
            outcomes.append(Outcome(stage.name, "no time left", 0.0, ""))
        else:
            code, last = runner(stage, min(stage.seconds, left), out / f"{stage.name}.log")
            status: Literal["done", "failed", "too slow"] = (
                "too slow" if code is None else "done" if code == 0 else "failed"
            )
            outcomes.append(Outcome(stage.name, status, round(clock() - start, 1), last))
        print(
            f"{outcomes[-1].status:>12}  {outcomes[-1].seconds:6.1f} s  {stage.name}: {stage.shows}",
            file=to,
            flush=True,
        )
        (out / "check.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default 8)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="seconds per stage: shows that it runs")
    parser.add_argument("--stages", help="names, with commas, in the order wanted (default all)")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "gpu")
    asked = parser.parse_args()
    known = {stage.name: stage for stage in stages(asked.device, asked.tiny, asked.out.resolve())}
    names = asked.stages.split(",") if asked.stages else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"--stages {','.join(unknown)}: must be of {', '.join(known)}")
    outcomes = check([known[name] for name in names], asked.minutes * 60, asked.out)
    for outcome in outcomes:
        log = asked.out / f"{outcome.name}.log"
        if log.exists():
            print(f"\n===== {outcome.name} ({outcome.status}, {outcome.seconds:.0f} s; {log})")
            lines = log.read_text(errors="replace").splitlines()
            print("\n".join(lines[-(60 if outcome.status == "failed" else 45) :]))
    if any(outcome.status in ("failed", "too slow") for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
