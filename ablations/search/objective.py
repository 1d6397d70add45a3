"""The figure that a search optimises: its direction, its place in a result, and the figure of online probes that stands
for it while a trial trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnjepa.schemas import ConfigError, Diagnostics, PretrainConfig, TrialResult
from cnnjepa.schemas.space import METRIC, SearchSpace

Value = float | None


@dataclass(frozen=True)
class Objective:
    """A figure that a search optimises."""

    name: str
    """The name in `--objective`."""
    label: str
    """The figure in words."""
    images: str
    """The images on which it is measured."""
    final: Callable[[TrialResult], Value]
    """Returns the figure of a result."""
    online: Callable[[Mapping[str, Any]], Value]
    """Returns the figure of an online probe that stands for it, given the probe's line of metrics.jsonl."""
    online_label: str
    """The name of that figure in the table of trials."""
    digits: int = 2
    unit: str = ""
    online_unit: str = ""
    minimised: bool = False
    needs_labels: bool = False

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's direction."""
        return "minimize" if self.minimised else "maximize"

    @property
    def mode(self) -> Literal["max", "min"]:
        """Ray Tune's direction."""
        return "min" if self.minimised else "max"

    def better(self, value: float, than: float) -> bool:
        """Return whether one value is better than another."""
        return value < than if self.minimised else value > than

    def text(self, value: float, online: bool = False) -> str:
        """Return a value with its unit. `online` says that it is of an online probe."""
        return f"{value:.{self.digits}f}{self.online_unit if online else self.unit}"


def objective_of(space: SearchSpace) -> Objective:
    """Return the figure that the search optimises."""
    name = space.objective
    if name in _LABEL_FREE:
        return _LABEL_FREE[name]
    final = {"knn": _selected("knn_top1"), "linear": _selected("linear_top1")}
    label = {"knn": "k-NN top-1", "linear": "linear top-1"}
    metric = name.removeprefix(METRIC)
    return Objective(
        name,
        label.get(name, metric),
        "held-out training images" if name in final else "validation images",
        final.get(name, lambda result: _metric(result, metric)),
        lambda line: line.get("knn_top1"),
        "knn_top1",
        unit=" %" if name in final else "",
        online_unit=" %",
        needs_labels=True,
    )


def has_loss(config: PretrainConfig) -> bool:
    """Return whether runs of the config have a loss on held-out images."""
    return config.method.TRAINS and not config.method.LEARNS_FROM_LABELS


def refuse_unknown_metric(space: SearchSpace, config: PretrainConfig) -> None:
    """Raise ConfigError if the objective `metric:NAME` is a figure that no metric of `probe.metrics` has: every trial
    would end without a figure."""
    if not space.objective.startswith(METRIC):
        return
    from cnnjepa.measuring.metric_check import figure_names

    names = figure_names(config.probe.metrics)
    if names is not None and space.objective.removeprefix(METRIC) not in names:
        raise ConfigError(
            f"--objective {space.objective}: no metric of probe.metrics has this figure; must be one of "
            + ", ".join(METRIC + name for name in names)
        )


def _selected(name: str) -> Callable[[TrialResult], Value]:
    def figure(result: TrialResult) -> Value:
        selection = result.first_set.selection
        return None if selection is None else getattr(selection, name)

    return figure


def _metric(result: TrialResult, name: str) -> Value:
    """Return a figure of `probe.metrics`; with several probed sets, that of the first."""
    return result.metrics.get(name, result.metrics.get(f"{result.first_set.name}: {name}"))


def _diagnosed(figure: Callable[[Diagnostics], Value]) -> Callable[[TrialResult], Value]:
    return lambda result: figure(result.diagnostics) if result.diagnostics else None


def _distance_from_1(alpha: Value) -> Value:
    return None if alpha is None else abs(alpha - 1)


_WITHOUT_LABELS = "validation images, without their labels"
_LABEL_FREE = {
    one.name: one
    for one in (
        Objective(
            "rankme", "RankMe", _WITHOUT_LABELS, _diagnosed(lambda found: found.rankme),
            lambda line: line.get("rankme"), "rankme",
        ),
        Objective(
            "lidar", "LiDAR", _WITHOUT_LABELS, _diagnosed(lambda found: found.lidar),
            lambda line: line.get("lidar"), "lidar",
        ),
        # The paper's finding: features generalise best where the exponent is about 1.
        Objective(
            "alpha_req", "|α-ReQ − 1|", _WITHOUT_LABELS, _diagnosed(lambda found: _distance_from_1(found.alpha_req)),
            lambda line: _distance_from_1(line.get("alpha_req")), "|alpha_req - 1|", digits=3, minimised=True,
        ),
        Objective(
            "loss", "held-out loss", _WITHOUT_LABELS, _diagnosed(lambda found: found.heldout_loss),
            lambda line: line.get("heldout_loss"), "heldout_loss", digits=4, minimised=True,
        ),
    )
}  # fmt: skip
