"""Checks of whether a probe metric is fit for use, on random features."""

from collections.abc import Iterable, Iterator

import torch

from cnnjepa.errors import RunError
from cnnjepa.measuring.doctor import Finding
from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric, load_metrics, measure

_CLASSES, _DIM, _TRAIN, _VAL = 4, 16, 200, 80


def examine_metric(name: str) -> Iterator[Finding]:
    """Examine a metric of `probe.metrics` on random features of four classes and yield the findings as they are made.
    Raises ConfigError if there is no such metric."""
    metrics = load_metrics([name])
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


def figure_names(names: Iterable[str]) -> list[str] | None:
    """Return the names of the figures of these metrics, measured on random features of four classes. None if a metric
    cannot be computed on them."""
    try:
        return list(measure(load_metrics(names), _features()))
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
