"""Features of a network, and the assessment that holds every figure.

Shapes: N bank features, Q queries, D channels, C classes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_features import CPU, clouds
from torch import Tensor, nn

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Normalizer
from cnnjepa.data.resident import ResidentSource
from cnnjepa.encoders import build_backbone
from cnnjepa.errors import ImageError, RunError
from cnnjepa.probes import assess, features, online_probe
from cnnjepa.probes.diagnostics import feature_std, rankme
from cnnjepa.probes.evaluate import selection_knn
from cnnjepa.probes.features import encoder_embed, extract, pixel_embed, scratch_folder
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.probes.linear import linear_curve
from cnnjepa.schemas import PretrainConfig, Probes, load_config, probe_hash


def test_features_of_a_run_that_trains_in_bf16_are_float32() -> None:
    exact, mixed = load_config("smoke"), load_config("smoke", overrides=["precision=bf16"])
    encoder, pixels = build_backbone(exact.encoder, 0), torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    found = encoder_embed(encoder, mixed, CPU)(pixels)
    assert torch.equal(found, encoder_embed(encoder, exact, CPU)(pixels))
    with torch.autocast("cpu", torch.bfloat16):  # nor may a caller's autocast reach them
        assert torch.equal(found, encoder_embed(encoder, mixed, CPU)(pixels))


def test_results_from_bf16_features_do_not_answer_for_float32_ones() -> None:
    exact, mixed = load_config("smoke"), load_config("smoke", overrides=["precision=bf16"])
    assert probe_hash(exact) != probe_hash(mixed)


@pytest.fixture(scope="module")
def config() -> PretrainConfig:
    """A little run on embedded images of 16 px."""
    return load_config(
        "smoke",
        overrides=[
            "image_size=32",
            "train_images=160",
            "val_images=48",
            "feature_batch_size=64",
            "linear_epochs=3",
            "linear_batch_size=32",
            "workers=0",
            "online_images=100",
            "device=cpu",
            "resident=always",
        ],
    )


@pytest.fixture(scope="module")
def images(config: PretrainConfig) -> DataSet:
    return open_data(config.data)


class Pool(nn.Module):
    """A frozen random map with a batch norm, images [B, 3, S, S] → [B, 24, S/8, S/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.BatchNorm2d(24), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def test_features_are_the_pooled_map_of_the_network_in_eval_mode(config: PretrainConfig, images: DataSet) -> None:
    network = Pool().train()
    network.layers[1].running_mean += 0.1  # type: ignore[operator]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels = torch.stack([images.val.load(i) for i in range(8)])
    found = encoder_embed(network, config, CPU)(pixels)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    with torch.no_grad():
        expected = network(Normalizer(config.data, CPU)(pixels)).mean((2, 3))
    assert found.dtype == torch.float32 and found.shape == (8, 24)
    assert (found - expected).abs().max().item() < 1e-6


@pytest.mark.parametrize(("size", "side"), [(16, 16), (32, 32), (64, 32)])
def test_pixel_features_are_normalised_and_at_most_32_pixels_a_side(
    config: PretrainConfig, size: int, side: int
) -> None:
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    found = pixel_embed(config)(pixels)
    assert found.shape == (3, 3 * side * side)
    blocks = pixels.double().view(3, 3, side, size // side, side, size // side).mean((3, 5)) / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (config.data.mean, config.data.std))
    assert (found - ((blocks - mean) / std).flatten(1)).abs().max().item() < 1e-5


def test_extraction_keeps_the_order_and_calls_before_every_batch(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    calls: list[int] = []
    found = extract(pixel_embed(config), images.train, config, tmp_path, lambda: calls.append(1))
    assert torch.equal(found.labels, images.train.labels)
    assert found.values.shape == (160, 3072) and len(calls) == 3  # 160 images in batches of 64
    assert torch.equal(found.values[70:71], pixel_embed(config)(images.train.load(70)[None]))


class Holes:
    """The images of a source of which some cannot be read."""

    def __init__(self, source: ResidentSource, unreadable: set[int]) -> None:
        self._source, self._unreadable = source, unreadable
        self.labels, self.class_names = source.labels, source.class_names

    def load(self, index: int) -> Tensor:
        if index in self._unreadable:
            raise ImageError(f"{self.name(index)} cannot be decoded (a test)")
        return self._source.load(index)

    def name(self, index: int) -> str:
        return f"image {index}"

    def fingerprint(self) -> str:
        return "holes"


def skipping(config: PretrainConfig) -> PretrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"on_error": "skip"})})


