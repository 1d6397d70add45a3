"""Run every benchmark, one after another, and print one table of their figures with their targets.

    python benchmarks/all.py --quick                # `make bench`, under five minutes on two cores
    python benchmarks/all.py                        # `make bench-full`
    python benchmarks/all.py --quick --only step,masks

Each script is a process of its own and writes <out>/<script>.json (figures.py says what is in it); its output is kept
as <out>/<script>.log. The table is also written, to <out>/all.json. A missed target is shown, not a failure: the exit
code is 1 only when a script fails. `gpu_step` runs where there is a GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from figures import Figure, add_options, cells
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SCRIPTS = ("limits", "sparse_encoder", "step", "masks", "loader", "augmentation", "probes", "scaling")
# In addition: what takes minutes, and what needs a GPU.
_FULL_ONLY = ("compile",)
_LINES_OF_A_FAILURE = 20


def run(script: str, asked: argparse.Namespace) -> dict[str, Any] | None:
    """The script's file; None, with its last words printed, when it failed."""
    path, log = asked.out / f"{script}.json", asked.out / f"{script}.log"
    path.unlink(missing_ok=True)
    words = [sys.executable, str(HERE / f"{script}.py"), "--out", str(asked.out)]
    if asked.mode != "full":
        words.append(f"--{asked.mode}")
    print(f"{script} ", end="", flush=True)
    begun = time.perf_counter()
    with log.open("w") as file:
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    print(f"{time.perf_counter() - begun:.0f} s", flush=True)
    if code == 0 and path.exists():
        return dict(json.loads(path.read_text()))
    why = f"exit code {code}" if code else f"it wrote no {path.name}"
    print(f"  {script} failed ({why}); the end of {log}:")
    for line in log.read_text(errors="replace").splitlines()[-_LINES_OF_A_FAILURE:]:
        print(f"    {line}")
    return None


def shown(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Measured, and what it is held against", title_justify="left")
    for heading in ("benchmark", "figure"):
        table.add_column(heading)
    for heading in ("measured", "range", "n", "target", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for script, results in found.items():
        for at, figure in enumerate(Figure.of_json(f) for f in results["figures"]):
            style = {True: "green", False: "red", None: ""}[figure.ok]
            *rest, verdict = cells(figure)
            table.add_row("" if at else script, figure.name, *rest, f"[{style}]{verdict}[/]" if style else verdict)
        table.add_section()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="scripts, with commas")
    add_options(parser)
    asked = parser.parse_args()
    scripts = [*SCRIPTS, *(_FULL_ONLY if asked.mode == "full" else ())]
    if torch.cuda.is_available():
        scripts.append("gpu_step")
    if asked.only:
        legal, scripts = {*SCRIPTS, *_FULL_ONLY, "gpu_step"}, asked.only.split(",")
        if unknown := [name for name in scripts if name not in legal]:
            parser.error(f"no benchmark {', '.join(unknown)}; must be one of {', '.join(sorted(legal))}")
    asked.out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    results = {script: run(script, asked) for script in scripts}
    found = {script: result for script, result in results.items() if result is not None}
    failed = [script for script, result in results.items() if result is None]
    kept = ("mode", "environment", "seconds", "figures")
    gathered = {name: {key: result[key] for key in kept} for name, result in found.items()}
    (asked.out / "all.json").write_text(json.dumps(gathered, indent=2) + "\n")
    print()
    Console(width=None if sys.stdout.isatty() else 160).print(shown(found))
    print(f"{len(found)} benchmarks in {time.perf_counter() - begun:.0f} s; {asked.out / 'all.json'} holds the figures")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
