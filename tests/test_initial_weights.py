"""Weights from torchvision, timm, transformers and files fit our networks by name, and say what does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_encoders import SMALL, weights
from torch import Tensor, nn

from cnnjepa.encoders import build_backbone, load_into
from cnnjepa.schemas import ConfigError, ConvNeXtConfig, EncoderConfig, ViTConfig, load_config
from cnnjepa.warm_start.initial_weights import load_initial_weights
from cnnjepa.warm_start.matching import adapted, fingerprint, fitted


def fit(given: dict[str, Tensor], encoder: Any = SMALL, channels: int = 3, which: str = "auto") -> Any:
    return fitted(given, build_backbone(encoder, 0, channels), channels, "encoder.init=X", which)


def features(network: nn.Module, size: int = 32, channels: int = 3) -> Tensor:
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return network.eval()(images)


def loaded(given: dict[str, Tensor], encoder: Any) -> nn.Module:
    network = build_backbone(encoder, 0)
    load_into(network, fit(given, encoder).state)
    return network


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_first_layer_is_adapted_to_other_channels_as_timm_does(channels: int) -> None:
    manipulate = pytest.importorskip("timm.models._manipulate")
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(adapted(weight, channels, "X"), manipulate.adapt_input_conv(channels, weight), atol=1e-6)


def test_an_adapted_first_layer_gives_equal_channels_the_same_output() -> None:
    weight = torch.randn(4, 1, 3, 3)
    grey = torch.rand(2, 1, 8, 8)
    expected = nn.functional.conv2d(grey, weight)
    found = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), adapted(weight, 3, "X"))
    assert torch.allclose(found, expected, atol=1e-5)


def test_channels_other_than_rgb_are_not_dropped() -> None:
    given = weights(channels=13)
    assert fit(given, channels=1).state["conv1.weight"].shape[1] == 1
    with pytest.raises(ConfigError, match=r"first layer is for 13 channels and data.channels is 4"):
        fit(given, channels=4)


def test_the_adaptation_is_said_and_does_not_change_the_fingerprint() -> None:
    three, four = fit(weights()), fit(weights(), channels=4)
    assert three.notes == []
    assert four.notes == [
        "the first layer conv1.weight is adapted from 3 to 4 channels (weights repeated and scaled by 3/4)"
    ]
    assert three.fingerprint == four.fingerprint


def test_the_fingerprint_is_that_of_the_tensors_not_of_their_order_or_counters() -> None:
    given = weights()
    again = dict(reversed(given.items())) | {"bn1.num_batches_tracked": torch.tensor(7)}
    assert fit(again).fingerprint == fit(given).fingerprint == fingerprint(given)
    changed = {**given, "conv1.weight": given["conv1.weight"] + 1e-3}
    assert fit(changed).fingerprint != fit(given).fingerprint


def test_names_with_a_prefix_and_a_classifier_are_matched_and_the_rest_is_named() -> None:
    given = {f"module.{name}": value for name, value in weights().items()}
    given |= {"module.fc.weight": torch.zeros(2, 2), "projector.0.weight": torch.zeros(1)}
    found = fit(given)
    assert found.fingerprint == fit(weights()).fingerprint
    assert found.notes == ["left out: projector (1 tensors)", "left out: fc (1 tensors)"]


def test_of_two_encoders_in_a_file_one_must_be_chosen() -> None:
    both = {f"target_encoder.{n}": v for n, v in weights(1).items()}
    both |= {f"context_encoder.network.{n}": v for n, v in weights(2).items()}
    with pytest.raises(ConfigError, match=r"2 encoders, context_encoder.network, target_encoder; choose one with"):
        fit(both)
    assert fit(both, which="target").fingerprint == fit(weights(1)).fingerprint
    assert fit(both, which="context").fingerprint == fit(weights(2)).fingerprint


def test_tensors_that_do_not_fit_are_listed_with_their_shapes() -> None:
    given = weights()
    del given["layer1.0.conv1.weight"]
    given |= {"bn1.weight": torch.ones(9), "layer1.7.conv1.weight": torch.ones(2, 2)}
    with pytest.raises(ConfigError) as refusal:
        fit(given)
    assert str(refusal.value).splitlines()[:4] == [
        "encoder.init=X does not fit this encoder:",
        "  missing: layer1.0.conv1.weight [8, 8, 3, 3]",
        "  unexpected: layer1.7.conv1.weight [2, 2]",
        "  of another shape: bn1.weight [9] where the encoder has [8]",
    ]


def test_weights_that_are_not_finite_are_refused() -> None:
    given = weights()
    given["bn1.bias"] = torch.full((8,), float("nan"))
    with pytest.raises(ConfigError, match=r"values of bn1.bias are not finite"):
        fit(given)


def test_half_precision_is_converted_and_said() -> None:
    found = fit({name: value.half() for name, value in weights().items()})
    assert found.notes == ["converted to float32 from float16"]
    assert {value.dtype for value in found.state.values()} == {torch.float32}


def test_timm_s_convnext_gives_the_same_features_here() -> None:
    convnext = pytest.importorskip("timm.models.convnext")
    theirs = convnext.ConvNeXt(depths=(3, 3, 9, 3), dims=(8, 16, 32, 64), num_classes=5, ls_init_value=0.5)
    ours = loaded(dict(theirs.state_dict()), ConvNeXtConfig(width=1 / 12))
    found = features(ours, 64)
    expected = features(nn.Sequential(theirs.stem, theirs.stages), 64)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def as_transformers_names(name: str) -> str:
    """The name of a ResNet's tensor in transformers."""
    part, _, rest = name.partition(".")
    if not part.startswith("layer"):
        layer = {"conv1": "convolution", "bn1": "normalization"}[part]
        return f"resnet.embedder.embedder.{layer}.{rest}"
    block, kind, *leaf = rest.split(".")
    at = f"resnet.encoder.stages.{int(part[-1]) - 1}.layers.{block}"
    if kind == "downsample":
        return f"{at}.shortcut.{'convolution' if leaf[0] == '0' else 'normalization'}.{leaf[1]}"
    return f"{at}.layer.{int(kind[-1]) - 1}.{'convolution' if kind[:-1] == 'conv' else 'normalization'}.{leaf[0]}"


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_resnet_of_transformers_gives_the_same_features_here(arch: Any) -> None:
    encoder = EncoderConfig(arch=arch, stem="half", width=0.125)
    given = weights(3, encoder)
    theirs = {as_transformers_names(name): value for name, value in given.items()}
    theirs["classifier.1.weight"] = torch.zeros(3, 3)
    plain = build_backbone(encoder, 0)
    plain.load_state_dict(given, strict=False)
    assert torch.equal(features(loaded(theirs, encoder)), features(plain))


