"""Crops of `image_size: [height, width]`: training crops on both paths, evaluation, colours, views of all methods.

Shapes: B images, K channels, H x W pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_sets import config_of, encoded, noise, picture
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data import open_data
from cnnjepa.data.batches import Order, _crop, training_batches
from cnnjepa.data.crops import Crops, draw_crops
from cnnjepa.data.evaluation import covering, evaluation_batches
from cnnjepa.data.recolour import blurred
from cnnjepa.data.resample import crop_and_resize
from cnnjepa.schemas import AugmentationConfig, View, load_config
from cnnjepa.schemas.views import PLAIN

SIZE = (40, 24)


def write_images(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Two classes in both splits, one image of each size per class."""
    for split in ("train", "val"):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for number, (height, width) in enumerate(sizes):
                pixels = picture(10 * number + label, height, width)
                (root / split / name / f"{number}.png").write_bytes(encoded(pixels))
    return root


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_crop_is_torchvisions_resized_crop_to_height_and_width(interpolation: Any) -> None:
    augmentation = AugmentationConfig(interpolation=interpolation)
    images = torch.stack([picture(seed, 60, 90) for seed in range(12)])
    sides = torch.full((12,), 60), torch.full((12,), 90)
    crops = draw_crops(augmentation, torch.arange(12), *sides, seed=0, epoch=0, size=SIZE)
    batch = crop_and_resize(images, crops, SIZE, interpolation)
    assert batch.shape == (12, 3, *SIZE)
    for place in range(12):
        place_of = [int(side[place]) for side in crops[:4]]
        kind = transforms.InterpolationMode(interpolation)
        expected = transforms.resized_crop(images[place], *place_of, list(SIZE), kind, antialias=True)
        if crops.flip[place]:
            expected = transforms.horizontal_flip(expected)
        assert torch.equal(_crop(images[place], View(PLAIN, SIZE, augmentation), crops, place), expected)
        # torch rounds between its two passes, the batched path does not round
        assert float((batch[place] - expected.float()).abs().max()) < 2


def test_the_region_of_a_crop_does_not_depend_on_the_size_to_which_it_is_resized() -> None:
    """As in torchvision: scale and aspect are those of the region in the image."""
    sides = torch.full((200,), 80), torch.full((200,), 120)
    plain = draw_crops(AugmentationConfig(), torch.arange(200), *sides, seed=0, epoch=1)
    rectangle = draw_crops(AugmentationConfig(), torch.arange(200), *sides, seed=0, epoch=1, size=SIZE)
    for one, other in zip(plain[:5], rectangle[:5], strict=True):
        assert torch.equal(one, other)


def test_turned_crops_are_those_of_the_turned_image() -> None:
    """A quarter turn of a rectangle: the region is drawn on the turned image, so that its aspect and its stretching are
    those of the other crops."""
    count, ratio = 300, (0.5, 0.7)
    augmentation = AugmentationConfig(
        crop_ratio=ratio, crop_scale=(0.2, 0.4), quarter_turns=0.75, vertical_flip=0.5, interpolation="bilinear"
    )
    images = torch.stack([picture(seed, 60, 60) for seed in range(count)])
    sides = torch.full((count,), 60), torch.full((count,), 60)
    crops = draw_crops(augmentation, torch.arange(count), *sides, seed=0, epoch=0, size=SIZE)
    assert crops.turns is not None and crops.upside_down is not None
    batch = crop_and_resize(images, crops, SIZE, "bilinear")
    assert batch.shape == (count, 3, *SIZE)
    for place in range(count):
        turns = int(crops.turns[place])
        height, width = int(crops.height[place]), int(crops.width[place])
        aspect = height / width if turns % 2 else width / height
        assert ratio[0] - 0.05 < aspect < ratio[1] + 0.05
        top, left = int(crops.top[place]), int(crops.left[place])
        region = images[place].numpy()[:, top : top + height, left : left + width]
        region = region[:, :, ::-1] if crops.flip[place] else region
        region = region[:, ::-1] if crops.upside_down[place] else region
        turned = torch.from_numpy(np.rot90(region, turns, (1, 2)).copy())
        expected = transforms.resize(turned, list(SIZE), antialias=True)
        ours = _crop(images[place], View(PLAIN, SIZE, augmentation), crops, place)
        assert float((ours.float() - expected.float()).abs().max()) <= 1
        assert float((batch[place] - expected.float()).abs().max()) < 2
    assert crops.top.amin() >= 0 and (crops.top + crops.height).amax() <= 60
    assert crops.left.amin() >= 0 and (crops.left + crops.width).amax() <= 60


def test_turned_crops_stay_inside_images_that_are_not_square() -> None:
    augmentation = AugmentationConfig(quarter_turns=1.0)
    height, width = torch.full((500,), 30), torch.full((500,), 200)
    crops: Crops = draw_crops(augmentation, torch.arange(500), height, width, seed=0, epoch=0, size=SIZE)
    assert (crops.top >= 0).all() and (crops.top + crops.height <= 30).all()
    assert (crops.left >= 0).all() and (crops.left + crops.width <= 200).all()
    assert (crops.height > 0).all() and (crops.width > 0).all()


