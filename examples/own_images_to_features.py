# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Features of your own images
#
# This example pretrains an encoder on a folder of images, computes one feature vector per image, and finds nearest
# neighbours.

# %%
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from torchvision.io import decode_image, write_png
from torchvision.transforms.v2.functional import resize

import cnnjepa
from cnnjepa.data.synthetic import CLASS_NAMES, render
from cnnjepa.schemas import load_config

IMAGES, RUN = Path("runs/example-images"), Path("runs/example-own")

# %% [markdown]
# ## A folder of images
#
# The layout is `train/<class>/<image>` and `val/<class>/<image>`. This cell draws images; to use your own, skip it and
# set `IMAGES`.

# %%
for split, count in (("train", 160), ("val", 80)):
    pixels, labels = render(split, count, 48)
    for number, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        path = IMAGES / split / CLASS_NAMES[label].replace("/", "-") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(image, str(path))

# %% [markdown]
# ## Pretrain on them
#
# `smoke` keeps this short. For photographs, use `tiny64`, `in100` or `in1k`, and many more images.

# %%
settings = ["image_size=32", "runtime.batch_size=32", "linear_epochs=5"]
config = load_config("smoke", overrides=settings, data=IMAGES)
result = cnnjepa.pretrain(config, RUN, resume=True)
print(result.status, result.dataset)

# %% [markdown]
# ## One feature vector per image
#
# The encoder gives a feature map [B, C, G, G]; its mean over positions is the image's feature vector. Images are
# resized and normalised as in training.

# %%
encoder = cnnjepa.load_encoder(RUN)
mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.data.mean, config.data.std))
files = sorted((IMAGES / "val").glob("*/*.png"))
size = [config.data.image_size] * 2
images = torch.stack([resize(decode_image(str(file)), size, antialias=True) for file in files])
with torch.no_grad():
    features = torch.cat([encoder((part / 255 - mean) / std).mean((2, 3)) for part in images.split(32)])
np.savez(RUN / "features.npz", features=features.numpy(), files=[str(file) for file in files])
print(f"{len(files)} images, {features.shape[1]} features each, in {RUN / 'features.npz'}")

# %% [markdown]
# ## Nearest neighbours
#
# The first image of each row is the query; the others are its nearest neighbours by cosine similarity.

# %%
unit = torch.nn.functional.normalize(features, dim=1)
nearest = (unit[:4] @ unit.T).argsort(dim=1, descending=True)[:, :6]
figure, axes = plt.subplots(4, 6, figsize=(6, 4.2), layout="constrained")
for row, found in zip(axes, nearest.tolist(), strict=True):
    for axis, number in zip(row, found, strict=True):
        axis.imshow(images[number].permute(1, 2, 0).numpy())
        axis.set(xticks=[], yticks=[])
figure.savefig(RUN / "neighbours.png")
