"""Small studies, planned without opening their images, and written to their folder."""

from pathlib import Path
from typing import Any

from cnnjepa.ablations.data_facts import DataFacts, Resolver, SetSize
from cnnjepa.ablations.plan import PlannedTrial, baseline_arm, plan, requested_trials
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_files import validated
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, records_of
from cnnjepa.schemas import PretrainConfig, TrialResult
from cnnjepa.schemas.study import Study


class KnownImages(Resolver):
    """Resolves without opening any images."""

    def facts(self, config: PretrainConfig) -> DataFacts:
        return DataFacts("images", "f" * 64, True, SetSize(6000, 2000, 16))


RESOLVER = KnownImages("cpu", 1)


def study(**fields: Any) -> Study:
    return validated({"name": "s", "preset": "smoke", **fields}, "test")


def trials_of(asked: Study) -> list[PlannedTrial]:
    return plan(requested_trials(asked), RESOLVER)


def baseline_of(asked: Study) -> str:
    return baseline_arm(asked, requested_trials(asked)).label


def written(root: Path, asked: Study) -> tuple[StudyFolder, list[TrialRecord]]:
    records = records_of(trials_of(asked), baseline_of(asked), 1)
    folder = StudyFolder(root, asked.name)
    folder.refuse_other_study(asked, records, extend=False)
    folder.write(asked, records)
    return folder, records


def put_result(pool: Pool, record: TrialRecord, status: str = "finished", **fields: Any) -> None:
    folder = pool.folder(record.pretrain_hash)
    folder.path.mkdir(parents=True, exist_ok=True)
    result = {
        "pretrain_hash": record.pretrain_hash, "probe_hash": record.probe_hash, "method": "cnnjepa", "encoder": "e",
        "dataset": "images", "seed": record.seed, "status": status, **fields,
    }  # fmt: skip
    folder.write_result(TrialResult.model_validate(result))
