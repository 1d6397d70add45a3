"""Is the embedded set a fair little problem? Floors well below the ceiling, a supervised network above 95 %.

Trains the demo's encoder with labels on the same crops, and probes what needs no training: raw pixels and the
untrained encoder.

    python benchmarks/synthetic_set.py --images 32000      # about 4 minutes on 2 cores
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from cnnjepa.data import open_data
from cnnjepa.data.batches import Normalizer, Order, training_batches
from cnnjepa.encoders import build_backbone
from cnnjepa.probes.evaluate import judge
from cnnjepa.probes.features import encoder_embed, extract, pixel_embed
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.schemas import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32_000, help="training images seen")
    parser.add_argument("--lr", type=float, default=4e-3)
    asked = parser.parse_args()
    config, device = load_config("demo"), torch.device("cpu")
    data = open_data(config.data)

    with tempfile.TemporaryDirectory() as folder:
        for name, embed in (
            ("raw pixels", pixel_embed(config)),
            ("untrained encoder", encoder_embed(untrained_encoder(config, data, device), config, device)),
        ):
            train, val = (extract(embed, source, config, Path(folder)) for source in (data.train, data.val))
            figures = judge(train, val, data.classes, config.probe, device).probes.held_out
            assert figures
            print(f"{name}: k-NN {figures.knn_top1:.1f} %, linear {figures.linear_top1:.1f} %", flush=True)

    network = build_backbone(config.encoder, seed=0)
    model = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(network.feature_dim, data.classes))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = Order(data.train.labels.numel(), config.runtime.batch_size, 0, 1, seed=0)
    steps = asked.images // config.runtime.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=asked.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, asked.lr, total_steps=steps, pct_start=0.1)
    normalize = Normalizer(config.data, device)
    labels = (data.train.labels[index] for _, index in order.walk(0, steps))
    for batch, label in zip(training_batches(data, config.data, order, 0, steps, 0, device), labels, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(normalize(batch.pixels)), label).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(normalize(pixels)) for pixels in data.val.images.split(250)])  # type: ignore[attr-defined]
    right = (logits.argmax(1) == data.val.labels).double().mean().item()
    print(f"supervised, {steps * config.runtime.batch_size:,} images seen: {100 * right:.1f} %")


if __name__ == "__main__":
    main()
