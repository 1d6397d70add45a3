"""Complete evaluation of an encoder at the end of a run: probes, floors, diagnostics."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnnjepa.data import DataSet
from cnnjepa.data.held_out import held_out_split
from cnnjepa.data.resident import subset
from cnnjepa.data.source import stratified
from cnnjepa.probes.diagnostics import diagnose
from cnnjepa.probes.evaluate import Judged, judge, selection_knn
from cnnjepa.probes.features import Embed, Features, encoder_embed, extract, pixel_embed, scratch_folder
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric, load_metrics, measure
from cnnjepa.schemas import Diagnostics, Floors, PretrainConfig, Probes, Selection
from cnnjepa.schemas.probe import FloorName

Tick = Callable[[], None]
Say = Callable[[str], None]
Floor = Callable[[FloorName, Callable[[], Probes]], Probes]
"""Returns the figures of a floor: either measured by calling the second argument, or stored ones."""


class Assessment(NamedTuple):
    """Evaluation of an encoder on a data set."""

    probes: Probes
    selection: Selection | None
    metrics: dict[str, float]
    """Figures of `probe.metrics`; empty if a feature is not finite."""
    floors: Floors
    diagnostics: Diagnostics
    skipped: list[str]


def assess(
    network: nn.Module,
    config: PretrainConfig,
    data: DataSet,
    device: torch.device,
    scratch: Path,
    tick: Tick = lambda: None,
    say: Say = lambda text: None,
    floor: Floor = lambda name, measure: measure(),
) -> Assessment:
    """Probe the frozen `network` and the floors, and diagnose its features. The figures of `probe.metrics` are computed
    for the network only."""
    metrics = load_metrics(config.probe.metrics)
    figures: dict[str, float] = {}

    def judged(embed: Embed, metrics: Mapping[str, ProbeMetric]) -> tuple[Judged, Features, list[str]]:
        with scratch_folder(scratch) as folder:
            train = extract(embed, data.train, config, folder, tick)
            val = extract(embed, data.val, config, folder, tick)
            skipped = train.skipped + val.skipped
            if not (train.finite() and val.finite()):
                return Judged(Probes(), None), val, skipped  # the diagnostics report it; no figure is invented
            names = data.train.class_names
            seen = ProbedFeatures(train.values, train.labels, val.values, val.labels, names, device)
            figures.update(measure(metrics, seen, tick))
            return judge(train, val, data.classes, config.probe, device, tick), val, skipped

    say("probing the encoder")
    found, val, skipped = judged(encoder_embed(network, config, device), metrics)
    diagnostics = diagnose(val.values)

    def untrained() -> Probes:
        say("probing the floors: the untrained encoder")
        return judged(encoder_embed(untrained_encoder(config, data, device), config, device), {})[0].probes

    def pixels() -> Probes:
        say("probing the floors: raw pixels")
        return judged(pixel_embed(config), {})[0].probes

    measures: dict[FloorName, Callable[[], Probes]] = {"untrained": untrained, "pixels": pixels}
    floors = Floors(**{name: floor(name, measures[name]) for name in config.probe.requested_floors})
    return Assessment(found.probes, found.selection, figures, floors, diagnostics, skipped)


class OnlineFigures(NamedTuple):
    """Figures of an online probe, which runs during training and never uses validation images."""

    knn_top1: float
    rankme: float
    feature_std: float


def online_probe(
    network: nn.Module,
    config: PretrainConfig,
    data: DataSet,
    device: torch.device,
    scratch: Path,
    tick: Tick = lambda: None,
) -> OnlineFigures:
    """Compute k-NN accuracy on the held-out tenth of at most `probe.online_images` training images, and the rank and
    spread of the features. For a supervised run the tenth comes from the whole training set; the run does not train on
    it."""
    labels = data.train.labels
    few = min(config.probe.online_images, labels.numel())
    images, chosen = data.train, None
    if few < labels.numel():
        supervised = config.method.LEARNS_FROM_LABELS
        chosen = _some_of_both_parts(labels, few, config) if supervised else None
        images = subset(data.train, stratified(labels, few) if chosen is None else chosen)
    with scratch_folder(scratch) as folder:
        features = extract(encoder_embed(network, config, device), images, config, folder, tick)
        if chosen is not None:
            features.part_of = (labels, chosen[features.whole_set[1]])
        health = diagnose(features.values)
        knn = selection_knn(features, data.classes, config.probe, device) if features.finite() else 0.0
        return OnlineFigures(knn, health.rankme, health.feature_std)


def _some_of_both_parts(labels: Tensor, count: int, config: PretrainConfig) -> Tensor:
    """Return the indices (int64, ascending) of `count` images, spread evenly over classes. The held-out fraction of
    them is held out."""
    fit, held = held_out_split(labels, config.probe.held_out_fraction, config.probe.split_seed)
    of_held = min(max(round(count * config.probe.held_out_fraction), 1), held.numel())
    of_fit = min(count - of_held, fit.numel())
    parts = fit[stratified(labels[fit], of_fit)], held[stratified(labels[held], of_held)]
    return torch.cat(parts).sort().values
