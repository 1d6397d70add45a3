"""Decoding: nothing is lost without a word, and no damage ends the process.

Shapes: H x W pixels.
"""

import io
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.io import ImageReadMode, decode_image

from cnnjepa.data import decoding, open_data
from cnnjepa.data.check import check_images
from cnnjepa.data.decoding import decode
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import FolderData
from cnnjepa.schemas.pixels import PixelKind

H, W = 33, 50


def random_bytes(*shape: int, most: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most, shape, dtype=np.uint16 if most > 256 else np.uint8)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(encoded: bytes) -> torch.Tensor:
    image = Image.open(io.BytesIO(encoded))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def refusal(encoded: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(encoded, "set/x.png")
    message = str(caught.value)
    assert message.startswith("set/x.png cannot be decoded (") and "\n" not in message
    return message


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def interlaced(grey: np.ndarray) -> bytes:
    """An 8-bit grey PNG in Adam7's seven passes, which Pillow reads and does not write."""
    height, width = grey.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b"".join(b"\0" + line.tobytes() for y, x, dy, dx in passes for line in grey[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


COLOUR, GREY = Image.fromarray(random_bytes(H, W, 3)), Image.fromarray(random_bytes(H, W))
OPAQUE = COLOUR.copy()
OPAQUE.putalpha(255)
THROUGH = COLOUR.copy()
THROUGH.putalpha(Image.fromarray(np.full((H, W), 254, np.uint8)))
PALETTE = COLOUR.quantize(200)
WHOLE = {
    "one bit": file_of(GREY.convert("1")),
    "grey": file_of(GREY),
    "interlaced": interlaced(np.array(GREY)),
    "grey, opaque": file_of(OPAQUE.convert("LA")),
    "palette": file_of(PALETTE),
    "palette of 4 bits": file_of(COLOUR.quantize(16), bits=4),
    "palette, transparent entry unused": file_of(COLOUR.quantize(16), transparency=200),
    "colour": file_of(COLOUR),
    "colour, opaque": file_of(OPAQUE),
    "GIF": file_of(PALETTE, "GIF"),
    "grey GIF": file_of(GREY, "GIF"),
    "animated GIF": file_of(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
    "JPEG": file_of(COLOUR, "JPEG"),
    "grey JPEG": file_of(GREY, "JPEG"),
    "CMYK JPEG": file_of(Image.fromarray(random_bytes(H, W, 4), "CMYK"), "JPEG"),
    "WebP": file_of(COLOUR, "WEBP", lossless=True),
    "lossy WebP": file_of(COLOUR, "WEBP"),
    "WebP, opaque": file_of(OPAQUE, "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_every_kind_of_8_bit_image_has_the_pixels_of_pillow_and_of_torchvision(kind: str) -> None:
    image = decode(WHOLE[kind], "x")
    assert image.dtype == torch.uint8 and image.shape == (3, H, W)
    assert torch.equal(image, pixels_of(WHOLE[kind]))
    stock = decode_image(torch.frombuffer(bytearray(WHOLE[kind]), dtype=torch.uint8), mode=ImageReadMode.RGB)
    assert torch.equal(image, stock[0] if stock.dim() == 4 else stock)


def test_the_first_bytes_decide_and_not_the_name() -> None:
    assert torch.equal(decode(WHOLE["colour"], "x.JPEG"), torch.from_numpy(np.array(COLOUR)).permute(2, 0, 1))
    assert "it is no JPEG, PNG, TIFF, WebP, GIF, BMP, AVIF, HEIC or .npy: its first bytes" in refusal(
        file_of(COLOUR, "PPM")
    )


def test_more_than_8_bits_are_refused_with_the_reason() -> None:
    deep = random_bytes(H, W, most=65536)
    colour = b"".join(b"\0" + line.astype(">u2").tobytes() for line in random_bytes(H, W, 3, most=65536))
    header = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    png = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(colour)) + chunk(b"IEND", b"")
    for encoded in (file_of(Image.fromarray(deep)), b"\x89PNG\r\n\x1a\n" + png):
        assert "it has 16 bits per channel and data.dtype is uint8; data.dtype=uint16 keeps them" in refusal(encoded)


TRANSPARENT = {
    "colour": file_of(THROUGH),
    "grey": file_of(THROUGH.convert("LA")),
    "palette": file_of(PALETTE, transparency=int(np.array(PALETTE)[0, 0])),
    "colour key": file_of(COLOUR, transparency=COLOUR.getpixel((0, 0))),
    "grey key": file_of(GREY, transparency=int(np.array(GREY)[0, 0])),
    "GIF": file_of(PALETTE, "GIF", transparency=int(np.array(PALETTE)[0, 0])),
    "WebP": file_of(THROUGH, "WEBP", lossless=True),
    "lossy WebP": file_of(THROUGH, "WEBP"),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_pixels_are_refused_with_the_reason(kind: str) -> None:
    least = 254 if kind in ("colour", "grey", "WebP", "lossy WebP") else 0
    assert f"it has transparent pixels (alpha down to {least} of 255)" in refusal(TRANSPARENT[kind])


def test_comments_and_further_frames_of_a_png_are_no_matter() -> None:
    """Pillow refuses text that unpacks to more than a mebibyte; torchvision passes over it, and so do we."""
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * (2 << 20), zip=True)
    assert torch.equal(decode(file_of(COLOUR, pnginfo=text), "x"), pixels_of(WHOLE["colour"]))
    animated = file_of(COLOUR, save_all=True, append_images=[COLOUR.rotate(180)])
    assert torch.equal(decode(animated, "x"), pixels_of(WHOLE["colour"]))


@pytest.mark.parametrize("kind", ["grey", "colour", "palette", "interlaced"])
def test_a_flipped_bit_in_a_png_is_found(kind: str) -> None:
    damaged = bytearray(WHOLE[kind])
    damaged[len(damaged) // 2] ^= 1
    message = refusal(bytes(damaged))
    assert "the checksum of its IDAT chunk is wrong: it is damaged" in message


FUZZ = """
import sys, warnings, zlib
import numpy as np
warnings.simplefilter("ignore")
from test_decoding import WHOLE, TRANSPARENT
from cnnjepa.data.decoding import decode
from cnnjepa.errors import ImageError

def with_right_checksums(data):
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4)
        place = end + 4

draw, refused = np.random.default_rng(7), 0
for number in range(int(sys.argv[1])):
    for encoded in (*WHOLE.values(), *TRANSPARENT.values()):
        damaged = bytearray(encoded)
        for place in draw.integers(4, len(damaged) if number % 2 else 100, draw.integers(1, 4)):
            damaged[place] = draw.integers(0, 256)
        if number % 4 < 2 and damaged.startswith(b"\\x89PNG"):
            size = len(damaged)
            with_right_checksums(damaged)
            del damaged[size:]
        try:
            image = decode(bytes(damaged), "x")
        except ImageError:
            refused += 1
        else:
            assert image.dim() == 3 and image.shape[0] == 3
print("refused", refused)
"""


@pytest.mark.processes
def test_no_damage_ends_the_process() -> None:
    """Some hundred damaged files of every kind, PNGs also with checksums that hide the damage, in a process of its own
    (torchvision's PNG decoder ended it at nearly every file)."""
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, "20"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 250


def write_set(root: Path) -> Path:
    for split, count in (("train", 6), ("val", 2)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i}.png").write_bytes(WHOLE["colour"])
    return root


def test_what_would_lose_something_is_an_unreadable_image(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "train" / "ant" / "3.png").write_bytes(file_of(Image.fromarray(random_bytes(H, W, most=65536))))
    (root / "train" / "bee" / "1.png").write_bytes(TRANSPARENT["colour"])
    problems = [found.problem for found in check_images(FolderData(path=root)) if found.problem]
    assert len(problems) == 2
    assert problems[0].startswith(f"{root}/train/ant/3.png cannot be decoded (it has 16 bits per channel")
    assert problems[1].startswith(f"{root}/train/bee/1.png cannot be decoded (it has transparent pixels")
    with pytest.raises(ImageError, match=r"ant/3\.png cannot be decoded \(it has 16 bits"):
        open_data(FolderData(path=root, image_size=32, resident="always"))
    data = open_data(FolderData(path=root, image_size=32, resident="always", on_error="skip"))
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5 and data.skipped == problems


def test_a_vast_image_is_refused_with_its_size_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I4s", 13, b"IHDR") + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = struct.pack(">I4s", 2**19, b"IDAT") + bytes(2**19 + 4)
    with pytest.raises(ImageError, match=r"30,000 x 30,000 pixels, which take 2\.5 GiB; .* at most 1 GiB"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + data, "slide.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    buffer = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(buffer, "JPEG")
    with pytest.raises(ImageError, match=r"slide\.jpg cannot be decoded \(it has 20,000 x 20,000 pixels"):
        decode(buffer.getvalue(), "slide.jpg")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.2e6  # kB: the 8-bit original, and no copy


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] not enough memory: you tried to allocate")]
)
def test_no_memory_is_not_blamed_on_the_image(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(encoded: bytes, kind: PixelKind) -> None:
        raise error

    monkeypatch.setattr(decoding, "_jpeg", fails)
    with pytest.raises(RunError, match="a cannot be decoded: the machine is out of memory") as caught:
        decode(b"\xff\xd8\xff" + bytes(9), "a")
    assert not isinstance(caught.value, ImageError)
