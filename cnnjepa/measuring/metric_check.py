"""Checks of whether a probe metric is fit for use, on random features."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F

from cnnjepa.errors import RunError
from cnnjepa.measuring.doctor import Finding
from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric, load_metrics, measure
from cnnjepa.schemas.metric import MetricSection

_CLASSES, _DIM, _TRAIN, _VAL = 4, 16, 200, 80
_PIXELS = 768  # channels of a 16x16 colour image


def examine_metric(section: MetricSection) -> Iterator[Finding]:
    """Examine a metric of `probe.metrics` on random features of four classes and yield the findings as they are made.
    Raises ConfigError if it cannot be created."""
    metrics = load_metrics([section])
    features, kept = _features(), _features()
    try:
        first = measure(metrics, features)
    except RunError as error:
        yield Finding("figures", str(error), False)
        return
    yield Finding("figures", ", ".join(f"{label} {value:.4g}" for label, value in first.items()), True)
    yield _repeats(metrics, first)
    changed = [
        part
        for part in ("train", "train_labels", "val", "val_labels")
        if not torch.equal(getattr(features, part), getattr(kept, part))
    ]
    what = f"figures changes {', '.join(changed)}; work on a copy" if changed else "as before"
    yield Finding("features are unchanged", what, not changed)
    yield _of_pixels(metrics, first)


def _of_pixels(metrics: dict[str, ProbeMetric], first: dict[str, float]) -> Finding:
    """Check that the metric can be computed for the floor of raw pixels: more channels than images, some constant."""
    features = _features()
    wide = [F.pad(part.repeat(1, _PIXELS // _DIM - 1), (0, _DIM)) for part in (features.train, features.val)]
    try:
        found = measure(metrics, features._replace(train=wide[0], val=wide[1]))
    except RunError as error:
        return Finding(
            "raw pixels", f"{error} (on {_PIXELS:,} channels; probe.floors=[untrained] leaves it out)", False
        )
    if found.keys() != first.keys():
        return Finding("raw pixels", f"other figures: {', '.join(found)}; names must not depend on features", False)
    return Finding("raw pixels", f"the figures of {_PIXELS:,} channels, some constant, are finite", True)


def figure_names(sections: Iterable[MetricSection]) -> list[str] | None:
    """Return the names of the figures of these metrics, measured on random features of four classes. None if a metric
    cannot be computed on them."""
    try:
        return list(measure(load_metrics(sections), _features()))
    except RunError:
        return None


def _features() -> ProbedFeatures:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(_CLASSES, _DIM, generator=generator)
    labels = [torch.arange(count) % _CLASSES for count in (_TRAIN, _VAL)]
    values = [means[one] + torch.randn(one.numel(), _DIM, generator=generator) for one in labels]
    names = [f"class {number}" for number in range(_CLASSES)]
    return ProbedFeatures(values[0], labels[0], values[1], labels[1], names, torch.device("cpu"))


def _repeats(metrics: dict[str, ProbeMetric], first: dict[str, float]) -> Finding:
    """Check that a call with the same features gives the same figures."""
    second = measure(metrics, _features())
    differing = [label for label in first if first[label] != second.get(label)]
    if differing:
        label = differing[0]
        why = "draw random numbers from torch's generators only, and keep no state"
        return Finding("deterministic", f"{label} is {first[label]}, then {second.get(label)}; {why}", False)
    return Finding("deterministic", "two calls give the same figures", True)
