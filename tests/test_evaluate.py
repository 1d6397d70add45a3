"""`cnnjepa evaluate`: plan, stored results, comparison of encoders, and what is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluated import CPU
from scipy import stats
from torchvision.io import write_png
from typer.testing import CliRunner

from cnnjepa.ablations.encoder_comparison import set_tables
from cnnjepa.cli.app import app
from cnnjepa.errors import ImageError, RunError, Stopped
from cnnjepa.evaluation import run, sets
from cnnjepa.evaluation.run import Evaluated, planned_tasks, run_tasks
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.references.open import open_encoder
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.evaluation import requested_tasks
from cnnjepa.schemas.evaluation_result import EvaluationFigure

FEW = ["data.train_images=96", "data.val_images=64"]
QUICK = ["linear.epochs=3", "linear.batch_size=32", "lowshot.shots=[1]", "lowshot.shares=[]", "lowshot.draws=3"]


@pytest.fixture(autouse=True, scope="module")
def _drawn_once() -> Iterator[None]:
    """The embedded images are drawn once for this file."""
    seen: dict[str, Any] = {}

    def opened(section: Any, on: str | None) -> Any:
        key = section.model_dump_json()
        if key not in seen:
            seen[key] = sets.opened(section, on)
        return seen[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "opened", opened)
        yield


def evaluated(
    root: Path, *references: str, tasks: list[str] | None = None, on: list[str] | None = None, **more: Any
) -> list[Evaluated]:
    """Evaluate encoders on few embedded images."""
    names = tasks or ["linear", "knn", "lowshot", "retrieve"]
    flags = [flag for flag in QUICK if flag.partition(".")[0] in names]
    sections = requested_tasks(names, flags)
    encoders = [open_encoder(reference, root=root) for reference in references]
    plan = planned_tasks(encoders, on or [], sections, tasks, root, [] if on else FEW)
    return list(run_tasks(plan, CPU, **more))


def test_results_lie_beside_the_run_and_are_not_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = evaluated(tmp_path, "random:smoke")
    files = sorted(path.name for path in (tmp_path / "encoders").glob("*/evaluations/*"))
    assert [name.rpartition("-")[0] for name in files if name.endswith(".json")] == [
        "knn-synthetic-32", "linear-synthetic-32", "lowshot-synthetic-32", "retrieve-synthetic-32",
    ]  # fmt: skip
    stored = json.loads(done[0].planned.path.read_text())
    assert stored["task"] == "linear" and stored["figures"]["top1"]["value"] == done[0].result.figures["top1"].value
    assert stored["train_images"] == 96 and stored["val_images"] == 64 and stored["settings"]["epochs"] == 3
    with monkeypatch.context() as patched:
        patched.setattr(Subject, "pooled", lambda *given: pytest.fail("features were extracted again"))
        again = evaluated(tmp_path, "random:smoke")
    assert [one.result for one in again] == [one.result for one in done]
    assert np.array_equal(again[0].per_image["top1"], done[0].per_image["top1"])
    other = evaluated(tmp_path, "random:smoke", tasks=["knn"])  # the same task: nothing is added
    assert other[0].result == done[1].result
    assert files == sorted(path.name for path in (tmp_path / "encoders").glob("*/evaluations/*"))


def test_a_stopped_evaluation_keeps_what_is_done_and_the_rest_gives_the_same_figures(tmp_path: Path) -> None:
    whole = evaluated(tmp_path / "whole", "random:smoke")
    ticks = iter(range(10**6))

    def stop_in_low_shot() -> None:
        if list((tmp_path / "cut").glob("encoders/*/evaluations/knn-*.json")) and next(ticks) > 2:
            raise Stopped("a test")

    with pytest.raises(Stopped):
        evaluated(tmp_path / "cut", "random:smoke", tick=stop_in_low_shot)
    left = sorted(path.name.partition("-")[0] for path in (tmp_path / "cut").glob("encoders/*/evaluations/*.json"))
    assert left == ["knn", "linear"]
    assert not list((tmp_path / "cut").glob("encoders/*/evaluations/features-*"))
    rest = evaluated(tmp_path / "cut", "random:smoke")
    assert [one.result.lasting() for one in rest] == [one.result.lasting() for one in whole]


def test_features_are_extracted_once_for_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    extracted = Subject.extracted

    def counted(self: Subject, source: Any, embed: Any) -> Any:
        seen.append(source.labels.numel())
        return extracted(self, source, embed)

    monkeypatch.setattr(Subject, "extracted", counted)
    evaluated(tmp_path, "random:smoke")
    assert sorted(seen) == [64, 96]


def test_a_damaged_result_is_named_and_not_replaced(tmp_path: Path) -> None:
    (done,) = evaluated(tmp_path, "random:smoke", tasks=["knn"])
    done.planned.path.write_text("{")
    with pytest.raises(RunError, match=r"knn-synthetic-32-\w+\.json cannot be read .*; remove it to evaluate again"):
        evaluated(tmp_path, "random:smoke", tasks=["knn"])


def test_encoders_are_compared_over_the_same_images_and_draws(tmp_path: Path) -> None:
    done = evaluated(tmp_path, "random:smoke", "random:smoke:1")
    (table,) = set_tables(done)
    assert table.encoders == ("random:smoke", "random:smoke:1")
    by_name = {(row.task, row.name): row for row in table.rows}
    first, second = (one for one in done if one.result.task == "linear")
    gap = second.per_image["top1"].astype(float) - first.per_image["top1"].astype(float)
    cell = by_name["linear", "top1"].cells[1]
    assert cell and cell.difference and by_name["linear", "top1"].cells[0].difference is None  # type: ignore[union-attr]
    half = stats.t.ppf(0.975, 63) * gap.std(ddof=1) / 8
    assert cell.difference.mean == pytest.approx(gap.mean(), abs=1e-4)
    assert cell.difference.low == pytest.approx(gap.mean() - half, abs=1e-4)
    draws = by_name["lowshot", "1 per class"].cells[1]
    assert draws and draws.difference and draws.difference.n == 3
    compared = [c.difference for row in table.rows for c in row.cells if c and c.difference]
    assert all(one.p_holm is None or one.p is None or one.p_holm >= one.p for one in compared)


def test_an_untrained_encoder_is_calibrated_on_the_training_images(tmp_path: Path) -> None:
    encoder = open_encoder("random:smoke")
    (planned,) = planned_tasks([encoder], [], requested_tasks(["knn"]), None, tmp_path, FEW)
    subject = Subject(encoder, planned.images, planned.section, CPU, tmp_path)
    norm = next(m for m in subject.frozen.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.running_mean is not None and norm.running_mean.abs().max() > 0
    assert encoder.untrained


class OwnTask(Task):
    """A task of one's own: the norm of the features."""

    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        tick()
        norm = float(subject.pooled("val").values.norm(dim=1).mean())
        return Outcome({"norm": EvaluationFigure(value=norm, unit="")})


