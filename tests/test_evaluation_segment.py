"""Task `segment`: figures against torchmetrics and definitions written out, and comparison of encoders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluated import CPU

from cnnjepa.ablations.encoder_comparison import paired
from cnnjepa.evaluation.dense import Dense, Head, enlarged, fit_heads
from cnnjepa.evaluation.overlap import class_ious, mean_iou, overlaps, resampled
from cnnjepa.evaluation.run import planned_tasks, run_tasks
from cnnjepa.evaluation.tasks.segment import LINEAR, Bank, absent_classes, cell_classes, outcome_of
from cnnjepa.references.open import open_encoder
from cnnjepa.schemas.evaluation import SegmentTask, requested_tasks

FEW = ["data.train_images=64", "data.val_images=32"]


def predicted(seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (predictions, masks with ignored pixels) of 6 images."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, classes, (6, 8, 9), generator=random)
    guesses = torch.where(torch.rand(6, 8, 9, generator=random) < 0.6, masks, (masks + 1) % classes)
    masks[torch.rand(6, 8, 9, generator=random) < 0.2] = 255
    return guesses, masks.to(torch.uint8)


def test_the_mean_iou_equals_torchmetrics() -> None:
    metrics = pytest.importorskip("torchmetrics.classification")
    guesses, masks = predicted(0)
    both, either = (part.double().numpy() for part in overlaps(guesses, masks, 5))  # class 4 does not occur
    theirs = metrics.MulticlassJaccardIndex(5, average="none", ignore_index=255)(guesses, masks.long())
    assert class_ious(both.sum(0), either.sum(0))[:4] == pytest.approx(100 * theirs[:4].numpy(), abs=1e-4)
    macro = metrics.MulticlassJaccardIndex(5, average="macro", ignore_index=255)(guesses, masks.long())
    assert mean_iou(both, either).value == pytest.approx(100 * float(macro), abs=1e-4)


def test_intersections_and_unions_are_counted_per_image() -> None:
    guesses, masks = predicted(1)
    both, either = overlaps(guesses, masks, 4)
    for image in range(6):
        judged = masks[image] != 255
        for c in range(4):
            truth, guess = (masks[image] == c) & judged, (guesses[image] == c) & judged
            assert (both[image, c], either[image, c]) == ((truth & guess).sum(), (truth | guess).sum())


def test_images_without_a_judged_pixel_are_not_drawn_for_the_interval() -> None:
    """Every eighth draw of three images would consist of them only, and have no figure."""
    both, either = torch.tensor([[3, 1], [0, 0], [2, 2]]), torch.tensor([[4, 2], [0, 0], [2, 3]])
    found = outcome_of({LINEAR: [(both, either)]}, ["a", "b"], {})
    assert found.figures[LINEAR] == mean_iou(both[[0, 2]].double().numpy(), either[[0, 2]].double().numpy())
    assert found.per_image[f"{LINEAR}, unions"].tolist() == [[4, 2], [2, 3]]


def test_the_interval_of_a_mean_iou_covers_what_other_images_give() -> None:
    """In 60 samples of 40 images each, most 95 % intervals hold the value of all images."""
    random = np.random.default_rng(0)
    size = random.integers(20, 60, (2400, 3)).astype(float)
    both = np.floor(size * random.beta(4, 2, (2400, 3)))
    whole = float(np.nanmean(class_ious(both.sum(0), size.sum(0))))
    found = [mean_iou(both[at : at + 40], size[at : at + 40]) for at in range(0, 2400, 40)]
    inside = sum(one.low <= whole <= one.high for one in found if one.low is not None and one.high is not None)
    assert 51 <= inside <= 60
    assert np.array_equal(resampled(both[:40], size[:40]), resampled(both[:40], size[:40]))


def test_maps_are_enlarged_as_by_bilinear_interpolation() -> None:
    maps = torch.randn(2, 3, 4, 5)
    theirs = F.interpolate(maps, size=(17, 20), mode="bilinear", align_corners=False)
    assert torch.allclose(enlarged(maps, (17, 20)), theirs, atol=1e-5)


def test_a_cell_has_the_class_of_most_of_its_judged_pixels() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 255], [255, 255, 2, 2], [255, 255, 0, 0]], dtype=torch.uint8)
    assert cell_classes(mask[None], 3, (2, 2)).tolist() == [[[0, 1], [255, 0]]]  # the last cell is a tie


def dense(seed: int, images: int) -> Dense:
    """Return maps of 2x2 cells in which channel c is high where the mask is of class c."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, 3, (images, 2, 2), generator=random)
    masks = cells.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    maps = F.one_hot(cells, 3).permute(0, 3, 1, 2).float() + 0.3 * torch.randn(images, 3, 2, 2, generator=random)
    return Dense([maps.flatten(1)], [(3, 2, 2)], masks, torch.arange(images))