def as_transformers_convnext(name: str, value: Tensor) -> tuple[str, Tensor]:
    """The name and the value of a ConvNeXt's tensor in transformers (`ConvNextModel` in its documentation)."""
    _, place, block, *leaf = name.split(".")
    if place == "0":
        return f"convnext.embeddings.{'patch_embeddings' if block == '0' else 'layernorm'}.{leaf[0]}", value
    stage, layers = divmod(int(place) - 1, 2)
    if layers:  # between two stages
        return f"convnext.encoder.stages.{stage + 1}.downsampling_layer.{block}.{leaf[0]}", value
    at = f"convnext.encoder.stages.{stage}.layers.{block}"
    if leaf[0] == "layer_scale":
        return f"{at}.layer_scale_parameter", value.flatten()
    kinds = {"0": "dwconv", "2": "layernorm", "3": "pwconv1", "5": "pwconv2"}
    return f"{at}.{kinds[leaf[1]]}.{leaf[2]}", value


def test_a_folder_of_transformers_with_a_convnext_gives_the_same_features_here(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    encoder = ConvNeXtConfig(width=1 / 12)
    plain = build_backbone(encoder, 3)
    state = {name: value for name, value in plain.state_dict().items() if name.startswith("features.")}
    theirs = dict(as_transformers_convnext(name, value.clone()) for name, value in state.items())
    assert len(theirs) == len(state)
    dim = theirs["convnext.encoder.stages.3.layers.0.dwconv.bias"].numel()
    extra = {"convnext.layernorm.weight": torch.ones(dim), "convnext.layernorm.bias": torch.zeros(dim),
             "classifier.weight": torch.zeros(5, dim), "classifier.bias": torch.zeros(5)}  # fmt: skip
    safetensors.save_file({**theirs, **extra}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "convnext"}')
    asked = load_config(
        "smoke",
        overrides=["encoder.arch=convnext_tiny", f"encoder.width={1 / 12}", f"encoder.init=hf:{tmp_path}",
                   "image_size=256"],
    )  # fmt: skip
    found = load_initial_weights(asked)
    network = build_backbone(asked.encoder, 0)
    load_into(network, found.state)
    assert torch.equal(features(network, 64), features(plain, 64))


def test_a_transformer_keeps_its_fixed_positions_and_refuses_learned_ones() -> None:
    pytest.importorskip("timm")
    from cnnjepa.encoders.vit import positions

    encoder = ViTConfig(arch="vit_tiny", patch_size=8, blocks=1)
    given = weights(1, encoder)
    codes = positions(4, 192, next(iter(given.values())))[None]
    assert fit({**given, "pos_embed": codes}, encoder).notes == ["left out: pos_embed (1 tensors)"]
    with pytest.raises(ConfigError, match=r"unexpected: pos_embed \[1, 16, 192\]"):
        fit({**given, "pos_embed": codes + 0.1}, encoder)


def test_a_user_s_network_starts_from_its_own_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_with_weights.py").write_text(
        "import torch\nclass Net(torch.nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.BatchNorm2d(8))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    named = ["arch=custom", "module=net_with_weights:Net", "total_stride=4", "encoder.init=net.pt"]
    config = load_config("smoke", overrides=named)
    state = {"0.weight": torch.rand(8, 3, 4, 4), "0.bias": torch.rand(8)}
    state |= {f"1.{name}": torch.rand(8) for name in ("weight", "bias", "running_mean", "running_var")}
    torch.save(state, "net.pt")
    found = load_initial_weights(config)
    network = build_backbone(config.encoder, 0)
    load_into(network, found.state)
    assert all(torch.equal(network.state_dict()[f"body.{name}"], value) for name, value in state.items())
