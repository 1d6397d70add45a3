"""Colours of views: both paths agree, what is drawn has the stated chances and ranges, and is a function."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from cnnjepa.data.colours import Colours, colour_one, draw_colours, kernel_radius
from cnnjepa.data.recolour import blurred, recolour
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.schemas.joint_embedding import BYOLConfig, SimCLRConfig, VICRegConfig
from cnnjepa.schemas.views import PLAIN, SimCLRView, VICRegView, ViewConfig

MANY = torch.arange(40_000)
_JITTER = ("brightness", "contrast", "saturation", "hue")


def pictures(count: int = 24, size: int = 32) -> Tensor:
    """uint8 [count, 3, size, size], smooth colours of every kind, with grey, black and white among them."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
    coarse[0], coarse[1] = 0.5, 0.0
    coarse[2] = coarse[2, :1]
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)


def only(batch: int, order: tuple[int, ...], factors: tuple[float, ...]) -> Colours:
    """The same changes for every image."""
    off = torch.zeros(batch, dtype=torch.bool)
    return Colours(
        torch.ones(batch, dtype=torch.bool), torch.tensor([order] * batch),
        torch.tensor([factors] * batch, dtype=torch.float64), off, off,
        torch.full((batch,), 1.3, dtype=torch.float64), off,
    )  # fmt: skip


# --- The two paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factors"),
    [("brightness", (1.6, 1, 1, 0)), ("contrast", (1, 0.3, 1, 0)), ("saturation", (1, 1, 1.7, 0)),
     ("hue", (1, 1, 1, 0.17)), ("hue", (1, 1, 1, -0.2))],
)  # fmt: skip
def test_each_change_of_a_batch_is_torchvisions(name: str, factors: tuple[float, ...]) -> None:
    view = ViewConfig(jitter=1.0, **{name: 0.5})  # type: ignore[arg-type]
    images = pictures()
    colours = only(len(images), (0, 1, 2, 3), factors)
    ours = recolour(images.double(), colours, view)
    theirs = torch.stack([colour_one(image, colours, i, view) for i, image in enumerate(images)])
    assert (ours - theirs).abs().max() < 2  # torchvision cuts to whole numbers, up to twice a change
    exact = {"brightness": v2.functional.adjust_brightness, "contrast": v2.functional.adjust_contrast,
             "saturation": v2.functional.adjust_saturation, "hue": v2.functional.adjust_hue}[name]  # fmt: skip
    amount = next(f for f in factors if f not in (0, 1))
    expected = torch.stack([exact(image.double() / 255, amount) for image in images]) * 255
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)


def test_grey_and_solarised_batches_are_torchvisions() -> None:
    images = pictures()
    plain = only(24, (0, 1, 2, 3), (1, 1, 1, 0))._replace(jitter=torch.zeros(24) > 0)
    every = torch.ones(24) > 0
    grey = recolour(images.double(), plain._replace(grey=every), ViewConfig(grey=1.0))
    torch.testing.assert_close(grey, v2.functional.rgb_to_grayscale(images.double() / 255, 3) * 255)
    turned = recolour(images.double(), plain._replace(solarise=every), ViewConfig(solarise=1.0))
    assert torch.equal(turned.to(torch.uint8), v2.functional.solarize(images, 128))


@pytest.mark.medium
@pytest.mark.parametrize("size", [32, 64, 224])
def test_the_blur_of_a_batch_is_torchvisions_with_a_sigma_an_image(size: int) -> None:
    images = pictures(6, size).double()
    sigmas = torch.linspace(0.1, 2.0, 6, dtype=torch.float64)
    radius = kernel_radius(size)
    expected = [
        v2.functional.gaussian_blur(image, [2 * radius + 1] * 2, [float(s)])
        for image, s in zip(images, sigmas, strict=True)
    ]
    torch.testing.assert_close(blurred(images, sigmas, radius), torch.stack(expected), atol=1e-3, rtol=0)


def test_a_blur_kernel_spans_a_tenth_of_the_view() -> None:
    assert [2 * kernel_radius(size) + 1 for size in (224, 64, 32)] == [23, 7, 5]


