"""Weights are found where torchvision, timm, files, folders and runs have them; others are refused at once."""

import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import Hub
from small_encoders import small, weights

from cnnjepa.schemas import ConfigError, EncoderConfig, PretrainConfig, load_config
from cnnjepa.warm_start.initial_weights import load_initial_weights
from cnnjepa.warm_start.location import located
from cnnjepa.warm_start.matching import fingerprint


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
    pytest.importorskip("timm")
    hub = Hub(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=f"its files belong in {hub.folder}; .*`hf download timm/resnet18.a1_in1k`"):
        load_initial_weights(timm_config("resnet18"))
    model = hub.stored()
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
