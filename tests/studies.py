"""Studies on disk with constructed results, so that the statistics of a report are known beforehand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cnnjepa.ablations.data_facts import DataFacts, SetSize
from cnnjepa.ablations.plan import PlannedTrial, baseline_arm, requested_trials
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import StudyFolder, records_of
from cnnjepa.schemas import Cost, Diagnostics, Floors, PretrainConfig, ProbeFigures, Probes, Selection, TrialResult
from cnnjepa.schemas.study import Study
from cnnjepa.storage.atomic_files import write_atomically
from cnnjepa.training.resolve import identify, resolve
from cnnjepa.training.run_folder import config_yaml

VAL_IMAGES = 2000
Outcome = Callable[[str, int], tuple[float, float] | None]
"""(arm's label, seed) → (linear, k-NN) top-1 in percent; None leaves the trial without a result."""


def figures(linear: float, knn: float) -> ProbeFigures:
    """Top-5 follows from top-1, so that a test can distinguish them."""
    return ProbeFigures(
        linear_top1=linear, linear_top5=min(100.0, linear + 10), knn_top1=knn, knn_top5=min(100.0, knn + 10)
    )


def result_of(trial: PlannedTrial, linear: float, knn: float, **more: Any) -> TrialResult:
    """A finished trial: held_out as given, published a point higher."""
    floor = Probes(published=figures(5.0, 6.0), held_out=figures(4.0, 5.0))
    values = {
        "pretrain_hash": trial.pretrain_hash, "probe_hash": trial.probe_hash, "method": "cnnjepa",
        "encoder": "resnet18/small/3 stages/x0.125", "dataset": trial.data.name, "seed": trial.seed,
        "status": "finished", "epochs": trial.config.runtime.epochs, "final_loss": 0.5, "train_images": 640,
        "val_images": VAL_IMAGES, "probed_encoder": "target",
        "probes": Probes(published=figures(linear + 1, knn + 1), held_out=figures(linear, knn)),
        "selection": Selection(linear_top1=linear, linear_lr=0.01, linear_epoch=3, knn_top1=knn, knn_k=20),
        "floors": Floors(untrained=floor, pixels=floor),
        "diagnostics": Diagnostics(rankme=11.5, feature_std=0.4, feature_dim=32),
        "cost": Cost(
            encoder_params=44_040, predictor_params=2_912, flops_per_image=3.45e7, train_seconds=100.0 + trial.seed,
            gpu_hours=0.0, images_per_s=700.0, peak_memory_bytes=2**30,
        ),
        "software": {"commit": "0123456789abcdef", "device": "cpu", "cpu": "a test's", "threads": "1"},
        "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:10:00+00:00",
    }  # fmt: skip
    return TrialResult(**{**values, **more})


def planned(
    study: Study, dataset: Callable[[PretrainConfig], str] = lambda config: "synthetic-32"
) -> list[PlannedTrial]:
    """The study's trials without opening any images."""
    trials = []
    for arm, seed, config in requested_trials(study):
        facts = DataFacts(dataset(config), "a fingerprint", True, SetSize(640, VAL_IMAGES, 16))
        resolved = resolve(config, True, torch.device("cpu"))
        identity = identify(resolved, facts.fingerprint, 1)
        trials.append(PlannedTrial(arm, seed, resolved, identity.pretrain_hash, identity.probe_hash, facts))
    return trials


def write_study(
    root: Path, study: Study, outcome: Outcome, trials: list[PlannedTrial] | None = None
) -> list[PlannedTrial]:
    """The study's folder and the pool's runs, as `ablate` leaves them; gives the trials."""
    trials = planned(study) if trials is None else trials
    baseline = baseline_arm(study, requested_trials(study)).label
    StudyFolder(root, study.name).write(study, records_of(trials, baseline, 1))
    for trial in trials:
        found = outcome(trial.arm.label, trial.seed)
        if found is not None:
            write_run(root, trial, result_of(trial, *found))
    return trials


def write_run(root: Path, trial: PlannedTrial, result: TrialResult | None) -> Path:
    """A run folder with config, logs and result; without one, a run that was stopped half-way."""
    run = Pool(root).folder(trial.pretrain_hash).path
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(config_yaml(trial.config))
    (run / "environment.json").write_text(json.dumps({"commit": "0123456789abcdef", "device": "cpu", "torch": "2"}))
    done = trial.config.runtime.epochs if result else 1
    lines = [
        {"kind": "train", "step": 10 * n, "epoch": n * done / 20, "loss": 1 / n, "lr": 0.01, "ema": 0.99,
         "images_per_s": 700.0, "seconds": float(n)}
        for n in range(1, 21)
    ]  # fmt: skip
    lines.append({"kind": "probe", "step": 200, "epoch": done, "knn_top1": 12.5, "rankme": 10.5, "feature_std": 0.4})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result:
        write_atomically(run / "result.json", result.model_dump_json().encode())
    return run
