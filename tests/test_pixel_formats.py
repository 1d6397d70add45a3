"""Files of every depth and number of channels: the pixels are those that Pillow and NumPy read, or the image is refused
with the setting that keeps what would be lost.

Shapes: H x W pixels, K channels.
"""

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pixel_files import chunk, file_of, npy, png16, tiff

from cnnjepa.data.decoding import decode
from cnnjepa.data.scan import is_image
from cnnjepa.errors import ImageError
from cnnjepa.schemas.pixels import PixelKind

H, W = 16, 22
RANDOM = np.random.default_rng(0)
GREY8, RGB8 = (RANDOM.integers(0, 256, shape, dtype=np.uint8) for shape in ((H, W), (H, W, 3)))
GREY16, RGB16, RGBA16 = (RANDOM.integers(0, 65536, (H, W, k), dtype=np.uint16) for k in (1, 3, 4))
FLOAT = RANDOM.standard_normal((H, W)).astype(np.float32)


def pixels(encoded: bytes, channels: int = 3, dtype: Any = "uint8") -> NDArray[Any]:
    """The decoded image [H, W, K], which is checked to have the form that was asked for."""
    image = decode(encoded, "x", PixelKind(channels, dtype))
    assert image.shape[0] == channels and str(image.dtype) == f"torch.{dtype}"
    return image.permute(1, 2, 0).numpy()


def refusal(encoded: bytes, channels: int = 3, dtype: Any = "uint8") -> str:
    with pytest.raises(ImageError) as caught:
        decode(encoded, "set/x", PixelKind(channels, dtype))
    return str(caught.value)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("array", [GREY16, RGB16, RGBA16, RGBA16[..., :2]])
def test_a_16_bit_png_keeps_every_bit(array: NDArray[np.uint16], interlaced: bool) -> None:
    encoded = png16(array, interlaced)
    assert (pixels(encoded, array.shape[2], "uint16") == array).all()
    assert (pixels(encoded, array.shape[2], "float32") == array.astype(np.float32)).all()


def test_a_16_bit_grey_png_of_pillow_fills_three_channels() -> None:
    encoded = file_of(Image.fromarray(GREY16[..., 0]), "PNG")
    assert (pixels(encoded, 1, "uint16") == GREY16).all()
    assert (pixels(encoded, 3, "uint16") == GREY16.repeat(3, 2)).all()


@pytest.mark.parametrize("array", [GREY16, RGB16])
def test_damage_in_a_16_bit_png_is_found_before_the_decoder_sees_it(array: NDArray[np.uint16]) -> None:
    whole = bytearray(png16(array))
    cut = whole[:-12]
    header = 8 + 8
    taller = bytearray(whole)
    taller[header + 4 : header + 8] = struct.pack(">I", H + 1)
    taller[header + 13 : header + 17] = struct.pack(">I", zlib.crc32(taller[12 : header + 13]))
    assert "hold" in refusal(bytes(taller), array.shape[2], "uint16")
    rows = bytearray(zlib.decompress(whole[whole.index(b"IDAT") + 4 : -16]))
    rows[0] = 5
    data = chunk(b"IDAT", zlib.compress(rows))
    filtered = whole[: whole.index(b"IDAT") - 4] + data + chunk(b"IEND", b"")
    assert "unknown filter" in refusal(bytes(filtered), array.shape[2], "uint16")
    assert (pixels(bytes(cut), array.shape[2], "uint16") == array).all()  # only its end mark is missing


TIFFS = {
    "8-bit grey": (Image.fromarray(GREY8), 1, "uint8"),
    "8-bit colour": (Image.fromarray(RGB8), 3, "uint8"),
    "16-bit grey": (Image.fromarray(GREY16[..., 0]), 1, "uint16"),
    "float": (Image.fromarray(FLOAT), 1, "float32"),
    "signed": (Image.fromarray((GREY16[..., 0].astype(np.int32) - 40000) * 7), 1, "float32"),
}


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw"])
@pytest.mark.parametrize("kind", TIFFS)
def test_a_tiff_of_pillow_keeps_every_bit(kind: str, compression: str | None) -> None:
    image, channels, dtype = TIFFS[kind]
    expected = np.array(image).reshape(H, W, channels).astype(dtype)
    assert (pixels(file_of(image, "TIFF", compression=compression), channels, dtype) == expected).all()