def test_a_task_of_ones_own_is_run_and_stored_as_ours(tmp_path: Path) -> None:
    (done,) = evaluated(tmp_path, "random:smoke", tasks=[f"{__name__}:OwnTask"])
    assert done.result.task == f"{__name__}:OwnTask" and done.result.main == "norm"
    assert done.planned.path.name.startswith("OwnTask-synthetic-32-")
    (again,) = evaluated(tmp_path, "random:smoke", tasks=[f"{__name__}:OwnTask"])
    assert again.result == done.result


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(8):
        write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(flat / f"{number}.png"))
    encoder = open_encoder("random:smoke")

    def refusal(*names: str, on: list[str], asked: bool = True) -> str:
        few = FEW if "embedded" in on else []
        with pytest.raises(ConfigError) as refused:
            planned_tasks([encoder], on, requested_tasks(names), list(names) if asked else None, tmp_path, few)
        return str(refused.value)

    assert refusal("knn", on=[str(flat)]).startswith(f"task knn needs labels, and there are none for --on {flat} (")
    assert "none of the tasks linear, knn can be done on images without labels" in refusal(
        "linear", "knn", on=[str(flat)], asked=False
    )
    assert refusal("knn", on=["embedded", "embedded"]) == "--on names the same images twice; give every set once"
    with pytest.raises(ConfigError, match="random:smoke and random:smoke:0 are the same encoder"):
        planned_tasks([encoder, open_encoder("random:smoke:0")], [], requested_tasks(["knn"]), None, tmp_path, FEW)


