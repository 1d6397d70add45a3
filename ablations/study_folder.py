"""A study on disk, `studies/<name>/`: the request (`study.yaml`), its trials (`trials.json`, or `trials.jsonl` in an
archived study), logs and report."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from cnnjepa.ablations.archived_trials import FILE_NAME, read_archived_trials
from cnnjepa.ablations.plan import PlannedTrial
from cnnjepa.ablations.pool import Pool, TrialStatus
from cnnjepa.commands import command
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.base import Section
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.overrides import differences, flat
from cnnjepa.schemas.study import Study
from cnnjepa.schemas.yaml_text import read_yaml_file, write_yaml
from cnnjepa.storage.atomic_files import write_atomically

TrialKey = tuple[str, str]
"""(pretrain_hash, probe_hash), which identify a trial. Trials with the same pretrain_hash are trained once."""


class TrialRecord(Section):
    """An entry of `trials.json`: everything that a table, a status or a worker needs to know about a trial, without
    images."""

    arm: str
    """Name of the arm in tables."""
    choices: dict[str, Any]
    """Axis → value or named arm."""
    changes: dict[str, Any]
    """Full config path → value, the changes to the base config."""
    baseline: bool
    """True if the other arms are compared with this one."""
    seed: int
    """The config's `runtime.seed`."""
    pretrain_hash: str
    """Name of its folder in the pool."""
    probe_hash: str
    """Hash of the requested probe settings."""
    dataset: str
    """Name of the data set."""
    train_images: int
    """Images per epoch."""
    world_size: int = Field(ge=1)
    """Number of processes of the trial."""
    config: PretrainConfig
    """The resolved config, as the trial runs it."""

    @property
    def key(self) -> TrialKey:
        """The trial's unique key among all trials."""
        return self.pretrain_hash, self.probe_hash

    @property
    def label(self) -> str:
        """Name of the trial in messages."""
        return f"{self.arm}, seed {self.seed}"