def test_a_tiff_that_pillow_would_cut_needs_a_package_that_the_message_names() -> None:
    for array, dtype in ((RGB16, "uint16"), (RANDOM.integers(0, 99, (H, W, 13), dtype=np.uint16), "uint16")):
        encoded = tiff(array)
        try:
            import tifffile  # noqa: F401
        except ModuleNotFoundError:
            message = refusal(encoded, array.shape[2], dtype)
            assert "needs tifffile, which is not installed" in message and "tiff" in message.rsplit("pip install")[1]
        else:
            assert (pixels(encoded, array.shape[2], dtype) == array).all()


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_tiff_of_13_channels_is_read_by_tifffile(dtype: str, planar: bool) -> None:
    pytest.importorskip("tifffile")
    array = RANDOM.integers(0, 250, (H, W, 13)).astype(dtype)
    assert (pixels(tiff(array, planar), 13, dtype) == array).all()
    assert "data.channels=13 keeps them" in refusal(tiff(array, planar), 3, dtype)
    assert "it has 2 pages" in refusal(tiff(array, planar, pages=2), 13, dtype)


def test_pages_of_a_tiff_are_not_dropped_and_its_overviews_are() -> None:
    assert "it has 2 pages" in refusal(tiff(RGB8, pages=2))
    assert (pixels(tiff(RGB8, pages=2, reduced=True)) == RGB8).all()


def test_numpy_files_keep_type_and_channels_in_either_order() -> None:
    tile = RANDOM.integers(0, 65536, (H, W, 13), dtype=np.uint16)
    assert (pixels(npy(tile), 13, "uint16") == tile).all()
    assert (pixels(npy(np.moveaxis(tile, 2, 0)), 13, "uint16") == tile).all()
    assert (pixels(npy(np.asfortranarray(tile).astype(">u2")), 13, "uint16") == tile).all()
    assert (pixels(npy(tile.astype(np.float64)), 13, "float32") == tile).all()
    assert (pixels(npy(FLOAT), 1, "float32")[..., 0] == FLOAT).all()
    assert (pixels(npy(GREY8), 3) == GREY8[..., None]).all()


def test_a_numpy_file_that_would_lose_something_is_refused() -> None:
    tile = RANDOM.integers(0, 65536, (H, W, 13), dtype=np.uint16)
    assert "data.channels=13 keeps them" in refusal(npy(tile), 3, "uint16")
    assert "it has 16 bits per channel and data.dtype is uint8; data.dtype=uint16 keeps them" in refusal(npy(tile), 13)
    assert "data.dtype=float32 keeps them" in refusal(npy(FLOAT), 1, "uint16")
    assert "its float64 pixels do not fit into float32" in refusal(npy(np.full((4, 4), 0.1)), 1, "float32")
    assert "not finite" in refusal(npy(np.full((4, 4), np.nan, np.float32)), 1, "float32")
    assert "both the first and the last axis" in refusal(npy(tile[:, :13].transpose(2, 0, 1)), 13, "uint16")
    assert "must be integers" in refusal(npy(np.zeros((4, 4), bool)), 1)
    assert "cannot be decoded" in refusal(npy(np.array([{}])), 1)
    assert "8 bits per channel and data.dtype is uint16; data.dtype=uint8 reads it" in refusal(npy(GREY8), 1, "uint16")


