"""A folder of JPEG files like ImageNet's in size and form, for timing the input path where no images are at hand."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.io import write_jpeg

# ImageNet's usual size; the files come out at 90 to 130 kB, as its do.
WIDTH, HEIGHT, QUALITY = 500, 375, 92


def write_folder(root: Path, images: int, classes: int = 4) -> float:
    """Writes `images` training images, and two of every class to judge, as root/{train,val}/CLASS/N.jpg. Gives the mean
    size of a file in bytes. The pictures are smooth noise at several scales with grain, so that decoding is work."""
    total = 0
    for split, count in (("train", images), ("val", 2 * classes)):
        for number in range(count):
            path = root / split / f"class_{number % classes}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jpeg(_picture(number), str(path), quality=QUALITY)
            total += path.stat().st_size
    return total / (images + 2 * classes)


def _picture(number: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(number)
    picture = 10 * torch.randn(1, 3, HEIGHT, WIDTH, generator=draw)
    for cells, strength in ((3, 40.0), (12, 25.0), (48, 12.0)):
        coarse = torch.randn(1, 3, cells, cells, generator=draw)
        picture += strength * F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")
    return (picture[0] + 120).clamp(0, 255).to(torch.uint8)
