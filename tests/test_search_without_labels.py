"""A search on images without labels, on Ray."""

import csv
import json
from pathlib import Path

import pytest
from study_runs import environment, run, small
from test_unlabelled_runs import photos


@pytest.mark.processes
@pytest.mark.ray
@pytest.mark.slow
def test_a_search_for_the_lowest_held_out_loss_needs_no_labels(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", "flat", count=80)
    words = ["search", "--preset", "smoke", "--data", str(root), "--root", str(tmp_path), "--name", "s"]
    words += ["--space", "optimizer.lr=choice(1e-5, 0.01, 0.02)", "--objective", "loss", "--cpus-per-trial", "1"]
    own = ("image_size=32", "runtime.batch_size=8")
    for text in (*(one for one in small(own) if "_images" not in one), *own):
        words += ["--set", text]
    code, out = run([*words, "--trials", "3"], environment(tmp_path))
    assert code == 0, out
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "by_hash").glob("*/result.json")]
    assert results and all(result["probes"] is None for result in results)
    rows = list(csv.DictReader((tmp_path / "studies" / "s" / "trials.csv").read_text().splitlines()))
    assert len(rows) == 3 and all(row["heldout_loss epoch 1"] for row in rows)
    ended = {float(row["held-out loss"]): row["optimizer.lr"] for row in rows if row["ended"] == "finished"}
    losses = sorted(result["diagnostics"]["heldout_loss"] for result in results)
    assert sorted(ended) == pytest.approx(losses)
    best = (tmp_path / "studies" / "s" / "best.yaml").read_text()
    assert f"{min(ended):.4f}, one seed" in best
    assert f"lr: {float(ended[min(ended)])}" in best
    assert "held-out loss on validation images, without their labels" in out
