# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Read an ablation with its statistics
#
# Compare two depths of the predictor over three seeds, and read what the comparison can say. The settings are tiny, so
# that the six trials take less than a minute. The numbers have no meaning; real ones are read in the same way.

# %%
import subprocess
import sys
from pathlib import Path

from cnnjepa.ablations.report.comparison import compare
from cnnjepa.ablations.report.reading import read_studies
from cnnjepa.ablations.report.statistics import smallest_effect

ROOT = Path(".")
STUDY = "example-depths"

# %% [markdown]
# The command line runs the study; a second call runs no trial again. `--executor local` runs one trial after
# another; without it, Ray spreads them over the cores of this machine or a cluster.

# %%
command = [
    sys.executable, "-m", "cnnjepa", "ablate", "predictor", "--depths", "1,2", "--seeds", "0,1,2",
    "--preset", "smoke", "--executor", "local", "--cpus-per-trial", "1", "--name", STUDY, "--root", str(ROOT),
    "--set", "train_images=96", "--set", "val_images=160", "--set", "runtime.batch_size=16",
    "--set", "runtime.epochs=1", "--set", "warmup_epochs=0", "--set", "linear_epochs=5", "--set", "held_out_lrs=[0.01]",
]  # fmt: skip
subprocess.run(command, check=True)

# %% [markdown]
# ## Means and intervals
#
# Each arm has one accuracy per seed. The interval is Student's, over seeds: it is wide with three seeds.

# %%
(study,), _ = read_studies(ROOT, [STUDY])
comparison = compare(study, study.datasets[0], "held_out")
for row in comparison.rows:
    one = row.estimates["knn_top1"]
    name = row.arm.label + (" (baseline)" if row.arm.baseline else "")
    print(f"{name:20} k-NN {one.mean:5.1f} ± {one.sd:.1f}, n = {one.n}, 95 % interval {one.low:.1f} to {one.high:.1f}")

# %% [markdown]
# ## Differences
#
# Seed 0 of one arm is compared with seed 0 of the baseline, and so on: both share initialisation and order of images.
# Holm's correction is over both metrics and all arms. "Not distinguishable" does not mean equal: the interval says
# how large a difference these seeds may hide.

# %%
for row in comparison.rows:
    for metric, one in row.differences.items():
        if one.mean is None:  # the baseline itself
            continue
        interval = f" [{one.low:+.1f}, {one.high:+.1f}]" if one.low is not None else ""
        p = f", p = {one.p_holm:.3f}" if one.p_holm is not None else ""
        print(f"{row.arm.label}, {metric}: {one.mean:+.1f} points{interval}{p}: {one.verdict}")

# %% [markdown]
# ## What more seeds would show
#
# This is the smallest true difference that the test finds with 80 % probability, in standard deviations of the per-seed
# difference.

# %%
for n in (3, 5, 8):
    print(f"{n} seeds: {smallest_effect(n, comparison.comparisons):.1f} standard deviations")

# %% [markdown]
# `cnnjepa report example-depths` writes all of this as tables, figures and one HTML page.
