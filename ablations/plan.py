"""The trials of a study: one config per arm and seed, named by its hash. Equal configs share a trial."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnjepa.ablations.arms import Arm, arms_of, study_changes
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.schemas.study import Study

if TYPE_CHECKING:  # it imports torch, which takes seconds; configs are checked before that
    from cnnjepa.ablations.data_facts import DataFacts, Resolver


@dataclass(frozen=True)
class Trial:
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


def asked_configs(study: Study, data: Path | None = None) -> list[tuple[Arm, int, PretrainConfig]]:
    """Return every arm with every seed, not yet resolved; arms are the outer loop. Raises ConfigError naming the arm
    whose value the schema refuses."""
    base = study_changes(study)
    asked = []
    for arm in arms_of(study):
        for seed in study.seeds:
            try:
                config = load_config(study.preset, data=data, changes={**base, **arm.changes, "runtime.seed": seed})
            except ConfigError as error:
                raise ConfigError(f"arm {arm.label}: {error}") from None
            asked.append((arm, seed, config))
    return asked


def plan(study: Study, resolver: "Resolver", data: Path | None = None, threads: int | None = None) -> list[Trial]:
    """Return the study's trials in the order in which they run: all arms of the first seed, then of the next, so that
    an interrupted study has a comparison. Arms with the same resolved config share one trial's hash."""
    trials = []
    for arm, seed, asked in asked_configs(study, data):
        if threads:
            asked = asked.model_copy(update={"runtime": asked.runtime.model_copy(update={"threads": threads})})
        try:
            config, identity, facts = resolver(asked)
        except ConfigError as error:
            raise ConfigError(f"arm {arm.label}: {error}") from None
        trials.append(Trial(arm, seed, config, identity.pretrain_hash, identity.probe_hash, facts))
    place: Callable[[Trial], int] = lambda trial: study.seeds.index(trial.seed)  # noqa: E731
    return sorted(trials, key=place)


def baseline_arm(study: Study, data: Path | None = None) -> Arm:
    """Return the arm that the others are compared with; see `Study.baseline`. Raises ConfigError for a claim about
    it."""
    found = _baseline_arm(study, data)
    for claim in study.claims:
        if claim.arm == found.choices:
            raise ConfigError(
                f"claim {claim.says!r} is about the baseline, {found.label}; name another baseline: or arm:"
            )
    return found


def _baseline_arm(study: Study, data: Path | None) -> Arm:
    arms = arms_of(study)
    if study.baseline is not None:
        return next(arm for arm in arms if arm.choices == study.baseline)
    base = load_config(study.preset, data=data, changes=study_changes(study))
    for arm in arms:
        if load_config(study.preset, data=data, changes={**study_changes(study), **arm.changes}) == base:
            return arm
    return arms[0]
