"""Probing a run again: results are added, and what is known of the training stays with them."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.errors import RunError
from cnnjepa.export.card import model_card
from cnnjepa.export.exported_encoder import ExportedEncoder
from cnnjepa.schemas import TrialResult
from cnnjepa.training import conclude as conclusion
from cnnjepa.training import environment, pretrain
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.pretrain import pretrain as train
from cnnjepa.training.reprobe import reprobe
from cnnjepa.training.run_folder import RunFolder
from tests.runs import in_process, small_config

pytestmark = [pytest.mark.medium]

QUICK = ("floors=false", "probe.every_epochs=0", "epochs=2")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    train(small_config(*QUICK), tmp_path / "run")
    return tmp_path / "run"


def test_probing_again_adds_a_result_and_replaces_none(run: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    first = TrialResult.model_validate_json((run / "result.json").read_bytes())
    context = reprobe(run, overrides=["probe.encoder=context", "probe.protocols=[published]"])
    assert context.written == run / "results" / f"{context.result.probe_hash}.json"
    assert context.note == f"added as {context.written}; result.json stays"
    assert {p: p.read_bytes() for p in before} == before
    assert first.probes.held_out and first.probes.published and first.probed_encoder == "target"
    assert context.result.probes.held_out is None and context.result.probed_encoder == "context"
    assert context.result.probe and context.result.probe["protocols"] == ["published"]
    assert TrialResult.model_validate_json(context.written.read_bytes()) == context.result

    again = reprobe(run, overrides=["probe.encoder=context", "probe.protocols=[published]"])
    assert again.written is None and again.note.endswith(f"{context.written} has the same figures of these settings")
    third = reprobe(run, overrides=["linear_epochs=1"])
    assert {r.probe_hash for r in RunFolder(run).results()} == {
        first.probe_hash, context.result.probe_hash, third.result.probe_hash
    }  # fmt: skip
    assert {p: p.read_bytes() for p in before} == before


def test_an_added_result_keeps_who_trained_the_run_on_what_and_says_who_probed_it(run: Path) -> None:
    first = TrialResult.model_validate_json((run / "result.json").read_bytes())
    line = json.loads((run / "sessions.jsonl").read_text())
    (run / "sessions.jsonl").write_text(json.dumps({**line, "commit": "0123", "gpus": ["a GPU"], "device": "cuda:0"}))
    probed = reprobe(run, overrides=["linear_epochs=1"]).result
    assert probed.software["commit"] == probed.software["trained_at"] == "0123"
    assert (probed.software["gpus"], probed.software["device"]) == ("['a GPU']", "cuda:0")
    assert (probed.probe_software["commit"], probed.probe_software["device"]) == (first.software["commit"], "cpu")
    assert probed.cost == first.cost and first.probe_software == {}


def test_other_checkpoints_and_images_are_only_shown(run: Path) -> None:
    shown = reprobe(run, "previous.pt", ["linear_epochs=1"])
    assert shown.written is None and "previous.pt is not the run's last checkpoint" in shown.note
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    torch.save({**state, "step": 2}, run / "checkpoints" / "last.pt")
    half = reprobe(run, overrides=["linear_epochs=1"])
    assert half.written is None and "the run is not complete (step 2 of 8)" in half.note
    assert not (run / "results").exists()


def test_the_command_says_where_the_figures_are(run: Path) -> None:
    told = CliRunner().invoke(app, ["probe", str(run), "--encoder", "context"])
    assert told.exit_code == 0 and "result.json stays" in told.output and "context encoder" in told.output
    assert json.loads((run / "result.json").read_text())["probed_encoder"] == "target"


def test_a_probe_that_fails_is_recorded_and_takes_nothing_with_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run / "result.json").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise RunError("no space left")

    monkeypatch.setattr(conclusion, "assess", refuse)
    other = small_config(*QUICK, "linear_epochs=1")
    with pytest.raises(RunError, match="no space left"):
        train(other, run, resume=True)
    assert (run / "result.json").read_bytes() == before
    (failed,) = [r for r in RunFolder(run).results() if r.status == "failed"]
    assert failed.error == "no space left"
    monkeypatch.undo()
    done = train(other, run, resume=True)
    assert done.status == "finished" and (run / "result.json").read_bytes() == before
    assert RunFolder(run).read_result(done.probe_hash) == done


def test_an_exported_encoder_has_the_figures_of_its_own_probes(run: Path) -> None:
    assert "This encoder was not probed." in model_card(ExportedEncoder.of(run, "context", "last.pt"), "", "")
    context = reprobe(run, overrides=["probe.encoder=context"]).result
    assert context.probes.held_out
    for which in ("target", "context"):
        exported = ExportedEncoder.of(run, which, "last.pt")
        assert exported.result and exported.result.probed_encoder == which
    assert f"| {context.probes.held_out.linear_top1:.2f} |" in model_card(
        ExportedEncoder.of(run, "context", "last.pt"), "", ""
    )


# --- Peak memory -------------------------------------------------------------------------------------------------


class Meter:
    """A peak that rises to `now`, and that is forgotten when a measurement begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak = 0
        monkeypatch.setattr(pretrain, "peak_memory_bytes", lambda device: self.peak)
        monkeypatch.setattr(pretrain, "forget_peak_memory", lambda device: self.rise(0))
        for module, name, peak in (
            (pretrain, "train_step", 100), (pretrain, "online_probe", 5_000), (conclusion, "assess", 90_000)
        ):  # fmt: skip
            self._follow(monkeypatch, module, name, peak)

    def rise(self, peak: int) -> None:
        self.peak = max(peak, self.peak) if peak else 0

    def _follow(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str, peak: int) -> None:
        original = getattr(module, name)

        def followed(*arguments: object, **more: object) -> object:
            self.rise(peak)
            return original(*arguments, **more)

        monkeypatch.setattr(module, name, followed)


