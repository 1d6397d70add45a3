# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Pretrain and look
#
# Train a very small network on the embedded images for a few seconds, then look at the loss, the accuracies and the
# masks. For useful features, use the preset `demo` (three to six minutes on two cores).

# %%
import json
from pathlib import Path

import torch
from matplotlib import pyplot as plt

import cnnjepa
from cnnjepa.schemas import load_config

RUN = Path("runs/example")
config = load_config("smoke", overrides=["optimizer.lr=0.004"])
print(f"{config.encoder.arch} x {config.encoder.width}, {config.grid}x{config.grid} cells per image")

# %% [markdown]
# `cnnjepa train` calls `pretrain`. With `resume=True`, the result of a finished run is returned unchanged, and a
# stopped run is resumed.

# %%
result = cnnjepa.pretrain(config, RUN, resume=True)
print(result.status, f"after {result.cost.train_seconds:.1f} s of training")

# %% [markdown]
# ## The loss
#
# `metrics.jsonl` has one line per logged interval and one per online probe.

# %%
lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
train = [line for line in lines if line["kind"] == "train"]

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot([line["step"] for line in train], [line["loss"] for line in train])
axis.set(xlabel="step", ylabel="loss")
figure.savefig(RUN / "loss.png")

# %% [markdown]
# ## Accuracy, next to its floors
#
# Protocol `held_out`: every setting of the probe is chosen on a tenth of the training set. A floor is the accuracy of
# an untrained network, or of raw pixels. After such a short training, the features may be no better.

# %%
rows = {"trained": result.probes, "untrained": result.floors.untrained, "pixels": result.floors.pixels}
for name, probes in rows.items():
    figures = probes.held_out
    print(f"{name:10} linear {figures.linear_top1:5.1f} %   k-NN {figures.knn_top1:5.1f} %")
print(f"RankMe {result.diagnostics.rankme:.1f} of {result.diagnostics.feature_dim} dimensions")

# %% [markdown]
# ## The masks
#
# The context encoder sees the context cells; the loss is taken in the target cells. Masks are a function of seed and
# step.

# %%
masks = cnnjepa.sample_masks(config.method.masking, config.grid, torch.arange(4), config.runtime.seed, step=0)
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for axis, context in zip(axes, masks.context, strict=True):
    axis.imshow(context.numpy(), cmap="gray")
    axis.set(xticks=[], yticks=[], title=f"{int(context.sum())} visible cells")
figure.savefig(RUN / "masks.png")
