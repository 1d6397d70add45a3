"""Evaluation from Python."""

from collections.abc import Sequence
from pathlib import Path

from cnnjepa.evaluation.run import Say, planned_tasks, run_tasks
from cnnjepa.references.open import open_encoder
from cnnjepa.references.preprocessing import NO_OVERRIDES, PreprocessingOverrides
from cnnjepa.schemas.evaluation import requested_tasks, usual_tasks
from cnnjepa.schemas.evaluation_result import EvaluationResult
from cnnjepa.training.distributed import pick_device
from cnnjepa.training.stopping import StopRequest


def evaluate(
    encoders: Sequence[str] | str,
    on: Sequence[str | Path] = (),
    tasks: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    *,
    root: Path = Path(),
    device: str = "auto",
    workers: int | None = None,
    overrides: PreprocessingOverrides = NO_OVERRIDES,
    say: Say = lambda text: None,
) -> list[EvaluationResult]:
    """Evaluate encoders on sets, as `cnnjepa evaluate` does, and return the results in the order of sets, encoders and
    tasks. Results that exist are read; others are computed and stored.

    `encoders` are references as on the command line (a run folder, `timm:resnet50:pretrained`, …), `on` are paths of
    sets or the word `embedded`, `tasks` are names (by default all that the labels allow and that are quick), and
    `settings` are texts such as `lowshot.draws=20` and `data.labels=labels.csv`. Raises ConfigError for what cannot be
    done, and Stopped after a signal; finished tasks are kept.
    """
    references = [encoders] if isinstance(encoders, str) else encoders
    sections = requested_tasks(
        usual_tasks() if tasks is None else tasks, [one for one in settings if not one.startswith("data.")]
    )
    opened = [open_encoder(reference, root=root, overrides=overrides) for reference in references]
    of_data = [one for one in settings if one.startswith("data.")]
    plan = planned_tasks(opened, [str(place) for place in on], sections, tasks, root, of_data)
    with StopRequest() as stop:
        return [one.result for one in run_tasks(plan, pick_device(device), stop.tick, say, workers)]
