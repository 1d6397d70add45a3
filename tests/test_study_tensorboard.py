"""The TensorBoard logs of a study."""

from pathlib import Path

from study_plans import put_result, study, written

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import status_of
from cnnjepa.schemas import ProbeFigures, Probes


def test_tensorboard_follows_every_trial_under_its_arms_name(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from cnnjepa.ablations.study_tensorboard import StudyTensorBoard

    folder, records = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    pool = Pool(tmp_path)
    run = pool.folder(records[0].pretrain_hash).path
    run.mkdir(parents=True)
    line = '{{"kind": "train", "step": {step}, "epoch": 1.0, "loss": {loss}, "images_per_s": 10}}\n'
    (run / "metrics.jsonl").write_text(line.format(step=1, loss=0.5) + line.format(step=2, loss=0.25) + '{"ki')
    board = StudyTensorBoard(folder, pool, records)
    statuses = {record.key: status_of(pool, record) for record in records}
    board.update(statuses)
    again = run / "metrics.jsonl.tmp"  # cut back by a resume, and since grown beyond what was read
    again.write_text(
        line.format(step=1, loss=0.5) + line.format(step=2, loss=0.123456789) + line.format(step=3, loss=1)
    )
    again.replace(run / "metrics.jsonl")
    board.update(statuses)
    (run / "metrics.jsonl").write_text(line.format(step=1, loss=0.75))
    board.update(statuses)
    put_result(pool, records[0], probes=Probes(held_out=ProbeFigures(knn_top1=40.0)).model_dump())
    board.update({record.key: status_of(pool, record) for record in records})
    board.close()
    (shown,) = (folder.path / "tensorboard").iterdir()
    assert shown.name == "depth=1, seed 0"
    events = EventAccumulator(str(shown))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 0.75)]
    assert [e.value for e in events.Scalars("probe/knn_top1")] == [40.0]
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"predictor.depth" in hparams and b"seed" in hparams