@pytest.mark.parametrize("view", [SimCLRView(), VICRegView(), BYOLConfig().second_view])
def test_both_paths_give_the_same_view_up_to_rounding(view: ViewConfig) -> None:
    images = pictures(64)
    colours = draw_colours(view, torch.arange(64), 3, 1, 0)
    ours = recolour(images.float(), colours, view)
    theirs = torch.stack([colour_one(image, colours, i, view) for i, image in enumerate(images)]).float()
    # torchvision cuts to whole numbers after each of up to six steps, and a jitter may multiply what was cut; a pixel
    # at the threshold may be inverted in one path only.
    close = (ours - theirs).abs() <= 6
    assert close.double().mean() > 0.99
    assert (ours - theirs).abs().mean() < 1.5
    assert ours.min() >= 0 and ours.max() <= 255


# --- Chances and ranges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "chances"),
    [
        (SimCLRConfig().views[0], {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "solarise": 0.0}),
        (SimCLRConfig().views[1], {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "solarise": 0.0}),
        (BYOLConfig().views[0], {"jitter": 0.8, "grey": 0.2, "blur": 1.0, "solarise": 0.0}),
        (BYOLConfig().views[1], {"jitter": 0.8, "grey": 0.2, "blur": 0.1, "solarise": 0.2}),
        (VICRegConfig().views[0], {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "solarise": 0.1}),
    ],
)  # fmt: skip
def test_changes_happen_as_often_as_stated(view: ViewConfig, chances: dict[str, float]) -> None:
    colours = draw_colours(view, MANY, 0, 0, 0)
    for name, chance in chances.items():
        rate = getattr(colours, name).double().mean().item()
        margin = 4.5 * math.sqrt(chance * (1 - chance) / len(MANY))
        assert abs(rate - chance) <= margin, name


@pytest.mark.parametrize(
    ("view", "spreads"),
    [(SimCLRConfig().view, (0.8, 0.8, 0.8, 0.2)), (BYOLConfig().first_view, (0.4, 0.4, 0.2, 0.1)),
     (BYOLConfig().second_view, (0.4, 0.4, 0.2, 0.1)), (VICRegConfig().view, (0.4, 0.4, 0.2, 0.1))],
)  # fmt: skip
def test_factors_are_uniform_over_the_stated_ranges(view: ViewConfig, spreads: tuple[float, ...]) -> None:
    colours = draw_colours(view, MANY, 0, 0, 0)
    for which, spread in enumerate(spreads):
        low, high = (-spread, spread) if which == 3 else (1 - spread, 1 + spread)
        drawn = ((colours.factors[:, which] - low) / (high - low)).sort().values
        assert 0 <= drawn[0] < 1e-3 and 1 - 1e-3 < drawn[-1] <= 1
        assert (drawn - (torch.arange(len(MANY)) + 0.5) / len(MANY)).abs().max() < 0.01  # Kolmogorov: p < 0.001
    sigma = (colours.sigma - 0.1) / 1.9
    assert sigma.min() >= 0 and sigma.max() <= 1 and abs(sigma.mean() - 0.5) < 0.01


def test_factors_do_not_fall_below_zero() -> None:
    drawn = draw_colours(ViewConfig(jitter=1, brightness=1.5), MANY, 0, 0, 0).factors[:, 0]
    assert drawn.min() >= 0 and drawn.max() > 2.49


