"""Complete evaluation of an encoder at the end of a run: probes, floors, diagnostics."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnnjepa.data import DataSet
from cnnjepa.data.held_out import held_out_split
from cnnjepa.data.resident import subset
from cnnjepa.data.source import ImageSource, groups_of, spread, stratified
from cnnjepa.methods import Method
from cnnjepa.probes.diagnostics import diagnose
from cnnjepa.probes.evaluate import Judged, judge, selection_knn
from cnnjepa.probes.features import Embed, Features, encoder_embed, extract, pixel_embed, scratch_folder
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.probes.label_free import IMAGES, ONLINE_IMAGES, VIEWS, heldout_loss, lidar_of
from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric, load_metrics, measure
from cnnjepa.schemas import Diagnostics, Floors, PretrainConfig, Probes, Selection
from cnnjepa.schemas.probe import FloorName

Tick = Callable[[], None]
Say = Callable[[str], None]


class FloorFigures(NamedTuple):
    """Figures of features without pretraining."""

    probes: Probes
    """Empty if they were not requested."""
    metrics: dict[str, float]
    """Figures of `probe.metrics`."""


Measure = Callable[[bool], FloorFigures]
"""Measures a floor: its metrics and, if the argument is true, its probes, which take longer."""
Floor = Callable[[FloorName, Measure], FloorFigures]
"""Returns the figures of a floor: either measured by calling the second argument, or stored ones."""
FloorOf = Callable[[DataSet], Floor]
"""Returns the floors of a labelled set."""


def measured(name: FloorName, measure: Measure) -> FloorFigures:
    """Measure a floor, without storage."""
    return measure(True)


class Assessed(NamedTuple):
    """Figures of an encoder on one labelled set."""

    probes: Probes
    selection: Selection | None
    metrics: dict[str, float]
    """Figures of `probe.metrics`; empty if a feature is not finite."""
    floors: Floors


class Assessment(NamedTuple):
    """Evaluation of an encoder."""

    sets: dict[str, Assessed]
    """Figures by the name of the labelled set; empty without one."""
    diagnostics: Diagnostics
    """Diagnostics of the features on the run's validation images."""
    skipped: list[str]
    repaired: list[str]
    """Damaged images that were repaired while reading."""

    @property
    def first(self) -> Assessed:
        """The figures on the first set; none without a labelled set."""
        return next(iter(self.sets.values()), Assessed(Probes(), None, {}, Floors()))