def test_channels_are_never_dropped() -> None:
    rgba = np.dstack([RGB8, np.full((H, W), 200, np.uint8)])
    encoded = file_of(Image.fromarray(rgba), "PNG")
    assert (pixels(encoded, 4) == rgba).all()
    assert "data.channels=4 keeps them" in refusal(encoded)
    assert "it has 3 channels and data.channels is 1; data.channels=3 keeps them" in refusal(
        file_of(Image.fromarray(RGB8), "JPEG"), 1
    )
    assert "it has 3 channels and data.channels is 4; data.channels=3 reads it" in refusal(
        file_of(Image.fromarray(RGB8), "PNG"), 4
    )
    grey_as_rgb = np.repeat(GREY8[..., None], 3, 2)
    assert (pixels(file_of(Image.fromarray(grey_as_rgb), "PNG"), 1)[..., 0] == GREY8).all()
    webp = Image.open(io.BytesIO(file_of(Image.fromarray(rgba), "WEBP", lossless=True)))
    assert (pixels(file_of(Image.fromarray(rgba), "WEBP", lossless=True), 4) == np.array(webp)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_grey_image_has_one_channel_if_one_is_wanted(kind: str) -> None:
    encoded = file_of(Image.fromarray(GREY8), kind)
    assert (pixels(encoded, 1)[..., 0] == np.array(Image.open(io.BytesIO(encoded)).convert("L"))).all()


def test_the_four_inks_of_a_cmyk_image_are_kept_if_four_channels_are_wanted() -> None:
    inks = Image.fromarray(np.dstack([RGB8, GREY8]), "CMYK")
    for encoded in (file_of(inks, "JPEG", quality=95), file_of(inks, "TIFF")):
        stored = Image.open(io.BytesIO(encoded))
        assert (pixels(encoded, 4) == np.array(stored)).all()
        assert (pixels(encoded, 3) == np.array(stored.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_bmp_has_the_pixels_of_pillow(mode: str) -> None:
    encoded = file_of(Image.fromarray(RGB8).convert(mode), "BMP")
    assert (pixels(encoded) == np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))).all()


def test_an_avif_has_the_pixels_of_pillow() -> None:
    encoded = file_of(Image.fromarray(RGB8), "AVIF", quality=90)
    assert (pixels(encoded) == np.array(Image.open(io.BytesIO(encoded)))).all()
    deep = bytearray(encoded)
    deep[encoded.index(b"av1C") + 6] |= 0x40
    assert "more than 8 bits per channel" in refusal(bytes(deep))


def test_a_heic_is_read_by_pillow_heif() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    rgb = np.zeros((24, 32, 3), np.uint8)
    rgb[:, 16:] = (200, 60, 30)
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(buffer, quality=-1)  # lossless but for YCbCr's rounding
    assert np.abs(pixels(buffer.getvalue()).astype(int) - rgb).max() <= 2
    deep = np.full((24, 32, 3), 30_000, np.uint16)
    buffer = io.BytesIO()
    pillow_heif.encode("RGB;16", (32, 24), deep.tobytes(), buffer)
    assert "more than 8 bits per channel" in refusal(buffer.getvalue())


@pytest.mark.parametrize("compression", ["lzw", "zstd", "deflate"])
def test_compressed_tiffs_are_read_with_imagecodecs(compression: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    array = RANDOM.integers(0, 2**16, (H, W, 5), dtype=np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, compression=compression, photometric="minisblack", planarconfig="contig")
    assert (pixels(buffer.getvalue(), 5, "uint16") == array).all()


def test_a_heic_names_the_package_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    header = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic")
    assert "a HEIC image needs pillow_heif, which is not installed" in refusal(header + bytes(40))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_image_is_turned_upright_like_pillows_exif_transpose(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif.tobytes()}
    encoded = file_of(Image.fromarray(RGB8), kind, **options)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    assert expected.shape[:2] == ((W, H) if orientation > 4 else (H, W))
    assert (pixels(encoded) == expected).all()


def test_a_deep_png_is_turned_too_and_damaged_exif_data_turn_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = png16(RGB16, extra=chunk(b"eXIf", exif.tobytes()[6:]))
    assert (pixels(encoded, 3, "uint16") == np.rot90(RGB16, -1)).all()
    photograph = file_of(Image.fromarray(RGB8), "JPEG", exif=exif.tobytes())
    plain = file_of(Image.fromarray(RGB8), "JPEG")
    broken = photograph.replace(exif.tobytes()[6:], b"\xff" * (len(exif.tobytes()) - 6))
    assert broken != photograph and (pixels(broken) == pixels(plain)).all()


def test_formats_are_recognised_by_their_names_in_a_folder() -> None:
    for name in ("a.jfif", "a.TIF", "a.tiff", "a.bmp", "a.npy", "a.avif", "a.heic", "a.HEIF"):
        assert is_image(name)


@pytest.mark.medium
def test_damaged_files_of_every_new_format_are_refused_or_read() -> None:
    draw = np.random.default_rng(3)
    files = {
        (3, "uint16"): png16(RGB16), (1, "uint16"): png16(GREY16, interlaced=True), (3, "uint8"): tiff(RGB8),
        (13, "uint8"): npy(RANDOM.integers(0, 99, (H, W, 13), dtype=np.uint8)),
        (1, "float32"): file_of(Image.fromarray(FLOAT), "TIFF"),
    }  # fmt: skip
    refused = 0
    for (channels, dtype), encoded in files.items():
        for number in range(40):
            damaged = bytearray(encoded)
            for place in draw.integers(4, len(damaged) if number % 2 else 100, 3):
                damaged[place] = draw.integers(0, 256)
            try:
                image = decode(bytes(damaged), "x", PixelKind(channels, dtype))  # type: ignore[arg-type]
            except ImageError:
                refused += 1
            else:
                assert image.shape[0] == channels and image.dtype == getattr(torch, dtype)
    assert refused > 100
