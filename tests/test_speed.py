"""The speed calibration of a study leaves nothing behind in its driver."""

import os

import pytest
import torch

from cnnjepa.ablations import speed
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config


def refuse(text: str) -> None:
    raise ConfigError(text)


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")


@pytest.mark.processes
def test_work_runs_in_another_process_and_its_errors_come_back() -> None:
    assert speed.in_own_process(os.getpid) != os.getpid()
    with pytest.raises(ConfigError, match="no such class"):
        speed.in_own_process(refuse, "no such class")
    with pytest.raises(RunError, match=r"^CUDA out of memory. Tried to allocate 2.00 GiB.$"):
        speed.in_own_process(run_out_of_memory)
    with pytest.raises(RunError, match="terminated abruptly"):
        speed.in_own_process(os._exit, 1)


def test_only_a_gpu_is_measured_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    config, sent = load_config("smoke"), []

    def elsewhere(work: object, given: PretrainConfig) -> float:
        sent.append((work, given))
        return 123.0

    monkeypatch.setattr(speed, "in_own_process", elsewhere)
    monkeypatch.setattr(speed, "training_rate", lambda given, device: float(given.runtime.batch_size))
    assert speed.calibrate(config, "cuda", 1, 4) == 123.0 and sent == [(speed._rate_on_gpu, config)]
    assert speed.calibrate(config, "cpu", 1, 2) == 16.0 and len(sent) == 1  # a CPU's steps are of 16 images