def test_a_part_of_a_set_and_other_groups_have_results_of_their_own(image_folder: Path, tmp_path: Path) -> None:
    encoder, knn = open_encoder("random:smoke"), requested_tasks(["knn"])

    def result_of(*flags: str) -> tuple[Path, str]:
        (planned,) = planned_tasks([encoder], [str(image_folder)], knn, ["knn"], tmp_path, flags)
        return planned.path, sets.identity_of(planned.section, planned.images)

    table = ["path,label,who"]
    for file in sorted(image_folder.rglob("*.*")):
        table.append(f"{file.relative_to(image_folder)},{file.parent.name},{file.parent.parent.name} {file.stem}")
    (tmp_path / "labels.csv").write_text("\n".join(table))
    labels = f"data.labels={tmp_path / 'labels.csv'}"
    whole, *parts = [
        result_of(labels, *flags)
        for flags in ((), ("data.train_images=6",), ("data.val_images=6",), ("data.groups=who",))
    ]
    assert len({path for path, _ in (whole, *parts)}) == 4
    assert len({identity for _, identity in (whole, *parts)}) == 4


@pytest.mark.parametrize("on", ["embedded", None])
def test_the_encoder_decides_how_its_images_are_normalised(on: str | None, tmp_path: Path) -> None:
    encoder = open_encoder("random:smoke")
    for flag in ("data.mean=[0,0,0]", "data.image_size=64"):
        with pytest.raises(ConfigError, match=r"--set data\.\w+: it does not apply here"):
            planned_tasks([encoder], [on] if on else [], requested_tasks(["knn"]), None, tmp_path, [flag])


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        (["lowshto"], [], "--tasks lowshto: no such task; must be one of linear, knn, "),
        (["knn", "knn"], [], "--tasks names knn twice"),
        (["knn"], ["lowshot.draws=3"], "--set lowshot.draws=3: must be TASK.FIELD=VALUE, where TASK is one of knn"),
        (["knn"], ["knn.kk=3"], "knn.kk: no such field; must be one of held_out_fraction, "),
        (["lowshot"], ["lowshot.draws=1"], "lowshot.draws: 1: must be greater than or equal to 2"),
        (["lowshot"], ["lowshot.draws=ten"], "lowshot.draws: 'ten' is text; write a whole number"),
        (["lowshot"], ["lowshot.shots=[]", "lowshot.shares=[]"], "lowshot"),
        (["knn"], ["knn.k=3", "knn.k=4"], "--set knn.k is given twice; give it once"),
    ],
)
def test_wrong_settings_of_tasks_are_named(names: list[str], flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        requested_tasks(names, flags)
    assert str(refused.value).startswith(message)


def test_the_command_prints_intervals_and_differences(tmp_path: Path) -> None:
    flags = [part for flag in [*FEW, *QUICK[2:]] for part in ("--set", flag)]
    words = [
        "evaluate",
        "random:smoke",
        "random:smoke:1",
        "--tasks",
        "lowshot,retrieve",
        "--root",
        str(tmp_path),
        *flags,
    ]
    planned = CliRunner().invoke(app, [*words, "--plan"])
    assert planned.exit_code == 0 and planned.output.count("to do") == 4
    found = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
    assert found.exit_code == 0, found.output
    assert "synthetic-32, 16 classes, 96 + 64 images" in found.output
    assert "lowshot, 1 per class" in found.output and "retrieve, recall at 10" in found.output
    assert all(len(line) <= 80 for line in found.output.splitlines() if not line.startswith("Files:"))
    assert CliRunner().invoke(app, [*words, "--plan"]).output.count("done") == 4


def test_images_that_do_not_fit_the_encoder_are_refused_with_what_it_takes(tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / "tiles" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", np.zeros((4, 32, 32), np.uint8))
    with pytest.raises(ImageError, match="cannot be decoded") as refused:
        evaluated(tmp_path, "random:smoke", tasks=["knn"], on=[str(tmp_path / "tiles")])
    assert refused.value.__notes__ == [
        "random:smoke takes images with 3 channels of uint8; other images need another encoder"
    ]
