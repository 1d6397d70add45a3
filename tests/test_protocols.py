"""The two protocols: published, and held out."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probe_features import CPU, brute_force, clouds
from runs import small_config
from scipy.stats import binomtest

from cnnjepa.probes import knn, linear
from cnnjepa.probes.evaluate import held_out_split, judge, selection_knn
from cnnjepa.probes.features import Features
from cnnjepa.probes.interval import wilson
from cnnjepa.probes.linear import linear_curve
from cnnjepa.schemas import ConfigError, ProbeConfig
from cnnjepa.training.pretrain import pretrain


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=80),
    fraction=st.sampled_from([0.1, 0.25, 0.4]),
    seed=st.integers(0, 100),
)
def test_the_held_out_split_is_stratified_disjoint_complete_and_seeded(
    labels: list[int], fraction: float, seed: int
) -> None:
    fit, held = held_out_split(torch.tensor(labels), fraction, seed)
    assert sorted(fit.tolist() + held.tolist()) == list(range(len(labels)))
    assert fit.tolist() == sorted(fit.tolist()) and held.tolist() == sorted(held.tolist())
    taken = Counter(labels[i] for i in held.tolist())
    for label, count in Counter(labels).items():
        assert taken[label] == (max(1, round(count * fraction)) if count > 1 else 0)
    again = held_out_split(torch.tensor(labels), fraction, seed)
    assert torch.equal(fit, again[0]) and torch.equal(held, again[1])


def test_seeds_hold_out_other_images_and_every_image_as_often() -> None:
    labels = torch.arange(4).repeat(25)
    times = torch.zeros(100)
    for seed in range(200):
        times[held_out_split(labels, 0.2, seed)[1]] += 1
    assert times.sum() == 200 * 20
    assert (times / 200 - 0.2).abs().max() < 5 * math.sqrt(0.2 * 0.8 / 200)


def probe_config(**settings: Any) -> ProbeConfig:
    return ProbeConfig(
        **{
            "linear_epochs": 6,
            "linear_batch_size": 32,
            "held_out_lrs": (1e-3, 0.03),
            "held_out_ks": (3, 10, 40),
            "knn_k": 20,
            **settings,
        }
    )


def test_published_takes_the_best_epoch_and_the_published_k() -> None:
    train, val = clouds(400), clouds(100, seed=1)
    config = probe_config(linear_lr=0.3, linear_epochs=12)
    judged = judge(train, val, 8, config, CPU)
    published = judged.probes.published
    assert published is not None
    curve = linear_curve(train, val, 8, [0.3], 12, 32, CPU).accuracies
    assert published.linear_top1 == max(row[0][0] for row in curve)
    assert published.linear_top5 == max(row[0][1] for row in curve)
    assert published.linear_top1 > curve[-1][0][0]  # the last is not the best here, so that the choice shows
    assert (published.knn_top1, published.knn_top5) == pytest.approx(brute_force(train, val, 8, 20, 0.1))


def test_published_uses_at_most_a_tenth_of_the_images_as_neighbours() -> None:
    train, val = clouds(100), clouds(60, seed=1)
    published = judge(train, val, 8, probe_config(knn_k=200), CPU).probes.published
    assert published is not None
    assert (published.knn_top1, published.knn_top5) == pytest.approx(brute_force(train, val, 8, 10, 0.1))


@pytest.mark.parametrize("protocol", ["published", "held_out"])
def test_only_the_protocols_asked_for_are_run(protocol: str) -> None:
    judged = judge(clouds(100), clouds(60, seed=1), 8, probe_config(protocols=(protocol,)), CPU)
    assert (judged.probes.published is None) == (protocol == "held_out")
    assert (judged.probes.held_out is None) == (judged.selection is None) == (protocol == "published")


def test_held_out_chooses_on_the_tenth_and_refits_on_everything() -> None:
    train, val = clouds(400), clouds(2000, seed=1)  # many, so that other weights give another figure
    config = probe_config()
    judged = judge(train, val, 8, config, CPU)
    figures, selection = judged.probes.held_out, judged.selection
    assert figures is not None and selection is not None
    fit_index, held_index = held_out_split(train.labels, 0.1, 0)
    fit, held = train.take(fit_index), train.take(held_index)

    curve = linear_curve(fit, held, 8, config.held_out_lrs, 6, 32, CPU).accuracies
    best = max(top1 for row in curve for top1, _ in row)
    assert selection.linear_top1 == best
    rate = config.held_out_lrs.index(selection.linear_lr)
    assert curve[selection.linear_epoch - 1][rate][0] == best
    refit = linear_curve(train, val, 8, [selection.linear_lr], selection.linear_epoch, 32, CPU)
    assert (figures.linear_top1, figures.linear_top5) == refit.accuracies[-1][0]
    on_the_rest = linear_curve(fit, val, 8, [selection.linear_lr], selection.linear_epoch, 32, CPU)
    assert refit.accuracies[-1] != on_the_rest.accuracies[-1]

    on_held = {k: brute_force(fit, held, 8, k, 0.1)[0] for k in (3, 10, 36)}  # 36 = a tenth of the 360 fitted on
    assert selection.knn_top1 == pytest.approx(max(on_held.values()))
    assert selection.knn_k == min(k for k in on_held if on_held[k] == pytest.approx(selection.knn_top1))
    expected = brute_force(train, val, 8, selection.knn_k, 0.1)
    assert (figures.knn_top1, figures.knn_top5) == pytest.approx(expected)
    assert selection_knn(train, 8, config, CPU) == selection.knn_top1


def test_held_out_touches_the_validation_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = clouds(400), clouds(100, seed=1)
    linear_uses, knn_uses = [], []
    linear_judge, knn_vote = linear._judge, knn.knn_hits

    def counting_judge(judging: Features, *rest: Any) -> Any:
        linear_uses.append(judging is val)
        return linear_judge(judging, *rest)

    def counting_vote(bank: Features, queries: Features, classes: int, ks: Any, *rest: Any) -> Any:
        knn_uses.extend([queries is val] * len(ks))
        return knn_vote(bank, queries, classes, ks, *rest)

    monkeypatch.setattr(linear, "_judge", counting_judge)
    monkeypatch.setattr(knn, "knn_hits", counting_vote)
    judge(train, val, 8, probe_config(protocols=("held_out",)), CPU)
    assert linear_uses == [False] * 6 + [True]
    assert knn_uses == [False] * 3 + [True]


def test_the_choice_does_not_depend_on_the_validation_set() -> None:
    train, config = clouds(400), probe_config(protocols=("held_out",))
    val, other = clouds(100, seed=1), clouds(30, seed=2)
    shuffled = Features(val.values, val.labels.flip(0))
    selections = [judge(train, one, 8, config, CPU).selection for one in (val, other, shuffled)]
    assert selections[0] == selections[1] == selections[2]


@pytest.mark.parametrize("images", [50, 1000, 50_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.31, 0.5, 0.98, 1.0])
def test_the_interval_is_wilsons(images: int, share: float) -> None:
    hits = round(share * images)
    exact = binomtest(hits, images).proportion_ci(0.95, method="wilson")
    low, high = wilson(100 * hits / images, images)
    assert (low, high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=1e-4)


@pytest.mark.medium
def test_one_training_image_of_every_class_is_refused_before_training(tmp_path: Path) -> None:
    few = ("train_images=16", "val_images=16", "runtime.batch_size=16", "probe.every_epochs=0")
    with pytest.raises(ConfigError, match=r"synthetic-32: there is one training image of every class"):
        pretrain(small_config(*few), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    result = pretrain(
        small_config(*few, "probe.protocols=[published]", "epochs=1", "warmup_epochs=0", "floors=false"),
        tmp_path / "other",
    )
    assert result.status == "finished"