def test_k_nn_segmentation_equals_a_search_written_out() -> None:
    train, val = dense(0, 20), dense(1, 5)
    settings = SegmentTask(temperature=0.5)
    bank = Bank.of(train, 3, settings)
    maps = val.at(torch.arange(5), CPU)[0]
    found = bank.classified(maps, torch.Size((8, 8)), 7, 0.5, lambda: None)
    rows = train.at(torch.arange(20), CPU)[0].permute(0, 2, 3, 1).reshape(-1, 3)
    labels = train.masks[:, ::4, ::4].reshape(-1).tolist()
    for image in range(5):
        shares = torch.zeros(3, 2, 2)
        for y in range(2):
            for x in range(2):
                cosine = F.cosine_similarity(rows, maps[image, :, y, x][None])
                for place in cosine.argsort(descending=True)[:7].tolist():
                    shares[labels[place], y, x] += float(torch.exp(cosine[place] / 0.5))
                shares[:, y, x] /= shares[:, y, x].sum()
        theirs = F.interpolate(shares[None], size=(8, 8), mode="bilinear", align_corners=False)[0].argmax(0)
        assert torch.equal(found[image], theirs)


def test_the_bank_is_a_seeded_part_of_the_judged_cells() -> None:
    train = dense(0, 20)
    train.masks[3] = 255
    few, again = (Bank.of(train, 3, SegmentTask(bank_cells=10)) for _ in range(2))
    assert Bank.of(train, 3, SegmentTask()).labels.numel() == 76
    assert torch.equal(few.values, again.values) and few.labels.numel() == 10
    assert not torch.equal(few.values, Bank.of(train, 3, SegmentTask(bank_cells=10, seed=1)).values)


def test_the_head_learns_what_the_maps_show_and_each_rate_is_trained_alone() -> None:
    train, val = dense(0, 60), dense(1, 30)
    settings = SegmentTask(steps=60, batch_size=16)
    rows = torch.arange(60)
    slow, fast = fit_heads(train, rows, 3, [1e-5, 0.05], settings, CPU, lambda: None)
    (alone,) = fit_heads(train, rows, 3, [0.05], settings, CPU, lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(fast.parameters, alone.parameters, strict=True))

    def right(head: Head) -> float:
        found = head.classified(val.at(torch.arange(30), CPU), (8, 8))
        return float((found[:, ::7, ::7] == val.masks[:, ::7, ::7]).float().mean())

    assert right(fast) > 0.9
    assert not torch.equal(fast.bias, slow.bias)


def test_the_task_is_done_on_embedded_images_and_encoders_are_compared_over_the_same_draws(tmp_path: Path) -> None:
    flags = ["segment.steps=20", "segment.layers=stages"]

    def evaluated(root: Path) -> list[Any]:
        encoders = [open_encoder(name, root=root) for name in ("random:smoke", "random:smoke:1")]
        plan = planned_tasks(encoders, [], requested_tasks(["segment"], flags), ["segment"], root, FEW)
        return list(run_tasks(plan, CPU))

    first, second = evaluated(tmp_path / "a")
    assert list(first.result.figures) == ["mIoU", "mIoU, k-NN"]
    assert set(first.result.details["IoU"]) == {"cloth", "polygon", "blob"}
    assert first.result.val_images == 32 and first.per_image["mIoU, unions"].shape == (32, 3)
    again = evaluated(tmp_path / "b")
    assert [one.result.lasting() for one in again] == [first.result.lasting(), second.result.lasting()]
    difference = paired(second, first, "mIoU")
    gap = second.result.figures["mIoU"].value - first.result.figures["mIoU"].value
    assert difference.mean == gap and difference.n == 32 and difference.p is not None
    assert difference.low is not None and difference.high is not None and difference.low < gap < difference.high
    draws = [
        resampled(*(one.per_image[f"mIoU, {side}"].astype(float) for side in ("intersections", "unions")))
        for one in (second, first)
    ]
    assert difference.low == pytest.approx(np.percentile(draws[0] - draws[1], 2.5))
    assert paired(first, again[0], "mIoU").verdict == "indistinguishable"


def test_a_set_of_images_and_masks_is_segmented(tmp_path: Path) -> None:
    from cnnjepa.data.examples import write_examples

    write_examples(tmp_path / "examples")
    cells = str(tmp_path / "examples" / "cells")
    sections = requested_tasks(["knn", "segment"], ["segment.steps=300"])
    (planned,) = planned_tasks([open_encoder("random:smoke")], [cells], sections, None, tmp_path)
    assert planned.settings.name == "segment"  # the images have no labels
    (done,) = run_tasks([planned], CPU)
    assert done.result.train_images == 43 and done.result.val_images == 5
    assert list(done.result.details["IoU"]) == ["class 0", "class 1", "class 2"]
    assert done.result.details["IoU"]["class 0"] > 60
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "examples" / "cells" / "masks").rename(elsewhere)
    named = requested_tasks(["segment"], ["segment.steps=300", f"segment.masks={elsewhere}"])
    (moved,) = planned_tasks([open_encoder("random:smoke")], [f"{cells}/images"], named, ["segment"], tmp_path)
    assert moved.path == planned.path  # the place of the masks is not part of the name


def test_classes_that_no_training_mask_has_are_noted() -> None:
    masks = torch.tensor([[[0, 1, 255], [1, 0, 77]]], dtype=torch.uint8)
    note = "75 of 78 classes are in no training mask: 2, 3, 4, 5, 6, …; is 77 a stray value?"
    assert absent_classes(masks, 78) == [note]
    assert absent_classes(masks, 2) == []
