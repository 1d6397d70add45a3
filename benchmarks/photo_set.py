"""JPEGs of photo-like content for timing, drawn because the repository holds no data set.

What decoding costs depends on the size of the file, hence on the spectrum: amplitudes that fall as 1/f^1.3 in
brightness and 1/f^1.5 in colour, with a little grain, give 105 kB at 500x375, quality 95, 4:2:0; ImageNet's files
have a mean of about 110 kB at about that size.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cnnjepa.data.workers import usable_workers

HEIGHT, WIDTH = 375, 500  # pixels: ImageNet's usual size


def photo(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]."""
    draw = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    radius[0, 0] = 1

    def field(power: float) -> np.ndarray:
        spectrum = (draw.normal(size=radius.shape) + 1j * draw.normal(size=radius.shape)) / radius**power
        return np.fft.irfft2(spectrum, s=(height, width))

    brightness = field(1.3)
    channels = [brightness + 0.5 * field(1.5) for _ in range(3)]
    pixels = np.stack([50 * channel / channel.std() + 120 for channel in channels], -1)
    return (pixels + 3 * draw.normal(size=pixels.shape)).clip(0, 255).astype(np.uint8)


def write_photos(root: Path, images: int) -> float:
    """An ImageFolder of two classes with `images` training images and two to judge; gives the mean size of the training
    images in kB. Photos are drawn on all usable cores."""

    def write(split: str, number: int) -> int:
        buffer = io.BytesIO()
        Image.fromarray(photo(number, HEIGHT, WIDTH)).save(buffer, "JPEG", quality=95)
        file = root / split / f"class{number % 2}" / f"{number:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.write_bytes(buffer.getvalue())

    with ThreadPoolExecutor(usable_workers(64)) as pool:
        list(pool.map(lambda number: write("val", number), range(2)))
        sizes = list(pool.map(lambda number: write("train", number), range(images)))
    return sum(sizes) / images / 1e3