def test_unreadable_images_leave_features_and_labels_in_step(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    assert isinstance(images.val, ResidentSource)
    lost = {0, 5, 17, 47}
    kept = [i for i in range(48) if i not in lost]
    few = skipping(config).model_copy(update={"probe": config.probe.model_copy(update={"feature_batch_size": 7})})
    found = extract(pixel_embed(config), Holes(images.val, lost), few, tmp_path)
    whole = extract(pixel_embed(config), images.val, config, tmp_path)
    assert torch.equal(found.values, whole.values[kept])
    assert torch.equal(found.labels, whole.labels[kept])
    assert [name.split(" cannot")[0] for name in found.skipped] == [f"image {i}" for i in sorted(lost)]


def test_a_set_without_a_readable_image_is_an_error_that_says_so(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    assert isinstance(images.val, ResidentSource)
    with pytest.raises(RunError, match="no image"):
        extract(pixel_embed(config), Holes(images.val, set(range(48))), skipping(config), tmp_path)


def test_features_in_a_file_give_the_figures_of_features_in_memory(
    config: PretrainConfig, images: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Pool()
    in_memory = assess(network, config, images, CPU, tmp_path)
    mapped: list[str] = []
    from_file = torch.from_file

    def counting(name: str, **settings: Any) -> Tensor:
        mapped.append(name)
        return from_file(name, **settings)

    monkeypatch.setattr(torch, "from_file", counting)
    monkeypatch.setattr(features, "_MOST_BYTES_IN_MEMORY", 1000)
    in_file = assess(network, config, images, CPU, tmp_path)
    assert len(mapped) == 12 and all(Path(name).is_relative_to(tmp_path) for name in mapped)
    assert in_file == in_memory
    assert list(tmp_path.iterdir()) == []


def test_the_scratch_folder_is_removed_when_something_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), scratch_folder(tmp_path) as folder:
        (folder / "features-x").write_bytes(b"x")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_assessment_holds_every_figure_asked_for(config: PretrainConfig, images: DataSet, tmp_path: Path) -> None:
    said: list[str] = []
    found = assess(Pool(), config, images, CPU, tmp_path, say=said.append)
    for probes in (found.first.probes, found.first.floors.untrained, found.first.floors.pixels):
        assert probes is not None
        for figures in (probes.published, probes.held_out):
            assert figures is not None
            for value in figures.model_dump().values():
                assert 0 <= value <= 100
    assert found.first.selection is not None and found.first.selection.linear_lr in config.probe.held_out_lrs
    assert found.diagnostics.feature_dim == 24 and found.skipped == []
    assert len(said) == 3
    without = config.model_copy(update={"probe": config.probe.model_copy(update={"floors": False})})
    again = assess(Pool(), without, images, CPU, tmp_path)
    assert again.first.floors.untrained is None and again.first.floors.pixels is None
    one = config.model_copy(update={"probe": config.probe.model_copy(update={"floors": ("untrained",)})})
    bare = assess(Pool(), one, images, CPU, tmp_path)
    assert bare.first.floors.untrained == found.first.floors.untrained and bare.first.floors.pixels is None


class Broken(nn.Module):
    """Every feature is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((x.shape[0], 4, 2, 2), float("nan"))


def test_features_that_are_not_finite_give_no_accuracy_but_evidence(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    without = config.model_copy(update={"probe": config.probe.model_copy(update={"floors": False})})
    found = assess(Broken(), without, images, CPU, tmp_path)
    assert found.first.probes == Probes() and found.first.selection is None
    assert found.diagnostics.collapse_evidence == "100 % of the feature values are not finite"
    assert found.diagnostics.lidar is None and found.diagnostics.alpha_req is None
    assert online_probe(Broken(), config, images, CPU, tmp_path) == (0.0, 0.0, 0.0, None, None, None)


class Untouchable:
    """A validation set that must not be looked at."""

    labels = torch.arange(2)
    class_names = ("a", "b")

    def load(self, index: int) -> Tensor:
        raise AssertionError("the validation set was touched")

    name = fingerprint = load  # type: ignore[assignment]


def test_an_online_probe_sees_some_training_images_and_never_validation(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    network = Pool()
    blind = DataSet(images.train, Untouchable(), "x", "x")  # type: ignore[arg-type]
    found = online_probe(network, config, blind, CPU, tmp_path)
    from cnnjepa.data.source import Subset, stratified

    few = Subset(images.train, stratified(images.train.labels, 100))
    values = extract(encoder_embed(network, config, CPU), few, config, tmp_path)
    assert values.labels.numel() == 100
    assert found.knn_top1 == selection_knn(values, images.classes, config.probe, CPU)
    assert found.rankme == rankme(values.values) and found.feature_std == feature_std(values.values)


def test_the_untrained_floor_has_the_first_weights_and_calibrated_statistics(
    config: PretrainConfig, images: DataSet
) -> None:
    few = DataSet(images.val, images.val, "x", "x")  # 48 images: one batch
    network = untrained_encoder(config, few, CPU)
    fresh = build_backbone(config.encoder, config.runtime.seed)
    assert not network.training
    for (name, one), (_, other) in zip(network.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    pixels = torch.stack([images.val.load(i) for i in range(48)])
    with torch.no_grad():
        maps = fresh.conv1(Normalizer(config.data, CPU)(pixels))
    norm: Any = network.bn1
    assert (norm.running_mean - maps.mean((0, 2, 3))).abs().max().item() < 1e-5
    assert (norm.running_var / maps.var((0, 2, 3), unbiased=True) - 1).abs().max().item() < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_an_untrained_floor_is_of_the_runs_seed(seed: int) -> None:
    encoder = load_config("smoke").encoder
    one, two = build_backbone(encoder, seed), build_backbone(encoder, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.conv1.weight, build_backbone(encoder, seed + 1).conv1.weight)


def test_a_set_sorted_by_class_is_probed_as_well_as_a_shuffled_one() -> None:
    """Folders come class by class; a probe in that order would see one class a batch."""
    train, val = clouds(800), clouds(400, seed=1)
    by_class = train.labels.argsort(stable=True)
    scores = [
        max(row[0][0] for row in linear_curve(features, val, 8, [0.01], 10, 64, CPU).accuracies)
        for features in (train, train.take(by_class))
    ]
    assert abs(scores[0] - scores[1]) < 5
