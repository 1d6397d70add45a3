"""Exported programs give features and maps of any image size; transformers loads what is exported for it."""

import types
from pathlib import Path

import pytest
import torch
from runs import small_config

from cnnjepa.encoders import build_backbone
from cnnjepa.export.exported_encoder import ExportedEncoder
from cnnjepa.export.programs import to_onnx, to_torch_export
from cnnjepa.export.transformers_layout import to_transformers, transformers_form
from cnnjepa.warm_start.naming import as_torchvision

pytestmark = [pytest.mark.medium, pytest.mark.filterwarnings("ignore")]  # the exporters' own

RESNET = ("arch=resnet18", "stages=4", "stem=imagenet", "width=0.25", "image_size=64", "strategy=random")
SMALL = ("method.name=simclr",)
BOTTLENECK = ("arch=resnet50", *RESNET[1:])
THREE = ("arch=resnet34", "stages=3", *RESNET[2:])
CONVNEXT = ("method.name=simclr", "encoder.arch=convnext_tiny", "encoder.width=0.25", "image_size=64")
VIT = (
    "method.name=ijepa",
    "arch=vit_tiny",
    "patch_size=4",
    "encoder.blocks=2",
    "masking.min_keep=4",
    "predictor.dim=48",
)


def exported(*overrides: str) -> ExportedEncoder:
    """An encoder with random weights and random batch-norm statistics, which leave no layer without effect."""
    config = small_config(*overrides)
    network = build_backbone(config.encoder, 0, config.data.channels)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.running_mean.normal_(generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    return ExportedEncoder(Path("run"), config, None, "target", network.eval())


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "overrides", [SMALL, pytest.param(CONVNEXT, marks=pytest.mark.slow)], ids=["resnet", "convnext"]
)
def test_programs_take_images_of_any_size(overrides: tuple[str, ...], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder = exported(*overrides)
    seen = images(3, 3, 96, 160)
    with torch.no_grad():
        expected = encoder.network(seen)
    stride = encoder.config.encoder.total_stride
    assert expected.shape[2:] == (96 // stride, 160 // stride)
    to_torch_export(encoder, tmp_path)
    features, maps = torch.export.load(tmp_path / "encoder.pt2").module()(seen)
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.allclose(features, expected.mean((2, 3)), atol=1e-5)
    to_onnx(encoder, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    features, maps = (torch.from_numpy(one) for one in session.run(["features", "map"], {"images": seen.numpy()}))
    assert (maps - expected).abs().max() < 1e-5 * expected.abs().max()
    assert torch.allclose(features, expected.mean((2, 3)), atol=1e-5)


def test_the_program_of_a_transformer_is_for_its_own_size(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    encoder = exported(*VIT)
    _, loading = to_torch_export(encoder, tmp_path)
    assert "[batch, 3, 32, 32]" in loading
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    assert program(images(2, 3, 32, 32))[1].shape == (2, 192, 8, 8)
    with pytest.raises(AssertionError):
        program(images(2, 3, 64, 64))


@pytest.mark.parametrize(
    "overrides", [RESNET, BOTTLENECK, THREE, CONVNEXT], ids=["basic", "bottleneck", "three", "convnext"]
)
def test_transformers_loads_the_network_with_its_own_code(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    # AutoBackbone looks for a repository of the folder's name on the hub before it reads the folder.
    hub = types.SimpleNamespace(repo_exists=lambda name: True)
    monkeypatch.setattr("transformers.models.auto.modeling_auto.hf_api", lambda: hub, raising=False)
    monkeypatch.setattr("transformers.models.auto.auto_factory.hf_api", lambda: hub, raising=False)
    encoder = exported(*overrides)
    features, _ = to_transformers(encoder, tmp_path)
    assert encoder.compare(features, "transformers") < 1e-5
    seen = images(2, 3, 64, 96)
    with torch.no_grad():
        expected = encoder.network.stage_maps(seen)
        model, report = transformers.AutoModel.from_pretrained(str(tmp_path), output_loading_info=True)
        maps = model.eval()(seen).last_hidden_state
        stages = [f"stage{number + 1}" for number in range(len(expected))]
        backbone = transformers.AutoBackbone.from_pretrained(str(tmp_path), out_features=stages).eval()
        found = backbone(seen).feature_maps
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert (maps - expected[-1]).abs().max() < 1e-5 * maps.abs().max()
    assert [one.shape for one in found] == [one.shape for one in expected]
    if overrides != CONVNEXT:  # transformers' backbone normalises the maps of a ConvNeXt
        assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-4) for one, other in zip(found, expected, strict=True))
    processor = transformers.AutoImageProcessor.from_pretrained(str(tmp_path))
    assert processor.crop_size["height"] == 64 and list(processor.image_mean) == list(encoder.config.data.mean)


@pytest.mark.parametrize("overrides", [RESNET, BOTTLENECK, CONVNEXT], ids=["basic", "bottleneck", "convnext"])
def test_tensors_that_are_written_for_transformers_are_read_back_by_their_names(overrides: tuple[str, ...]) -> None:
    encoder = exported(*overrides)
    settings, state = transformers_form(encoder)
    read, own = as_torchvision(state), encoder.network.state_dict()
    if settings["model_type"] == "convnext":  # the norm of transformers' pooled output, without effect
        assert read.pop("classifier.0.weight").eq(1).all() and read.pop("classifier.0.bias").eq(0).all()
    assert read.keys() == own.keys()
    assert [name for name in own if not torch.equal(read[name], own[name])] == []
