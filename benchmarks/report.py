"""How long the report of a large study takes: constructed results, so that nothing is trained.

The target is 500 trials in under 10 s, from reading the folders to every file written; it is timed in a process of its
own, imports included, as `cnnjepa report` is called.

    python benchmarks/report.py                 # 500 trials: 100 arms x 5 seeds
    python benchmarks/report.py --arms 20 --seeds 3
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The constructed studies of the tests are what is needed here.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="write the study here and keep it")
    asked = parser.parse_args()

    from studies import write_study

    from cnnjepa.schemas.study import Study

    rates = tuple(round(0.001 * (n + 1), 4) for n in range(asked.arms))
    study = Study(
        name="large", question="How does the learning rate matter?", preset="smoke", axes={"optimizer.lr": rates},
        seeds=tuple(range(asked.seeds)),
    )  # fmt: skip
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        root = asked.keep or Path(folder)
        trials = write_study(root, study, lambda arm, seed: (50 + draw.gauss(0, 2), 40 + draw.gauss(0, 2)))
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "cnnjepa", "report", "large", "--root", str(root)], check=True, capture_output=True
        )
        taken = time.perf_counter() - start
        size = (root / "studies" / "large" / "report" / "report.html").stat().st_size
    print(f"{len(trials)} trials ({asked.arms} arms x {asked.seeds} seeds): {taken:.1f} s; page {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
