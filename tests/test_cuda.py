"""Tests on a GPU of properties that hold on a CPU. Skipped without one; `make gpu-check` runs these tests first."""

import copy
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from commands import cnnjepa
from runs import assert_same_run, in_process, small_config, train_alone, train_and_die, write_images
from sparse_encoders import assert_same, lively_backbone, random_context, relative
from test_distributed import STEPS, losses, run_two, train_keeping_gradients
from torch import Tensor, nn

from cnnjepa.encoders import build_backbone
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import ConvNeXtConfig, PretrainConfig, TrialResult, load_config
from cnnjepa.sparse import ContextEncoder, MaskedEncoder, PackedEncoder
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.distributed import Processes
from cnnjepa.training.graphed_step import graphed_step

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.processes,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.fixture(autouse=True)
def _repeatable_convolutions() -> None:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False


def network(arch: str) -> nn.Module:
    """In float64, on the GPU."""
    if arch.startswith("resnet"):
        return lively_backbone(arch=arch, width=0.25).cuda()
    return build_backbone(ConvNeXtConfig(width=0.25), 0).double().cuda()


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "convnext_tiny"])
def test_packed_equals_masked_in_float64(arch: str) -> None:
    backbone = network(arch)
    images = torch.randn(3, 3, 96, 96, dtype=torch.float64, device="cuda")
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(3, 3))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "convnext_tiny"])
def test_all_visible_equals_the_dense_network_in_float64(arch: str) -> None:
    backbone = network(arch)
    images = torch.randn(3, 3, 96, 96, dtype=torch.float64, device="cuda")
    everything = torch.ones(3, 3, 3, dtype=torch.bool)
    packed = PackedEncoder(copy.deepcopy(backbone))
    assert relative(packed(images, everything), backbone(images)) < 1e-9


def outcome(encoder: ContextEncoder, images: Tensor, context: Tensor, bf16: bool) -> tuple[Tensor, Tensor]:
    """Features and the gradient of the last stage's first weight, in float64."""
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        features = encoder(images, context)
    features.double().square().mean().backward()
    gradients = [p.grad for p in encoder.parameters() if p.dim() == 4]
    assert gradients[-1] is not None
    return features.detach().double(), gradients[-1].double()


def distance(a: Tensor, b: Tensor) -> float:
    """Relative distance in the Euclidean norm."""
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-3), (True, 1.0)])
def test_the_packed_encoder_is_as_exact_as_the_masked_one(bf16: bool, tolerance: float) -> None:
    """Against float64. The fifty layers of this network amplify rounding: bf16 ends a third off in either backend."""
    backbone = lively_backbone(arch="resnet50").cuda()
    context = random_context(8, 4)
    images = torch.randn(8, 3, 128, 128, dtype=torch.float64, device="cuda")
    exact = outcome(PackedEncoder(copy.deepcopy(backbone)), images, context, False)
    errors = []
    for kind in (PackedEncoder, MaskedEncoder):
        encoder = kind(copy.deepcopy(backbone).float()).to(memory_format=torch.channels_last)
        found = outcome(encoder, images.float(), context, bf16)
        errors.append([distance(a, b) for a, b in zip(found, exact, strict=True)])
    for packed, masked in zip(*errors, strict=True):
        assert packed < tolerance and packed < 1.5 * masked, errors


def test_graphs_give_the_gradients_of_the_pass_that_they_captured() -> None:
    """The first step with a number of cells runs without a graph: the same bits."""
    config = load_config("in100", overrides=["arch=resnet18", "image_size=96", "strategy=random", "device=cuda",
                                             "runtime.batch_size=8", "cuda_graphs=true"])  # fmt: skip
    method = build_method(config).cuda().train().to(memory_format=torch.channels_last)
    graphed = graphed_step(method, config, Processes(0, 1, torch.device("cuda", 0)))
    assert graphed is not None
    images = torch.randn(8, 3, 96, 96, device="cuda").to(memory_format=torch.channels_last)
    for step in (0, 1):  # two draws of masks
        inputs = method.inputs((images,), torch.zeros(8), StepDraw(config.grid, torch.arange(8), 0, step))
        found = []
        for _ in range(3):  # without a graph, captured, replayed
            loss = graphed(inputs, method.terms(*inputs))
            found.append([loss, *[p.grad.clone() for p in method.parameters() if p.grad is not None]])
        for again in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))
    assert graphed.captured >= 1