@pytest.mark.parametrize("image", [(480, 640), (640, 480), (375, 500), (33, 32), (40, 24), (7, 900)])
@pytest.mark.parametrize("crop", [(32, 32), (320, 192), (64, 256), (40, 24), (64, 32)])
@pytest.mark.parametrize("more", [1.0, 1.15, 2.0])
def test_the_evaluated_image_just_covers_the_crop(image: tuple[int, int], crop: tuple[int, int], more: float) -> None:
    shorter = int(min(crop) * more)
    height, width = covering(*image, crop, shorter)
    wanted = [side * shorter // min(crop) for side in crop]
    scale = max(wanted[0] / image[0], wanted[1] / image[1])
    assert abs(height - image[0] * scale) < 1 and abs(width - image[1] * scale) < 1
    assert height >= crop[0] and width >= crop[1]
    if crop[0] == crop[1]:
        stock = v2.functional.resize(torch.zeros(1, *image), [shorter])
        assert tuple(stock.shape[1:]) == (height, width)


@pytest.mark.parametrize("resize", [None, 30])
def test_evaluation_covers_and_crops_the_centre(tmp_path: Path, resize: int | None) -> None:
    root = write_images(tmp_path / "set", [(60, 60), (50, 24), (40, 24), (90, 31)])
    config = config_of(root, image_size=SIZE)
    source = open_data(config).val
    pixels = torch.cat([batch.pixels for batch in evaluation_batches(source, config, resize, 3)])
    assert pixels.shape == (8, 3, *SIZE)
    for place in range(8):
        image = source.load(place)
        size = covering(*image.shape[1:], SIZE, resize or 24)
        expected = v2.functional.center_crop(v2.functional.resize(image, list(size), antialias=True), list(SIZE))
        assert torch.equal(pixels[place], expected)


def test_resident_and_loaded_images_are_evaluated_and_cropped_alike(tmp_path: Path) -> None:
    for image in (SIZE, (60, 80)):
        root = write_images(tmp_path / f"{image[0]}", [image] * 3)
        evaluated, trained = [], []
        for resident in ("always", "never"):
            config = config_of(root, image_size=SIZE, resident=resident)
            data = open_data(config)
            evaluated.append(torch.cat([b.pixels for b in evaluation_batches(data.val, config, None, 4)]))
            order = Order(6, 6, 0, 1, 0)
            (batch,) = training_batches(data, config, order, 0, 1, 0, torch.device("cpu"))
            trained.append(batch.pixels.float())
        assert torch.equal(*evaluated) and evaluated[0].shape[2:] == SIZE
        assert trained[0].shape == (6, 3, *SIZE) and float((trained[0] - trained[1]).abs().max()) < 2


def test_a_very_long_image_is_cut_before_it_is_resized(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", [(60, 40)])
    line = np.repeat(np.arange(60000, dtype=np.uint32).astype(np.uint8)[None, :, None], 3, 2)
    (root / "val" / "ant" / "line.png").write_bytes(encoded(line))
    config = config_of(root, image_size=(16, 128))
    pixels = torch.cat([b.pixels for b in evaluation_batches(open_data(config).val, config, None, 4)])
    assert pixels.shape[2:] == (16, 128)
    # 8 pixels of the line are as wide as the crop is: pixels 29,996 to 30,003 of the line, which begins again at 256.
    columns = pixels[1, 0, 0].float()
    assert columns[8] == pytest.approx(29996 % 256, abs=1) and columns[-8] == pytest.approx(30003 % 256, abs=1)


def test_the_blur_of_a_rectangle_is_torchvisions() -> None:
    pixels = noise(3, *SIZE).double()
    sigma = torch.tensor([0.4, 1.1, 1.9], dtype=torch.float64)
    found = blurred(pixels, sigma, 2)
    for place in range(3):
        expected = transforms.gaussian_blur(pixels[place], [5, 5], [float(sigma[place])])
        assert torch.allclose(found[place], expected, atol=1e-4)


@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize(
    ("method", "sizes"),
    [
        ("simclr", [SIZE] * 2),
        ("byol", [SIZE] * 2),
        ("vicreg", [SIZE] * 2),
        ("lejepa", [SIZE] * 2 + [(20, 12)] * 6),
        ("supervised", [SIZE]),
    ],
)
def test_every_view_of_every_method_is_a_rectangle(
    tmp_path: Path, method: str, sizes: list[tuple[int, int]], resident: str
) -> None:
    root = write_images(tmp_path / "set", [(60, 50)] * 2)
    extra = ["local_size=[20,12]"] if method == "lejepa" else []
    settings = [f"method.name={method}", "image_size=[40,24]", f"resident={resident}", *extra]
    config = load_config("smoke", data=root, overrides=settings)
    (batch,) = training_batches(
        open_data(config.data), config.data, Order(4, 4, 0, 1, 0), 0, 1, 0, torch.device("cpu"), config.views
    )
    assert [tuple(view.shape) for view in batch.views] == [(4, 3, *size) for size in sizes]
    assert all(float(view.float().std()) > 1 for view in batch.views)


def test_crops_of_lidar_have_the_aspect_of_the_image_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnjepa.probes import label_free

    seen: list[View] = []

    def watched(images: Any, config: Any, views: tuple[View, ...], *rest: Any) -> Any:
        seen.extend(views)
        return original(images, config, views, *rest)

    original = label_free._batches
    monkeypatch.setattr(label_free, "_batches", watched)
    config = load_config("smoke", overrides=["image_size=[40,20]", "train_images=32", "val_images=32", "device=cpu"])
    embed = lambda pixels: pixels.float().mean((2, 3))  # noqa: E731
    value = label_free.lidar_of(embed, config, open_data(config.data).val, torch.device("cpu"), 4)
    assert value is not None and 1 <= value <= 3
    assert len(seen) == 10 and {view.size for view in seen} == {(40, 20)}
    assert seen[0].augmentation.crop_ratio == pytest.approx((0.375, 2 / 3))
