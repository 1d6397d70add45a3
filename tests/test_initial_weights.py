"""Weights from torchvision, timm, transformers and files fit our networks by name, and say what does not."""

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnjepa.encoders import build_backbone, load_into
from cnnjepa.schemas import ConfigError, ConvNeXtConfig, EncoderConfig, PretrainConfig, ViTConfig, load_config
from cnnjepa.warm_start.initial_weights import load_initial_weights
from cnnjepa.warm_start.location import located
from cnnjepa.warm_start.matching import adapted, fingerprint, fitted

SMALL = EncoderConfig(arch="resnet18", stem="small", stages=3, width=0.125)


def weights(seed: int = 1, encoder: Any = SMALL, channels: int = 3) -> dict[str, Tensor]:
    """Tensors of an encoder whose batch norms have statistics of their own."""
    state = dict(build_backbone(encoder, seed, channels).state_dict())
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) if "running" in name else value
        for name, value in state.items()
        if "num_batches" not in name
    }


def fit(given: dict[str, Tensor], encoder: Any = SMALL, channels: int = 3, which: str = "auto") -> Any:
    return fitted(given, build_backbone(encoder, 0, channels), channels, "encoder.init=X", which)


def small(*overrides: str) -> PretrainConfig:
    """The preset `smoke` with an encoder of 20,000 parameters."""
    return load_config("smoke", overrides=["stem=small", "stages=3", "width=0.125", *overrides])


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


def test_a_transformer_keeps_its_fixed_positions_and_refuses_learned_ones() -> None:
    pytest.importorskip("timm")
    from cnnjepa.encoders.vit import positions

    encoder = ViTConfig(arch="vit_tiny", patch_size=8, blocks=1)
    given = weights(1, encoder)
    codes = positions(4, 192, next(iter(given.values())))[None]
    assert fit({**given, "pos_embed": codes}, encoder).notes == ["left out: pos_embed (1 tensors)"]
    with pytest.raises(ConfigError, match=r"unexpected: pos_embed \[1, 16, 192\]"):
        fit({**given, "pos_embed": codes + 0.1}, encoder)


def test_imagenet_weights_are_read_where_torchvision_stores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*given: Any, **settings: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = load_config(
        "smoke",
        overrides=["method.name=simclr", "stem=imagenet", "stages=4", "width=1", "image_size=64", "init=imagenet"],
    )
    place = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    with pytest.raises(ConfigError, match=f"cannot be downloaded .*no route.*; put torchvision's file at {place},"):
        load_initial_weights(config)
    import torchvision

    stock = torchvision.models.resnet18()
    place.parent.mkdir(exist_ok=True)
    torch.save(stock.state_dict(), place)
    found = load_initial_weights(config)
    assert found.described.source == "torchvision's resnet18-f37072fd.pth"
    assert found.described.notes == ("left out: fc (2 tensors)",)
    assert torch.equal(found.state["layer4.1.conv2.weight"], stock.layer4[1].conv2.weight)
    three_stages = load_initial_weights(
        load_config(
            "smoke",
            overrides=["method.name=simclr", "stem=imagenet", "stages=3", "width=1", "image_size=64", "init=imagenet"],
        )
    )
    assert "left out: layer4 (25 tensors)" in three_stages.described.notes


def test_imagenet_weights_of_a_network_that_torchvision_does_not_have_are_refused() -> None:
    pytest.importorskip("timm")
    config = load_config("smoke", overrides=["encoder.arch=vit_tiny", "patch_size=8", "method.name=simclr"])
    config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"init": "imagenet"})})
    with pytest.raises(ConfigError, match=r"torchvision has no weights for encoder.arch=vit_tiny"):
        load_initial_weights(config)


def timm_config(name: str) -> PretrainConfig:
    return load_config(
        "smoke",
        overrides=["method.name=simclr", "stem=imagenet", "stages=4", "width=1", "image_size=64", f"init=timm:{name}"],
    )


def test_timm_s_weights_are_read_where_the_hub_stores_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    safetensors = pytest.importorskip("safetensors.torch")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    with pytest.raises(ConfigError, match=f"its files belong in {folder}; .*`hf download timm/resnet18.a1_in1k`"):
        load_initial_weights(timm_config("resnet18"))
    model = timm.create_model("resnet18")
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123", encoding="utf-8")
    safetensors.save_file(model.state_dict(), snapshot / "model.safetensors")
    found = load_initial_weights(timm_config("resnet18.a1_in1k"))
    assert found.described.source == "timm's resnet18.a1_in1k"
    assert torch.equal(found.state["conv1.weight"], model.conv1.weight)