def test_a_graphed_run_killed_and_resumed_ends_the_same(tmp_path: Path) -> None:
    config = small_config("device=cuda", "precision=bf16", "cuda_graphs=true")
    assert in_process(train_alone, config, tmp_path / "undisturbed") == 0
    assert in_process(train_and_die, config, tmp_path / "run", 30, None) == -signal.SIGKILL
    assert in_process(train_alone, config, tmp_path / "run", True) == 0
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_killed_and_resumed_ends_the_same(precision: str, tmp_path: Path) -> None:
    config = small_config("device=cuda", f"precision={precision}")
    assert in_process(train_alone, config, tmp_path / "undisturbed") == 0
    for moment in (30, 75):
        run = tmp_path / f"killed-{moment}"
        assert in_process(train_and_die, config, run, moment, None) == -signal.SIGKILL
        assert in_process(train_alone, config, run, True) == 0
        assert_same_run(run, tmp_path / "undisturbed")


def test_the_result_says_the_gpu_and_its_memory(tmp_path: Path) -> None:
    assert in_process(train_alone, small_config("device=cuda", "epochs=2"), tmp_path / "run") == 0
    result = TrialResult.model_validate_json((tmp_path / "run" / "result.json").read_bytes())
    assert result.cost is not None and result.cost.peak_memory_bytes and result.cost.gpu_hours > 0
    assert torch.cuda.get_device_name() in str(result.software["gpus"])


def test_a_loader_of_files_feeds_the_gpu(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    runs = []
    for workers in (0, 2):
        config = small_config("device=cuda", "resident=never", f"workers={workers}", data=tmp_path / "images")
        runs.append(tmp_path / f"workers-{workers}")
        assert in_process(train_alone, config, runs[-1]) == 0
    assert_same_run(runs[1], runs[0])


def train_sharing(config: PretrainConfig, run: Path, rank: int, world_size: int, port: int) -> None:
    os.environ["CNNJEPA_SHARE_GPUS"] = "1"
    train_keeping_gradients(config, run, rank, world_size, port)


def test_two_processes_on_one_gpu_equal_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    config = small_config(*STEPS, "runtime.batch_size=32", "accumulation=2", "device=cuda")
    assert in_process(train_keeping_gradients, config, one, 0, 1, 0) == 0
    run_two(small_config(*STEPS, "runtime.batch_size=16", "device=cuda"), two, train_sharing)
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    weights = [read_checkpoint(run / "checkpoints" / "last.pt")["method"] for run in (two, one)]
    for name, value in weights[1].items():
        if "running" not in name and "num_batches" not in name:  # per process, as documented
            torch.testing.assert_close(weights[0][name], value, atol=1e-4, rtol=0)


def train_with_little_memory(config: PretrainConfig, run: Path) -> None:
    from cnnjepa.errors import RunError

    torch.cuda.set_per_process_memory_fraction(0.002)
    with pytest.raises(RunError, match=r"the GPU ran out of memory.*lower runtime.batch_size"):
        train_alone(config, run)


def test_too_little_memory_is_a_recorded_failure(tmp_path: Path) -> None:
    config = small_config("device=cuda", "runtime.batch_size=64", "encoder.width=4")
    assert in_process(train_with_little_memory, config, tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed" and "the GPU ran out of memory" in result["error"]


def test_two_trials_share_a_gpu(tmp_path: Path) -> None:
    done = cnnjepa(
        "ablate", "predictor", "--depths", "1,2", "--preset", "smoke", "--executor", "local", "--gpus-per-trial",
        "0.5", "--cpus-per-trial", "2", "--set", "train_images=64", "--set", "val_images=48", "--set", "epochs=2",
        "--set", "runtime.batch_size=16", "--root", str(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(file.read_text()) for file in tmp_path.rglob("by_hash/*/result.json")]
    assert [result["status"] for result in results] == ["finished", "finished"]
    assert {result["software"]["device"] for result in results} == {"cuda:0"}
