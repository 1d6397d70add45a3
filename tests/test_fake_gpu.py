"""The forward pass of every method on tensors that claim to be on a GPU (torch's fake tensors), without one.

A tensor on the wrong device raises, and so does every operation that would wait for the GPU: fake tensors have no
values to read.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from cnnjepa.methods import Method, StepDraw, build_method, cnnjepa, ijepa, lejepa, spark
from cnnjepa.schemas import PretrainConfig, load_config

GPU = torch.device("cuda", 0)
BATCH = 8
NAMES = ["cnnjepa", "spark", "simclr", "byol", "vicreg", "lejepa", "supervised", "ijepa"]


def config_of(method: str, precision: str) -> PretrainConfig:
    transformer = ["encoder.arch=vit_tiny", "image_size=224"] if method == "ijepa" else []
    size = ["device=cpu", "runtime.batch_size=8", f"precision={precision}"]
    return load_config("smoke", overrides=[f"method.name={method}", *transformer, *size])


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """The mode in which tensors are fake. Draws on the host stay real: their values decide shapes."""
    monkeypatch.setenv("CNNJEPA_KERNELS", "off")
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    count_cells = Tensor.nonzero

    def nonzero(tensor: Tensor) -> Tensor:
        assert not isinstance(tensor, FakeTensor), "the host waits for the GPU to count cells"
        with unset_fake_temporarily():  # type: ignore[no-untyped-call]
            return count_cells(tensor)

    make = Tensor.new_tensor

    def new_tensor(tensor: Tensor, *values: Any, **named: Any) -> Tensor:
        assert not isinstance(tensor, FakeTensor), "the host waits for the GPU to take a number; use new_full"
        return make(tensor, *values, **named)

    monkeypatch.setattr(Tensor, "nonzero", nonzero)
    monkeypatch.setattr(Tensor, "new_tensor", new_tensor)
    for module, name in (
        (cnnjepa, "sample_masks"), (spark, "sample_masks"), (ijepa, "draw_context_blocks"), (lejepa, "draw_slices"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, drawn_on_the_host(getattr(module, name)))
    return FakeTensorMode(allow_non_fake_inputs=True)


def drawn_on_the_host(draw: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(draw)
    def real(*arguments: Any, **named: Any) -> Any:
        with unset_fake_temporarily():  # type: ignore[no-untyped-call]
            return draw(*arguments, **named)

    return real


def to_gpu(network: nn.Module) -> None:
    """Exchange all parameters and buffers for fake ones on the GPU, shared as they are."""
    fakes: dict[Tensor, Tensor] = {}
    for module in network.modules():
        for kept in (module._parameters, module._buffers):
            for name, value in kept.items():
                if value is None:
                    continue
                if value not in fakes:
                    fake = torch.empty_like(value, device=GPU)
                    trained = value.requires_grad
                    fakes[value] = nn.Parameter(fake, trained) if isinstance(value, nn.Parameter) else fake
                kept[name] = fakes[value]  # type: ignore[assignment]


def pass_on_fake_gpu(config: PretrainConfig, method: Method) -> Tensor:
    """Inputs, moving average and forward pass of a step; the mean loss. (The backward pass needs a driver.)"""
    with unset_fake_temporarily():  # type: ignore[no-untyped-call]
        draw = StepDraw(config.grid, torch.arange(BATCH), 0, 0)
    to_gpu(method)
    views = tuple(
        torch.empty(BATCH, 3, view.size, view.size, device=GPU).to(memory_format=torch.channels_last)
        for view in config.views
    )
    labels = torch.zeros(BATCH, dtype=torch.int64, device=GPU)
    inputs = method.inputs(views, labels, draw)
    if config.method.moving_average is not None:
        method.follow(0.99)
    terms = method.terms(*inputs)
    with torch.autocast("cuda", torch.bfloat16, enabled=config.runtime.precision == "bf16"):
        loss = method(*inputs)
    assert {scalar.device for scalar in loss.scalars.values()} <= {GPU}
    return loss.total / terms


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_pass_stays_on_the_gpu_and_never_waits_for_it(name: str, precision: str, fake_gpu: FakeTensorMode) -> None:
    config = config_of(name, precision)
    method = build_method(config).train()
    with fake_gpu:
        loss = pass_on_fake_gpu(config, method)
    assert (loss.device, loss.dtype, loss.shape, loss.requires_grad) == (GPU, torch.float32, (), True)


def test_a_loss_that_is_read_by_the_host_is_caught(fake_gpu: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("cnnjepa", "float32")
    method = build_method(config).train()
    terms = type(method).terms
    monkeypatch.setattr(type(method), "terms", lambda self, *inputs: terms(self, *inputs).item())
    with fake_gpu, pytest.raises(Exception, match=r"item|data.dependent|unbacked|_local_scalar_dense"):
        pass_on_fake_gpu(config, method)


def test_a_tensor_left_on_the_host_is_caught(fake_gpu: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("cnnjepa", "float32")
    method = build_method(config).train()
    inputs = type(method).inputs
    monkeypatch.setattr(type(method), "inputs", lambda self, *given: tuple(x.cpu() for x in inputs(self, *given)))
    with fake_gpu, pytest.raises(RuntimeError, match="device"):
        pass_on_fake_gpu(config, method)
