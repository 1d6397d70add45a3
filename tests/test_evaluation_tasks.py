"""Tasks on frozen features: figures against scikit-learn and against definitions written out."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluated import CPU, clusters, subject_of

from cnnjepa.errors import RunError
from cnnjepa.evaluation.logistic import fit_path
from cnnjepa.evaluation.task import task_of
from cnnjepa.evaluation.tasks.lowshot import drawn
from cnnjepa.probes.features import Features
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.evaluation import KnnTask, LinearTask, LowShotTask, RetrieveTask

CLASSES = 6


def nothing() -> None:
    """Take no notice."""


@pytest.mark.parametrize(("rows", "dim"), [(40, 64), (300, 16)])
@pytest.mark.parametrize("c", [0.1, 10.0, 1000.0])
def test_logistic_regression_finds_the_minimum_that_scikit_learn_finds(rows: int, dim: int, c: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    few, val = clusters(rows, CLASSES, dim, 0), clusters(500, CLASSES, dim, 1)
    x = F.normalize(few.values.double(), dim=1)
    theirs = linear_model.LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x.numpy(), few.labels.numpy())
    (ours,) = fit_path(x, few.labels, CLASSES, [c])

    def objective(weight: torch.Tensor, bias: torch.Tensor) -> float:
        loss = F.cross_entropy(x @ weight.T + bias, few.labels, reduction="sum")
        return float(c * loss + 0.5 * weight.square().sum())

    reached = objective(ours.weight, ours.bias)
    wanted = objective(torch.from_numpy(theirs.coef_), torch.from_numpy(theirs.intercept_))
    assert reached <= wanted * (1 + 1e-5)
    y = F.normalize(val.values.double(), dim=1)
    agree = ours.scores(y).argmax(1).numpy() == theirs.predict(y.numpy())
    assert agree.mean() >= 0.998


def test_a_path_of_penalties_gives_the_solutions_of_each_alone_in_the_asked_order() -> None:
    few = clusters(60, CLASSES, 100, 0)
    together = fit_path(few.values, few.labels, CLASSES, [10.0, 0.1, 1.0])
    for c, found in zip([10.0, 0.1, 1.0], together, strict=True):
        (alone,) = fit_path(few.values, few.labels, CLASSES, [c])
        assert torch.allclose(found.weight, alone.weight, atol=1e-3)


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    few = clusters(60, CLASSES, 16, 0)
    monkeypatch.setattr("cnnjepa.evaluation.logistic._MOST_STEPS", 2)
    with pytest.raises(RunError, match=r"logistic regression with C 100 has not converged in 2 steps"):
        fit_path(few.values, few.labels, CLASSES, [100.0])


def test_low_shot_is_the_mean_over_draws_of_scikit_learns_accuracy(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, val = clusters(600, CLASSES, 32, 0, 2.0), clusters(900, CLASSES, 32, 1, 2.0)
    settings = LowShotTask(shots=(1, 5), shares=(0.1,), draws=4, cs=(10.0,), c_single=10.0)
    found = task_of(settings).evaluate(subject_of(train, val, CLASSES, tmp_path), nothing)
    assert list(found.figures) == ["1 per class", "5 per class", "10 % of labels"]
    for name, count in (("1 per class", 1), ("5 per class", 5), ("10 % of labels", 10)):
        accuracies = []
        for draw in range(4):
            rows = drawn(train.labels, torch.full((CLASSES,), count), 0, draw)
            assert torch.bincount(train.labels[rows]).tolist() == [count] * CLASSES
            x = F.normalize(train.values[rows].double(), dim=1).numpy()
            model = linear_model.LogisticRegression(C=10.0, tol=1e-8, max_iter=5000).fit(x, train.labels[rows])
            y = F.normalize(val.values.double(), dim=1).numpy()
            accuracies.append(100 * float(model.score(y, val.labels.numpy())))
        figure = found.figures[name]
        assert figure.draws == pytest.approx(accuracies, abs=0.2)
        assert figure.value == pytest.approx(np.mean(accuracies), abs=0.2)
        half = 3.182446 * np.std(figure.draws, ddof=1) / 2  # Student's t at 3 degrees of freedom; sqrt(4) draws
        assert figure.low is not None and figure.value - figure.low == pytest.approx(half, rel=1e-5)


def test_low_shot_chooses_c_inside_the_labelled_images(tmp_path: Path) -> None:
    """In few channels with much noise, a weak penalty (a large C) fits the noise."""
    subject = subject_of(clusters(600, CLASSES, 8, 0), clusters(600, CLASSES, 8, 1), CLASSES, tmp_path)

    def accuracy(*cs: float) -> tuple[float, dict[str, float]]:
        settings = LowShotTask(shots=(10,), shares=(), draws=3, cs=cs)
        found = task_of(settings).evaluate(subject, nothing)
        return found.figures["10 per class"].value, found.chosen

    strong, _ = accuracy(0.01)
    weak, _ = accuracy(100_000.0)
    assert strong > weak + 5
    assert accuracy(100_000.0, 0.01) == (strong, {"c, 10 per class": 0.01})


def test_draws_are_the_same_for_all_encoders_and_larger_ones_contain_smaller_ones() -> None:
    labels = torch.arange(200) % 4
    five, one = (drawn(labels, torch.full((4,), count), 3, 7) for count in (5, 1))
    assert set(one.tolist()) < set(five.tolist())
    assert five.tolist() == drawn(labels, torch.full((4,), 5), 3, 7).tolist()
    assert five.tolist() != drawn(labels, torch.full((4,), 5), 3, 8).tolist()


def test_low_shot_leaves_out_what_the_set_is_too_small_for_and_refuses_it_if_asked(tmp_path: Path) -> None:
    train, val = clusters(48, CLASSES, 8, 0), clusters(60, CLASSES, 8, 1)
    subject = subject_of(train, val, CLASSES, tmp_path)
    found = task_of(LowShotTask(draws=2)).evaluate(subject, nothing)
    assert list(found.figures) == ["1 per class", "5 per class"]
    assert found.notes == [
        "left out: lowshot.shots=10, but the smallest class has 8 training images",
        "left out: lowshot.shares=0.01, but that is 0 images for 6 classes",
        "left out: lowshot.shares=0.1, but that is 5 images for 6 classes",
    ]
    with pytest.raises(ConfigError, match=r"drawn is too small for lowshot\.shots=10, but the smallest class has 8"):
        task_of(LowShotTask(shots=(1, 10), draws=2)).evaluate(subject, nothing)
    absent = Features(train.values[train.labels != 2], train.labels[train.labels != 2])
    with pytest.raises(ConfigError, match=r"no training image of 1 of 6 classes \(class 2\)"):
        task_of(LowShotTask(draws=2)).evaluate(subject_of(absent, val, CLASSES, tmp_path), nothing)


def test_retrieval_equals_the_definition_written_out(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    val = clusters(80, CLASSES, 12, 1, 2.0)
    found = task_of(RetrieveTask()).evaluate(subject_of(val, val, CLASSES, tmp_path), nothing)
    unit = F.normalize(val.values, dim=1)
    precision, recall = [], {1: [], 5: [], 10: []}  # type: ignore[var-annotated]
    for query in range(80):
        others = [row for row in range(80) if row != query]
        cosines = (unit[others] @ unit[query]).numpy()
        same = (val.labels[others] == val.labels[query]).numpy()
        precision.append(100 * metrics.average_precision_score(same, cosines))
        for k, hits in recall.items():
            hits.append(100.0 * bool(same[np.argsort(-cosines)[:k]].any()))
    assert found.figures["mAP"].value == pytest.approx(np.mean(precision), abs=1e-4)
    for k, hits in recall.items():
        assert found.figures[f"recall at {k}"].value == pytest.approx(np.mean(hits))
        assert found.per_image[f"recall at {k}"].tolist() == hits


def test_near_duplicates_are_counted_and_the_most_similar_listed(tmp_path: Path) -> None:
    val = clusters(60, CLASSES, 12, 1)
    val.values[17] = 2 * val.values[5]  # the same direction
    val.values[40] = val.values[5] + 0.02
    found = task_of(RetrieveTask(duplicate_similarity=0.999, most_duplicates=2)).evaluate(
        subject_of(val, val, CLASSES, tmp_path), nothing
    )
    listed = found.details["near_duplicates"]
    assert (listed[0]["first"], listed[0]["second"]) == ("val/5.png", "val/17.png")
    assert len(listed) == 2
    assert found.notes == ["3 pairs of validation images have a cosine similarity of at least 0.999"]


def test_retrieval_leaves_out_queries_without_another_image_of_their_class(tmp_path: Path) -> None:
    val = clusters(31, 30, 8, 1)  # classes 1 to 29 have one image each
    found = task_of(RetrieveTask(recall_at=(1,))).evaluate(subject_of(val, val, 30, tmp_path), nothing)
    assert found.notes[0] == "29 images are no queries: they are alone in their class"
    assert len(found.per_image["mAP"]) == 2
    alone = clusters(30, 30, 8, 1)
    with pytest.raises(ConfigError, match="no class of drawn has two validation images"):
        task_of(RetrieveTask()).evaluate(subject_of(alone, alone, 30, tmp_path), nothing)


@pytest.mark.parametrize("protocol", ["held_out", "published"])
def test_linear_and_knn_tasks_give_the_figures_of_a_runs_probes(tmp_path: Path, protocol: str) -> None:
    from cnnjepa.probes.evaluate import judge
    from cnnjepa.schemas import ProbeConfig

    train, val = clusters(300, CLASSES, 16, 0, 2.0), clusters(200, CLASSES, 16, 1, 2.0)
    probe = ProbeConfig(linear_epochs=5, linear_batch_size=64, protocols=(protocol,))  # type: ignore[arg-type]
    figures = getattr(judge(train, val, CLASSES, probe, CPU).probes, protocol)
    subject = subject_of(train, val, CLASSES, tmp_path)
    linear = task_of(LinearTask(epochs=5, batch_size=64, protocol=protocol)).evaluate(subject, nothing)  # type: ignore[arg-type]
    knn = task_of(KnnTask(protocol=protocol)).evaluate(subject, nothing)  # type: ignore[arg-type]
    assert linear.figures["top1"].value == figures.linear_top1
    assert linear.figures["top5"].value == figures.linear_top5
    assert knn.figures["top1"].value == figures.knn_top1
    assert knn.figures["top5"].value == figures.knn_top5
    assert linear.per_image["top1"].mean() == pytest.approx(figures.linear_top1, abs=1e-4)


def test_k_nn_votes_are_scikit_learns(tmp_path: Path) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, val = clusters(300, CLASSES, 16, 0, 2.0), clusters(200, CLASSES, 16, 1, 2.0)
    found = task_of(KnnTask(protocol="published", k=20)).evaluate(subject_of(train, val, CLASSES, tmp_path), nothing)
    unit = [F.normalize(f.values.double(), dim=1).numpy() for f in (train, val)]

    def votes(distance: np.ndarray) -> np.ndarray:
        return np.exp((1 - distance) / 0.1)

    theirs = neighbors.KNeighborsClassifier(20, weights=votes, metric="cosine").fit(unit[0], train.labels.numpy())
    assert found.figures["top1"].value == pytest.approx(100 * theirs.score(unit[1], val.labels.numpy()))
