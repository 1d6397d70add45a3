"""The trials of a study: one config per arm and seed, named by its hash. Equal configs share a trial."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cnnjepa.ablations.arms import Arm, arms_of, study_changes
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.schemas.study import Study

if TYPE_CHECKING:  # it imports torch, which takes seconds; configs are checked before that
    from cnnjepa.ablations.data_facts import DataFacts, Resolver


@dataclass(frozen=True)
class PlannedTrial:
    """One arm with one seed."""

    arm: Arm
    seed: int
    config: PretrainConfig
    """The resolved config, as the trial runs it."""
    pretrain_hash: str
    probe_hash: str
    data: "DataFacts"

    @property
    def label(self) -> str:
        """Name of the trial in messages."""
        return f"{self.arm.label}, seed {self.seed}"


class RequestedTrial(NamedTuple):
    """One arm with one seed, before images and device are known."""

    arm: Arm
    seed: int
    config: PretrainConfig
    """The config as requested; `auto` is not resolved yet."""


def requested_trials(study: Study, data: Path | None = None) -> list[RequestedTrial]:
    """Return every arm with every seed; arms are the outer loop. Each arm's config is loaded once: its trials differ
    only in `runtime.seed`. Raises ConfigError naming the arm whose value the schema refuses."""
    base = study_changes(study)
    requested = []
    for arm in arms_of(study):
        try:
            changes = {**base, **arm.changes, "runtime.seed": study.seeds[0]}
            config = load_config(study.preset, data=data, changes=changes)
        except ConfigError as error:
            raise ConfigError(f"arm {arm.label}: {error}") from None
        requested += [RequestedTrial(arm, seed, _with_runtime(config, seed=seed)) for seed in study.seeds]
    return requested


def plan(requested: list[RequestedTrial], resolver: "Resolver", threads: int | None = None) -> list[PlannedTrial]:
    """Return the trials in the order in which they run: all arms of the first seed, then of the next, so that an
    interrupted study has a comparison. Arms with the same resolved config share one trial's hash. Raises ConfigError
    naming the arm that cannot run here."""
    trials = []
    for arm, seed, config in requested:
        wanted = _with_runtime(config, threads=threads) if threads else config
        try:
            resolved, identity, facts = resolver(wanted)
        except ConfigError as error:
            raise ConfigError(f"arm {arm.label}: {error}") from None
        trials.append(PlannedTrial(arm, seed, resolved, identity.pretrain_hash, identity.probe_hash, facts))
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    return sorted(trials, key=lambda trial: seeds.index(trial.seed))


def baseline_arm(study: Study, requested: list[RequestedTrial], data: Path | None = None) -> Arm:
    """Return the arm that the others are compared with; see `Study.baseline`. `requested` holds the study's trials on
    `data`. Raises ConfigError for a claim about the baseline."""
    found = _baseline_arm(study, requested, data)
    for claim in study.claims:
        if claim.arm == found.choices:
            raise ConfigError(
                f"claim {claim.says!r} is about the baseline, {found.label}; name another baseline: or arm:"
            )
    return found


def _baseline_arm(study: Study, requested: list[RequestedTrial], data: Path | None) -> Arm:
    if study.baseline is not None:
        return next(trial.arm for trial in requested if trial.arm.choices == study.baseline)
    base = load_config(study.preset, data=data, changes=study_changes(study))
    equal = (trial.arm for trial in requested if _with_runtime(trial.config, seed=base.runtime.seed) == base)
    return next(equal, requested[0].arm)


def _with_runtime(config: PretrainConfig, **settings: int) -> PretrainConfig:
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=settings)})
