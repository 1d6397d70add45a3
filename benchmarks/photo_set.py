"""JPEGs of photo-like content for timing, drawn because the repository holds no data set.

What decoding costs depends on the size of the file, hence on the spectrum: amplitudes that fall as 1/f^1.3 in
brightness and 1/f^1.5 in colour, with a little grain, give 105 kB at 500x375, quality 95, 4:2:0; ImageNet's files
have a mean of about 110 kB at about that size.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image


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


def write_photos(root: Path, images: int, height: int = 375, width: int = 500) -> float:
    """An ImageFolder of two classes with `images` training images; gives their mean size in kB."""
    sizes = []
    for split, count in (("train", images), ("val", 2)):
        for i in range(count):
            buffer = io.BytesIO()
            Image.fromarray(photo(i, height, width)).save(buffer, "JPEG", quality=95)
            file = root / split / f"class{i % 2}" / f"{i:05d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(buffer.getvalue())
            if split == "train":
                sizes.append(len(buffer.getvalue()))
    return sum(sizes) / len(sizes) / 1e3