class StudyFolder:
    """One folder below `studies/`."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.path = root / "studies" / name
        self.logs = self.path / "logs"

    @property
    def begun(self) -> bool:
        """True if the folder holds a study."""
        return (self.path / "study.yaml").is_file()

    def log(self, key: TrialKey) -> Path:
        """Return the path of the log that the trial writes while this study runs it."""
        pretrain_hash, probe_hash = key
        return self.logs / f"{pretrain_hash[:12]}-{probe_hash[:8]}.log"

    @property
    def searched(self) -> bool:
        """True if the folder holds a search."""
        return (self.path / "search.yaml").is_file()

    def refuse_search(self) -> None:
        """Raise ConfigError when the folder holds a search, in which no study can be written."""
        if self.searched:
            raise ConfigError(f"{self.path} holds a search; give this study another --name")

    def study(self) -> Study:
        """Return the study. Raises ConfigError when it is missing or damaged."""
        if self.searched:
            raise ConfigError(
                f"{self.path} holds a search, not a study; the search's own command shows its results and resumes it"
            )
        self.refuse_absent()
        try:
            return Study.model_validate(read_yaml_file(self.path / "study.yaml", "study file"))
        except (ValidationError, ConfigError) as error:
            raise ConfigError(f"{self.path / 'study.yaml'} cannot be read ({str(error).splitlines()[0]})") from None

    def refuse_absent(self) -> None:
        """Raise ConfigError, naming the existing studies, when the folder holds neither study nor search."""
        if not self.begun and not self.searched:
            raise ConfigError(f"{self.path} holds no study{self._nearest()}")

    def trials(self) -> list[TrialRecord]:
        """Return the trials, in the order in which they run. Raises ConfigError when they are missing or damaged."""
        run_here, archived = self.path / "trials.json", self.path / FILE_NAME
        path = archived if archived.is_file() and not run_here.is_file() else run_here
        try:
            trees = [line.trial for line in read_archived_trials(archived)] if path == archived else _array(run_here)
            records = [TrialRecord.model_validate(tree) for tree in trees]
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
        if not records:
            raise ConfigError(f"{path} lists no trials; run the study's command again")
        return records

    def refuse_other_study(self, study: Study, trials: list[TrialRecord], extend: bool) -> None:
        """Raise ConfigError, showing the differences, when the folder holds a search or another study. With `extend`, a
        study is accepted that contains all of the earlier one, has the same claims, and adds arms or seeds."""
        self.refuse_search()
        if not self.begun:
            return
        different = [
            f"  {name}: there {there}, requested {asked}"
            for name, there, asked in differences(_comparable(self.study()), _comparable(study))
        ]
        old, new = ({(t.arm, t.seed, t.key) for t in some} for some in (self.trials(), trials))
        if not different and old == new:
            return
        if not different:
            different = [
                f"  {label} seed {seed}: there {_name_of(old, label, seed)}, now {_name_of(new, label, seed)} (the "
                "images, the device, the number of processes, or this program's defaults have changed)"
                for label, seed, _ in sorted(new - old)[:3]
            ]
        before = self.study()
        if extend and before.claims and (before.claims, before.baseline) != (study.claims, study.baseline):
            raise ConfigError(
                f"{self.path} has claims that were written down before its results; they and the baseline stay as they "
                "are. --extend adds arms and seeds. Give this study another --name (finished trials are used again)."
            )
        if extend and study.claims and not before.claims:
            raise ConfigError(
                f"{self.path} was started without claims, and claims cannot be added afterwards. Give this study "
                "another --name (finished trials are used again)."
            )
        if old < new and extend:
            return
        more = "; --extend adds the new trials to it" if old < new else ""
        raise ConfigError(
            f"{self.path} holds another study. They differ in\n"
            + "\n".join(different)
            + f"\nGive this one another --name (finished trials are used again){more}."
        )

    def write(self, study: Study, trials: list[TrialRecord]) -> None:
        """Write the study and its trials, before anything is run."""
        self.logs.mkdir(parents=True, exist_ok=True)
        text = write_yaml(study.model_dump(mode="json"))
        records = [trial.model_dump(mode="json") for trial in trials]
        write_atomically(self.path / "trials.json", json.dumps(records, indent=1).encode())
        write_atomically(self.path / "study.yaml", text.encode())

    def _nearest(self) -> str:
        names = study_names(self.root)
        example = command("cnnjepa", "ablate", "predictor", "--depths", "1,2", root=self.root)
        known = f"; there are {', '.join(names)}" if names else f"; `{example}` makes one"
        return known + nearest(self.name, names)


def _array(path: Path) -> list[Any]:
    return list(json.loads(path.read_text(encoding="utf-8")))


def study_names(root: Path) -> list[str]:
    """Return the names of the studies below `root`, sorted."""
    return sorted(path.parent.name for path in (root / "studies").glob("*/study.yaml"))


def refuse_no_studies(root: Path) -> None:
    """Raise ConfigError when there is no study below `root`."""
    if not study_names(root):
        example = command("cnnjepa", "ablate", "predictor", "--depths", "1,2,3,4", root=root)
        raise ConfigError(f"{root / 'studies'} holds no study; `{example}` makes one")


def records_of(trials: list[PlannedTrial], baseline: str, world_size: int) -> list[TrialRecord]:
    """Return the records of planned trials; `baseline` is an arm's label."""
    return [
        TrialRecord(
            arm=trial.arm.label,
            choices=trial.arm.choices,
            changes=trial.arm.changes,
            baseline=trial.arm.label == baseline,
            seed=trial.seed,
            pretrain_hash=trial.pretrain_hash,
            probe_hash=trial.probe_hash,
            dataset=trial.data.name,
            train_images=trial.data.size.trained(trial.config),
            world_size=world_size,
            config=trial.config,
        )
        for trial in trials
    ]


def status_of(pool: Pool, trial: TrialRecord) -> TrialStatus:
    """Return the status of a study's trial."""
    return pool.status(trial.pretrain_hash, trial.probe_hash, trial.config, trial.train_images)


def _comparable(study: Study) -> dict[str, Any]:
    tree = study.model_dump(mode="json", exclude={"name", "question"})
    axes = tree.pop("axes")
    return {**flat(tree), **{f"axis {name}": values for name, values in axes.items()}}


def _name_of(some: set[tuple[str, int, TrialKey]], label: str, seed: int) -> str:
    found = next((key for arm, s, key in some if (arm, s) == (label, seed)), None)
    return f"{found[0][:12]} probed as {found[1][:8]}" if found else "(none)"
