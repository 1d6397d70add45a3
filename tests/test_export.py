"""Exported encoders: loaded by other libraries, they give the same features; what their cards say; what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from exports import features_by_card
from runs import small_config

import cnnjepa
from cnnjepa.errors import RunError
from cnnjepa.export import FORMATS, export_run
from cnnjepa.export.exported_encoder import ExportedEncoder
from cnnjepa.schemas import ConfigError
from cnnjepa.training.pretrain import pretrain

pytestmark = [pytest.mark.medium]

QUICK = ("train_images=32", "val_images=32", "epochs=1", "warmup_epochs=0", "floors=false", "runtime.batch_size=8",
         "checkpoint_every_steps=100", "linear_epochs=1")  # fmt: skip


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole ResNet-18 of torchvision's."""
    run = tmp_path_factory.mktemp("stock") / "run"
    whole = ("arch=resnet18", "stages=4", "stem=imagenet", "width=1", "image_size=64", "strategy=random")
    pretrain(small_config(*QUICK, *whole), run)
    return run


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's kind of network, which no other library has."""
    run = tmp_path_factory.mktemp("thin") / "run"
    pretrain(small_config(*QUICK, "method.name=simclr"), run)
    return run


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("vit") / "run"
    vit = (
        "method.name=ijepa",
        "arch=vit_tiny",
        "patch_size=4",
        "encoder.blocks=3",
        "masking.min_keep=4",
        "predictor.dim=48",
    )
    pretrain(small_config(*QUICK, *vit), run)
    return run


def images(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(5))


def ours(run: Path, size: int) -> torch.Tensor:
    with torch.no_grad():
        return cnnjepa.load_encoder(run)(images(size)).mean((2, 3))


@pytest.mark.parametrize(
    ("package", "to"),
    [("timm", "timm"), ("timm", "huggingface"), ("safetensors", "safetensors"), ("safetensors", "huggingface"),
     ("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx"), ("transformers", "transformers")],
)  # fmt: skip
def test_a_missing_package_is_told_and_leaves_no_folder(
    package: str, to: str, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"--to {to} needs {package}, which .* pip install -e '.*\[export\]'"):
        export_run(stock, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("to", FORMATS)
def test_a_stock_network_is_loaded_by_what_its_card_says(
    to: str, stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if to == "transformers":
        pytest.importorskip("transformers")
    folder, error = export_run(stock, to, tmp_path / to)
    assert error < 1e-5
    features = features_by_card(folder, to, images(64), monkeypatch)
    expected = ours(stock, 64)
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", ["safetensors", "onnx", "torch-export", "huggingface"])
def test_a_network_of_our_own_is_exported_where_names_do_not_matter(to: str, thin: Path, tmp_path: Path) -> None:
    folder, error = export_run(thin, to, tmp_path / to)
    assert error < 1e-5 and (folder / "encoder.json").is_file()
    for other in ("torchvision", "timm"):
        with pytest.raises(ConfigError, match="at full width; for this encoder --to must be one of safetensors, onnx"):
            export_run(thin, other, tmp_path / other)
    with pytest.raises(ConfigError, match="is no ResNet with torchvision's stem and no ConvNeXt"):
        export_run(thin, "transformers", tmp_path / "transformers")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", ["timm", "safetensors", "onnx", "torch-export", "huggingface"])
def test_a_transformer_is_timms(to: str, transformer: Path, tmp_path: Path) -> None:
    assert export_run(transformer, to, tmp_path / to)[1] < 1e-5
    with pytest.raises(ConfigError, match="have a class token"):
        export_run(transformer, "torchvision", tmp_path / "torchvision")


def test_the_card_carries_config_data_figures_and_licence(stock: Path, tmp_path: Path) -> None:
    folder, _ = export_run(stock, "torchvision", tmp_path / "card")
    card = (folder / "README.md").read_text()
    result = json.loads((stock / "result.json").read_text())
    assert "synthetic-64" in card and "Licence of the images: none needed" in card
    assert f"{result['probes']['held_out']['linear_top1']:.2f}" in card and result["pretrain_hash"] in card
    assert "strategy: random" in card and "name: cnnjepa" in card and str(tmp_path) not in card
    assert card.startswith("---\n") and "library_name:" in card.split("---")[1]
    assert export_run(stock, "torchvision", tmp_path / "card")[0] == folder  # again over its own
    context, _ = export_run(stock, "torchvision", tmp_path / "context", "context")
    assert "This encoder was not probed." in (context / "README.md").read_text()


def test_own_images_need_their_licence_told(tmp_path: Path) -> None:
    from runs import write_images

    write_images(tmp_path / "images")
    run = tmp_path / "run"
    pretrain(small_config(*QUICK, data=tmp_path / "images"), run)
    with pytest.raises(ConfigError, match="licence of these images is unknown"):
        export_run(run, "safetensors")
    folder, _ = export_run(run, "safetensors", licence="CC0 [x] *y*")
    assert folder == run / "export" / "safetensors"
    assert r"Licence of the images: CC0 \[x\] \*y\*" in (folder / "README.md").read_text()


def test_other_folders_formats_and_runs_are_refused(stock: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="contains other files"):
        export_run(stock, "torchvision", tmp_path)
    with pytest.raises(ConfigError, match="must be one of torchvision, timm"):
        export_run(stock, "keras", tmp_path / "k")
    with pytest.raises(ConfigError, match="not a run folder"):
        export_run(tmp_path, "timm")


def test_features_that_differ_are_an_error(stock: Path) -> None:
    exported = ExportedEncoder.of(stock, None, "last.pt")
    assert exported.compare(exported.features(), "itself") == 0
    with pytest.raises(RunError, match="gives different features in timm: relative error"):
        exported.compare(exported.features() * 1.001, "timm")


def test_a_missing_package_is_told_with_the_command(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"--to onnx needs onnxruntime.*pip install -e '.*\[export\]'"):
        export_run(stock, "onnx", tmp_path / "o")