def test_names_that_timm_does_not_have_are_refused_with_those_it_has() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="no model of this name; nearest is"):
        load_initial_weights(timm_config("resnet118"))
    with pytest.raises(ConfigError, match=r"no such weights; must be one of resnet18.a1_in1k"):
        load_initial_weights(timm_config("resnet18.other"))


def test_a_file_of_either_kind_gives_the_same_weights(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    given = weights()
    torch.save({"epoch": 3, "state_dict": given}, tmp_path / "a.pt")
    safetensors.save_file(given, tmp_path / "b.safetensors")
    one, two = (load_initial_weights(small(f"encoder.init={tmp_path / name}")) for name in ("a.pt", "b.safetensors"))
    assert one.described.fingerprint == two.described.fingerprint == fingerprint(given)
    assert all(torch.equal(one.state[name], given[name]) for name in given)
    assert one.described.source == "file a.pt"


@pytest.mark.parametrize(
    ("content", "reason"), [({"epoch": 3}, "holds no tensors by name"), (Path, "cannot be read"), (None, "cannot be")]
)
def test_a_file_without_a_state_dict_is_refused(content: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"text") if content is None else torch.save(content, path)
    with pytest.raises(ConfigError, match=f"encoder.init={path} {reason}"):
        load_initial_weights(small(f"encoder.init={path}"))


def test_weights_for_images_normalised_otherwise_are_a_warning(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(weights(), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    found = load_initial_weights(small(f"encoder.init=hf:{tmp_path}", "data.mean=imagenet", "data.std=imagenet"))
    assert found.warnings == (
        "encoder.init: the weights are for images with mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25]; this run "
        "normalises with mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225] (data.mean, data.std)",
    )
    same = load_initial_weights(small(f"encoder.init=hf:{tmp_path}", "data.mean=[.5,.5,.5]", "data.std=[.25,.25,.25]"))
    assert same.warnings == ()


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it has no weights; must be one of model.safetensors, encoder.safetensors"):
        load_initial_weights(small(f"encoder.init=hf:{tmp_path}"))


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


def test_names_that_are_nothing_here_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, reason in {
        "imgenet": "does not exist, and it is no hash of a run; .*nearest is 'imagenet'",
        "abcd": "no run in runs/by_hash has a hash that begins with abcd",
        "hf:nowhere": "the folder nowhere does not exist",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            located(small(f"encoder.init={text}").encoder)
    (tmp_path / "images").mkdir()
    with pytest.raises(ConfigError, match=r"images is not a run folder.*write encoder.init=hf:images"):
        located(small("encoder.init=images").encoder)


def test_a_hash_is_looked_up_by_its_unambiguous_beginning(tmp_path: Path) -> None:
    pool = tmp_path / "runs" / "by_hash"
    names = ("ab12" + "0" * 60, "ab13" + "0" * 60)
    for name in names:
        (pool / name).mkdir(parents=True)
        (pool / name / "config.yaml").touch()
    assert located(EncoderConfig(init="ab12"), tmp_path) == str((pool / names[0]).resolve())
    with pytest.raises(ConfigError, match=r"no run in|nearest|does not exist"):
        located(EncoderConfig(init="ab1"), tmp_path)
    (pool / f"ab12{'1' * 60}").mkdir()
    (pool / f"ab12{'1' * 60}" / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"2 runs in .* begins with ab12: ab1200000000…, ab1211111111…; write more"):
        located(EncoderConfig(init="ab12"), tmp_path)


def test_paths_are_read_like_other_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = small("encoder.init=~/weights.pt")
    assert config.encoder.init == str(tmp_path / "weights.pt")
    assert small("encoder.init=hf:~/export").encoder.init == f"hf:{tmp_path}/export"
    assert PretrainConfig.model_validate_json(config.model_dump_json()) == config
    for empty in ("timm:", "hf:"):
        with pytest.raises(ConfigError, match="names no weights"):
            small(f"encoder.init={empty}")
    with pytest.raises(ConfigError, match=r"init_encoder=target selects an encoder of another run"):
        small("encoder.init=imagenet", "init_encoder=target")