def assess(
    network: nn.Module,
    config: PretrainConfig,
    data: DataSet,
    device: torch.device,
    scratch: Path,
    tick: Tick = lambda: None,
    say: Say = lambda text: None,
    floor_of: FloorOf = lambda images: measured,
    method: Method | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> Assessment:
    """Probe the frozen `network` and the floors on every set of `data.judged_on`, and diagnose its features on the
    validation images of `data`. `method` is the whole method, of which the network is a part; without it there is no
    loss on held-out images. `initial` are the given weights with which the encoder started, if it did."""
    metrics = load_metrics(config.probe.metrics)
    sets = data.judged_on
    found: dict[str, Assessed] = {}
    skipped: list[str] = []
    repaired: list[str] = []
    diagnostics = None
    for name, images in sets.items():
        of_set = f" on {name}" if len(sets) > 1 or images is not data else ""
        assessor = _Assessor(config, images, device, scratch, tick, metrics, initial)
        say(f"probing the encoder{of_set}")
        judged, val, figures = assessor.judged(encoder_embed(network, config, device))
        skipped += assessor.skipped
        repaired += assessor.repaired
        if images is data:
            diagnostics = diagnose(val.values)
        floors = assessor.floors(floor_of(images), say, of_set)
        found[name] = Assessed(judged.probes, judged.selection, figures, floors)
    if diagnostics is None:
        say("diagnosing the features on validation images")
        with scratch_folder(scratch) as folder:
            val = extract(encoder_embed(network, config, device), data.val, config, folder, tick)
        skipped += val.skipped
        repaired += val.repaired
        diagnostics = diagnose(val.values)
    extracted = data.train.labels.numel() + data.val.labels.numel()
    lidar = lidar_of(
        encoder_embed(network, config, device), config, data.val, device, min(IMAGES, extracted // VIEWS), tick
    )
    loss = None if method is None else heldout_loss(method, config, data.val, device, IMAGES, tick)
    diagnostics = diagnostics.model_copy(update={"lidar": lidar, "heldout_loss": loss})
    return Assessment(found, diagnostics, skipped, repaired)


class _Assessor:
    """Probes features of one labelled set."""

    def __init__(
        self,
        config: PretrainConfig,
        data: DataSet,
        device: torch.device,
        scratch: Path,
        tick: Tick,
        metrics: Mapping[str, ProbeMetric],
        initial: Mapping[str, Tensor] | None,
    ) -> None:
        self._config, self._data, self._device, self._scratch, self._tick = config, data, device, scratch, tick
        self._metrics, self._initial = metrics, initial
        self.skipped: list[str] = []
        """Images that could not be read in the last evaluation."""
        self.repaired: list[str] = []
        """Damaged images that were repaired in the last evaluation."""

    def judged(self, embed: Embed, probed: bool = True) -> tuple[Judged, Features, dict[str, float]]:
        """Return the accuracies (none if not `probed`), the features of validation images, and the figures of the
        metrics."""
        config, data = self._config, self._data
        with scratch_folder(self._scratch) as folder:
            train = extract(embed, data.train, config, folder, self._tick)
            val = extract(embed, data.val, config, folder, self._tick)
            self.skipped, self.repaired = train.skipped + val.skipped, train.repaired + val.repaired
            if not (train.finite() and val.finite()):
                return Judged(Probes(), None), val, {}  # the diagnostics report it; no figure is invented
            names = data.train.class_names
            seen = ProbedFeatures(train.values, train.labels, val.values, val.labels, names, self._device)
            figures = measure(self._metrics, seen, self._tick)
            if not probed:
                return Judged(Probes(), None), val, figures
            return judge(train, val, data.classes, config.probe, self._device, self._tick), val, figures

    def floors(self, floor: Floor, say: Say, of_set: str) -> Floors:
        config, device, initial = self._config, self._device, self._initial
        start = "untrained" if initial is None else "warm_start"

        def untrained(probed: bool) -> FloorFigures:
            say(f"probing the floors: the {'untrained encoder' if initial is None else 'warm start'}{of_set}")
            network = untrained_encoder(config, self._data, device, initial)
            return self._floor(encoder_embed(network, config, device), probed)

        def pixels(probed: bool) -> FloorFigures:
            say(f"probing the floors: raw pixels{of_set}")
            return self._floor(pixel_embed(config), probed)

        measures: dict[FloorName, Measure] = {"untrained": untrained, "pixels": pixels}
        found = {
            start if name == "untrained" else name: floor(name, measures[name])
            for name in config.probe.requested_floors
        }
        metrics = {name: one.metrics for name, one in found.items() if one.metrics}
        return Floors(**{name: one.probes for name, one in found.items()}, metrics=metrics)

    def _floor(self, embed: Embed, probed: bool) -> FloorFigures:
        judged, _, metrics = self.judged(embed, probed)
        return FloorFigures(judged.probes, metrics)


class OnlineFigures(NamedTuple):
    """Figures of an online probe, which runs during training. Accuracies never use validation images."""

    knn_top1: float | None
    """None for images without labels."""
    rankme: float
    feature_std: float
    lidar: float | None = None
    alpha_req: float | None = None
    heldout_loss: float | None = None
    """On validation images, without their labels."""

    @property
    def figure(self) -> float:
        """The figure by which checkpoints are compared: k-NN accuracy, or RankMe without labels."""
        return self.rankme if self.knn_top1 is None else self.knn_top1


def online_probe(
    network: nn.Module,
    config: PretrainConfig,
    data: DataSet,
    device: torch.device,
    scratch: Path,
    tick: Tick = lambda: None,
    method: Method | None = None,
) -> OnlineFigures:
    """Compute k-NN accuracy on the held-out tenth of at most `probe.online_images` training images, and the diagnostics
    of their features. For a supervised run the tenth comes from the whole training set; the run does not train on it.
    Without labels, only diagnostics are computed, on at most `probe.online_images` validation images. LiDAR uses at
    most 128 of the images, and the loss of `method` at most 128 validation images."""
    watched = data.watched
    if watched.labelled:
        source = watched.train
        with scratch_folder(scratch) as folder:
            features = _online_features(network, config, watched, device, folder, tick)
            health = diagnose(features.values)
            knn = selection_knn(features, watched.classes, config.probe, device) if features.finite() else 0.0
    else:
        source, knn = data.val, None
        some = subset(source, spread(source, min(config.probe.online_images, source.labels.numel())))
        with scratch_folder(scratch) as folder:
            health = diagnose(extract(encoder_embed(network, config, device), some, config, folder, tick).values)
    extracted = min(config.probe.online_images, source.labels.numel())
    lidar = lidar_of(
        encoder_embed(network, config, device), config, source, device, min(ONLINE_IMAGES, extracted // VIEWS), tick
    )
    loss = None if method is None else heldout_loss(method, config, data.val, device, ONLINE_IMAGES, tick)
    return OnlineFigures(knn, health.rankme, health.feature_std, lidar, health.alpha_req, loss)


def _online_features(
    network: nn.Module, config: PretrainConfig, watched: DataSet, device: torch.device, folder: Path, tick: Tick
) -> Features:
    """Return the features of at most `probe.online_images` training images, spread evenly over classes."""
    labels = watched.train.labels
    few = min(config.probe.online_images, labels.numel())
    images, chosen = watched.train, None
    if few < labels.numel():
        supervised = config.method.LEARNS_FROM_LABELS
        chosen = _some_of_both_parts(watched.train, few, config) if supervised else None
        images = subset(watched.train, stratified(labels, few) if chosen is None else chosen)
    features = extract(encoder_embed(network, config, device), images, config, folder, tick)
    if chosen is not None:
        features.groups = groups_of(watched.train)
        features.part_of = (labels, chosen[features.whole_set[1]])
    return features


def _some_of_both_parts(source: ImageSource, count: int, config: PretrainConfig) -> Tensor:
    """Return the indices (int64, ascending) of `count` images, spread evenly over classes. The held-out fraction of
    them is held out."""
    labels, probe = source.labels, config.probe
    fit, held = held_out_split(labels, probe.held_out_fraction, probe.split_seed, groups_of(source))
    of_held = min(max(round(count * probe.held_out_fraction), 1), held.numel())
    of_fit = min(count - of_held, fit.numel())
    parts = fit[stratified(labels[fit], of_fit)], held[stratified(labels[held], of_held)]
    return torch.cat(parts).sort().values
