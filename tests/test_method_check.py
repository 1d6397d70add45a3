"""`cnnjepa doctor --method`: methods with one fault each, and ours without."""

import pytest
from torch import Tensor

from cnnjepa.extend import CNNJEPA, CNNJEPAConfig, StepLoss
from cnnjepa.measuring import method_check
from cnnjepa.measuring.method_check import examine_method
from cnnjepa.schemas import load_config


class Detached(CNNJEPA):
    Config = CNNJEPAConfig

    def forward(self, images: Tensor, context: Tensor, target: Tensor) -> StepLoss:
        features = self.context_encoder(images, context).detach()
        return self.compare(features, self.target_encoder(images).detach(), context, target)


class WrongTerms(CNNJEPA):
    Config = CNNJEPAConfig

    def terms(self, *inputs: Tensor) -> Tensor:
        return inputs[0].new_tensor(float(inputs[0].shape[0]))


class Forgetful(CNNJEPA):
    """Counts its steps where no checkpoint sees it."""

    Config = CNNJEPAConfig
    count = 0

    def forward(self, images: Tensor, context: Tensor, target: Tensor) -> StepLoss:
        self.count += 1
        found = super().forward(images, context, target)
        return StepLoss(found.total * self.count, found.weight)


class Batchwise(CNNJEPA):
    """The square of a process's own sum."""

    Config = CNNJEPAConfig

    def forward(self, images: Tensor, context: Tensor, target: Tensor) -> StepLoss:
        found = super().forward(images, context, target)
        return StepLoss(found.total * found.total, found.weight)


def judged(name: str, monkeypatch: pytest.MonkeyPatch, processes: bool = False) -> dict[str, tuple[bool | None, str]]:
    if not processes:
        monkeypatch.setattr(method_check, "_two_processes", lambda config: method_check.Finding("-", ""))
    found = examine_method(load_config("smoke", overrides=[f"method.name={name}"]))
    return {finding.name: (finding.ok, finding.value) for finding in found}


@pytest.mark.processes
def test_our_method_passes_in_two_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged("cnnjepa", monkeypatch, processes=True)
    assert [ok for ok, _ in found.values()] == [None, True, True, True, True, True]
    assert "float64, gloo" in found["two processes equal one"][1]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "check", "why"),
    [
        ("Detached", "gradients reach the encoder", "45 have none (conv1.weight"),
        ("WrongTerms", "terms match the loss's weight", "terms gives 8, forward's weight is "),
        ("Forgetful", "deterministic under resume", "differ after 4 steps; is something kept outside"),
    ],
)
def test_a_fault_is_found_by_its_own_check(name: str, check: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(f"test_method_check:{name}", monkeypatch)
    assert [line for line, (ok, _) in found.items() if ok is False] == [check]
    assert why in found[check][1]


@pytest.mark.processes
def test_a_loss_over_a_process_s_own_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ok, value = judged("test_method_check:Batchwise", monkeypatch, processes=True)["two processes equal one"]
    assert ok is False and "declare COMPARES_IMAGES in the Config" in value