def test_every_order_of_the_four_changes_is_equally_likely() -> None:
    order = draw_colours(SimCLRView(), MANY, 0, 0, 0).order
    counts = order.mul(torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24
    assert (counts - len(MANY) / 24).abs().max() < 5 * math.sqrt(len(MANY) / 24)


# --- A function, not a state --------------------------------------------------------------------------------------


def test_colours_depend_on_seed_epoch_image_and_view_alone() -> None:
    view = SimCLRView()
    whole, part = draw_colours(view, torch.arange(100), 1, 2, 0), draw_colours(view, torch.tensor([70, 3]), 1, 2, 0)
    assert all(torch.equal(a[torch.tensor([70, 3])], b) for a, b in zip(whole, part, strict=True))
    others = [draw_colours(view, torch.arange(100), *asked) for asked in ((0, 2, 0), (1, 3, 0), (1, 2, 1))]
    assert all(not torch.equal(whole.factors, other.factors) for other in others)


def two_view_batches(config: PretrainConfig, workers: int) -> list[tuple[Tensor, ...]]:
    from cnnjepa.data import open_data
    from cnnjepa.data.batches import Order, training_batches

    data = open_data(config.data)
    order = Order(data.train.labels.numel(), 16, 0, 1, 0)
    batches = training_batches(
        data, config.data, order, 2, 6, workers, torch.device("cpu"), config.views
    )  # fmt: skip
    return [(*batch.views, batch.labels) for batch in batches]


def test_views_do_not_depend_on_the_number_of_workers_and_differ_from_each_other(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from runs import write_images

    write_images(tmp_path)
    asked = ["method.name=byol", "image_size=32"]
    config = load_config("smoke", overrides=[*asked, "resident=never"], data=tmp_path)
    none, two = two_view_batches(config, 0), two_view_batches(config, 2)
    for ours, theirs in zip(none, two, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert not torch.equal(ours[0], ours[1])
    resident = load_config("smoke", overrides=asked, data=tmp_path)
    for ours, theirs in zip(two_view_batches(resident, 0), none, strict=True):
        assert torch.equal(ours[2], theirs[2])  # the same images
        for view in (0, 1):
            assert ((ours[view] - theirs[view].float()).abs() <= 8).double().mean() > 0.97


def test_local_crops_are_small_parts_of_the_image_and_alike_on_both_paths(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Images whose red says the column and whose green the row, so that a view shows where it was cut."""
    from torchvision.io import write_png

    line = (torch.arange(64) * 4).to(torch.uint8)
    image = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64), torch.zeros(64, 64, dtype=torch.uint8)])
    for split in ("train", "val"):
        for number in range(64):
            path = tmp_path / split / str(number % 2) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(image, str(path))
    plain = [f"method.view.{name}=0" for name in ("jitter", "grey", "blur", "solarise")]
    asked = ["method.name=lejepa", "local_views=3", "image_size=32", "crop_scale=[0.3,1]", *plain]
    config = load_config("smoke", overrides=asked, data=tmp_path)
    never = config.model_copy(update={"data": config.data.model_copy(update={"resident": "never"})})
    resident, workers, again = two_view_batches(config, 0), two_view_batches(never, 2), two_view_batches(never, 0)
    assert [view.shape[-1] for view in resident[0]][:5] == [32, 32, 16, 16, 16]
    for ours, theirs, same in zip(resident, workers, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(theirs, same, strict=True))
        assert all(((a - b.float()).abs() <= 8).all() for a, b in zip(ours, theirs, strict=True))
        assert not torch.equal(ours[2], ours[3])
        for number, view in enumerate(ours[:5]):
            share = (view.amax((2, 3)) - view.amin((2, 3)))[:, :2].prod(1) / 252**2  # height times width
            least, most = (0.3, 1) if number < 2 else (0.05, 0.3)
            assert share.min() > 0.7 * least and share.max() < 1.2 * most  # a crop's outermost pixels are not its edges


def test_a_plain_view_leaves_pixels_alone() -> None:
    images = pictures().float()
    assert recolour(images, draw_colours(PLAIN, torch.arange(24), 0, 0, 0), PLAIN) is images


def test_a_jitter_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="without brightness, contrast, saturation or hue changes nothing"):
        load_config("smoke", overrides=["method.name=simclr", *[f"method.view.{n}=0" for n in _JITTER]])


def test_one_field_of_a_view_leaves_the_others_as_the_method_has_them() -> None:
    method = load_config("smoke", overrides=["method.name=byol", "second_view.blur=0.3"]).method
    assert isinstance(method, BYOLConfig)
    assert method.second_view == BYOLConfig().second_view.model_copy(update={"blur": 0.3})
