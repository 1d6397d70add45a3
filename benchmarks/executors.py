"""Extra time of Ray over the local executor: the same trials by both, alternately, one at a time on all cores.

    python benchmarks/executors.py --rounds 3

Prints wall seconds of the whole command and the share of it beyond the local executor's; writes
benchmarks/out/executors.json. Both commands plan, start one process per trial and look for results; Ray also starts its
own processes once.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cnnjepa.cpus import usable_cpus

HERE = Path(__file__).parent


def seconds(executor: str, depths: str, preset: str, root: Path) -> float:
    """Wall time of one study into an empty pool."""
    cores = str(usable_cpus())
    words = ["ablate", "predictor", "--depths", depths, "--preset", preset, "--executor", executor, "--cpus-per-trial",
             cores, "--images-per-s", "100", "--root", str(root)]  # fmt: skip
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cnnjepa", *words], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depths", default="1,2,3,4")
    parser.add_argument("--preset", default="smoke")
    asked = parser.parse_args()
    times: dict[str, list[float]] = {"local": [], "ray": []}
    for _ in range(asked.rounds):
        for executor, found in times.items():
            root = Path(tempfile.mkdtemp())
            found.append(seconds(executor, asked.depths, asked.preset, root))
            shutil.rmtree(root)
    middle = {executor: statistics.median(found) for executor, found in times.items()}
    trials = len(asked.depths.split(","))
    beyond = middle["ray"] - middle["local"]
    print(f"{trials} trials of preset {asked.preset}, {asked.rounds} rounds, medians of wall time")
    for executor, found in times.items():
        print(f"  {executor:<6} {middle[executor]:7.1f} s   ({', '.join(f'{t:.1f}' for t in found)})")
    print(f"  ray beyond local: {beyond:+.1f} s per study, {100 * beyond / middle['local']:+.0f} % of this short one")
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    (out / "executors.json").write_text(json.dumps({"kind": "executors", "times": times, "trials": trials}, indent=2))


if __name__ == "__main__":
    main()