def test_peak_memory_is_of_training_without_probes_and_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Meter(monkeypatch)
    run = tmp_path / "run"
    result = train(small_config("epochs=2"), run)  # an online probe after the first epoch
    assert result.cost and result.cost.peak_memory_bytes == 100
    again = train(small_config("epochs=2", "linear_epochs=1"), run, resume=True)
    assert again.cost == result.cost
    (run / "result.json").unlink()
    found = reprobe(run, overrides=["linear_epochs=3"]).result.cost  # from the checkpoint alone
    assert found and found.peak_memory_bytes == 100
    assert 0 < found.train_seconds <= result.cost.train_seconds


def test_peak_memory_is_the_largest_of_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Meter(monkeypatch)
    run = tmp_path / "run"
    config = small_config("floors=false", "probe.every_epochs=0")

    def stop(step: int = 0) -> str | None:
        return "enough" if (run / "checkpoints" / "last.pt").is_file() else None

    with pytest.raises(pretrain.Stopped):
        train(config, run, stop_asked=stop)
    state = read_checkpoint(run / "checkpoints" / "last.pt")
    assert state["peak_memory_bytes"] == 100
    state["peak_memory_bytes"] = 7_000
    torch.save(state, run / "checkpoints" / "last.pt")
    result = train(config, run, resume=True)
    assert result.cost and result.cost.peak_memory_bytes == 7_000


def test_memory_that_an_earlier_version_did_not_write_down_is_not_known(run: Path) -> None:
    state = read_checkpoint(run / "checkpoints" / "last.pt")
    del state["peak_memory_bytes"]
    torch.save(state, run / "checkpoints" / "last.pt")
    (run / "result.json").unlink()
    found = reprobe(run).result.cost
    assert found and found.peak_memory_bytes is None and found.images_per_s > 0
    shown = CliRunner().invoke(app, ["probe", str(run), "--set", "linear_epochs=1"]).output
    assert "peak memory not known" in shown


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_the_peak_of_a_process_rises_with_what_it_holds_and_can_be_forgotten() -> None:
    assert in_process(_holds_and_frees) == 0  # freed memory of earlier tests would serve the request here


def _holds_and_frees() -> None:
    device = torch.device("cpu")
    environment.forget_peak_memory(device)
    before = environment.peak_memory_bytes(device)
    held = torch.ones(256 << 18)  # 256 MiB: other changes of the process are small next to it
    high = environment.peak_memory_bytes(device)
    assert 200 << 20 < high - before < 400 << 20
    del held
    assert environment.peak_memory_bytes(device) > high - (8 << 20)  # the system counts in batches of pages
    environment.forget_peak_memory(device)
    assert environment.peak_memory_bytes(device) < high - (150 << 20)
