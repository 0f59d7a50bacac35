"""Decoding: every kind of file Pillow reads, and the errors of those it cannot."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dfsc_tune.data import images
from dfsc_tune.data.images import DecodedImages, decode_images, read_pixels, safe_workers
from dfsc_tune.data.records import ImageRecord
from dfsc_tune.errors import UserError

EXIF_ORIENTATION = 0x0112


def gradient(height: int = 30, width: int = 40) -> np.ndarray:
    """uint8 (height, width, 3): red grows downwards, green to the right, blue is constant."""
    red = np.linspace(0, 255, height)[:, None] * np.ones((1, width))
    green = np.linspace(0, 255, width)[None, :] * np.ones((height, 1))
    return np.stack([red, green, np.full_like(red, 90)], axis=-1).round().astype(np.uint8)


def decode_one(image: Image.Image, path: Path, size: int = 8, **options: object) -> np.ndarray:
    image.save(path, **options)
    return decode_images([path], size, workers=1).pixels[0]


def expected(array: np.ndarray, size: int = 8) -> np.ndarray:
    small = Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp", "PNG", "ppm", "tga"])
def test_lossless_formats_decode_alike(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    decoded = decode_one(Image.fromarray(gradient()), tmp_path / f"image.{suffix}", **options)
    np.testing.assert_array_equal(decoded, expected(gradient()))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "avif"])
def test_lossy_formats_come_close(tmp_path, suffix):
    decoded = decode_one(Image.fromarray(gradient()), tmp_path / f"image.{suffix}", quality=95)
    assert np.abs(decoded.astype(int) - expected(gradient()).astype(int)).max() <= 6


def test_images_of_mixed_sizes_and_records_keep_their_order(tmp_path):
    shapes = [(30, 40), (64, 16), (8, 8)]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(gradient(*shape)).save(path)
    record = ImageRecord(paths[2], "test/good/2.png", "good", "good")
    decoded = decode_images([paths[0], paths[1], record], 16, workers=2)
    assert decoded.pixels.shape == (3, 3, 16, 16)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.original_sizes.dtype == np.int32
    assert decoded.original_sizes.tolist() == [list(shape) for shape in shapes]
    for pixels, shape in zip(decoded.pixels, shapes, strict=True):
        np.testing.assert_array_equal(pixels, expected(gradient(*shape), 16))


def test_no_images_decode_to_empty_arrays():
    decoded = decode_images([], 16)
    assert decoded.pixels.shape == (0, 3, 16, 16)
    assert decoded.original_sizes.shape == (0, 2)


def test_the_resize_is_antialiased(tmp_path):
    checkerboard = np.indices((64, 64)).sum(0) % 2 * 255
    decoded = decode_one(Image.fromarray(checkerboard.astype(np.uint8)), tmp_path / "image.png")
    assert np.abs(decoded.astype(int) - 127).max() <= 2


def test_grey_becomes_three_equal_channels(tmp_path):
    decoded = decode_one(Image.fromarray(gradient()[..., 0]), tmp_path / "image.png")
    for channel in decoded:
        np.testing.assert_array_equal(channel, expected(gradient())[0])


def test_one_bit_becomes_black_and_white(tmp_path):
    decoded = decode_one(
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1"), tmp_path / "image.png"
    )
    np.testing.assert_array_equal(decoded, np.broadcast_to(np.eye(8) * 255, (3, 8, 8)))


def test_palette_is_resized_in_colours(tmp_path):
    blocks = np.zeros((16, 16, 3), np.uint8)
    blocks[:, ::2] = (200, 0, 0)
    blocks[:, 1::2] = (0, 100, 0)
    decoded = decode_one(Image.fromarray(blocks).quantize(2), tmp_path / "image.png", size=1)
    np.testing.assert_allclose(decoded[:, 0, 0], (100, 50, 0), atol=1)


def test_transparency_is_laid_over_black(tmp_path):
    rgba = np.dstack([gradient(), np.full((30, 40), 255, np.uint8)])
    rgba[:, :20, 3] = 0
    decoded = decode_one(Image.fromarray(rgba), tmp_path / "image.png")
    over_black = gradient()
    over_black[:, :20] = 0
    assert np.abs(decoded.astype(int) - expected(over_black).astype(int)).max() <= 1
    grey_alpha = Image.fromarray(rgba).convert("LA")
    assert not decode_one(grey_alpha, tmp_path / "grey.png")[:, :, :3].any()


def test_transparent_palette_entry_becomes_black(tmp_path):
    image = Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).quantize(2)
    assert not decode_one(image, tmp_path / "image.png", transparency=0).any()


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.fromarray(np.full((8, 8, 3), (250, 20, 20), np.uint8)).convert("CMYK")
    decoded = decode_one(image, tmp_path / "image.jpg")
    np.testing.assert_allclose(decoded[:, 0, 0], (250, 20, 20), atol=8)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_by_its_whole_range(tmp_path, suffix):
    values = np.array([[0, 257, 32_768, 65_535]], np.uint16).repeat(4, axis=0)
    decoded = decode_one(Image.fromarray(values), tmp_path / f"image.{suffix}", size=4)
    np.testing.assert_array_equal(decoded[0], np.array([[0, 1, 128, 255]]).repeat(4, axis=0))
    np.testing.assert_array_equal(decoded[0], decoded[2])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((4, 4), 70_000, np.int32), "70000"),
        (np.full((4, 4), -1, np.int32), "-1"),
        (np.full((4, 4), 0.5, np.float32), "mode F"),
    ],
)
def test_pixels_of_unknown_range_are_refused(tmp_path, values, told):
    path = tmp_path / "image.tif"
    with pytest.raises(UserError, match=told) as caught:
        decode_one(Image.fromarray(values), path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(
    ("orientation", "upright"), [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))]
)
def test_exif_rotation_is_applied(tmp_path, suffix, orientation, upright):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(gradient()).save(path, exif=exif, quality=95)
    decoded = decode_images([path], 8, workers=1)
    turned = np.ascontiguousarray(upright(gradient()))
    assert decoded.original_sizes.tolist() == [list(turned.shape[:2])]
    assert np.abs(decoded.pixels[0].astype(int) - expected(turned).astype(int)).max() <= 6


def test_exif_rotation_of_16_bit_grey(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    decoded = decode_one(Image.fromarray(values), tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(decoded[0], np.rint(np.rot90(values, -1) / 257))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "gif"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_truncated_files_name_themselves_and_the_way_out(tmp_path, suffix, kept):
    path = tmp_path / f"image.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match="dfsc-tune data check PATH") as caught:
        decode_images([path], 8, workers=1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "image.png"
    path.write_text("not an image")
    with pytest.raises(UserError, match="format is unknown"):
        decode_images([path], 8)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.png' does not exist"):
        decode_images([tmp_path / "absent.png"], 8)


def test_the_first_broken_file_in_order_is_named(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path in paths:
        Image.fromarray(gradient()).save(path)
    paths[2].write_bytes(b"")
    paths[4].write_bytes(b"")
    with pytest.raises(UserError, match=r"2\.png"):
        decode_images(paths, 8, workers=2)


@pytest.mark.parametrize("pixels", [images.MAX_PIXELS + 10_000, 2 * images.MAX_PIXELS + 20_000])
def test_an_image_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path, pixels):
    path = tmp_path / "huge.png"
    Image.new("1", (10_000, -(-pixels // 10_000))).save(path)
    with pytest.raises(UserError, match="the limit") as caught:
        decode_images([path], 8)
    assert str(path) in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_beyond_the_limit_is_refused_where_warnings_are_not_errors(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (10_000, images.MAX_PIXELS // 10_000 + 1)).save(path)
    with pytest.raises(UserError, match="the limit"):
        decode_images([path], 8)


def test_fewer_threads_decode_large_images(tmp_path):
    small, large, broken = (tmp_path / name for name in ("small.png", "large.png", "broken.png"))
    Image.new("1", (8, 8)).save(small)
    Image.new("1", (5_000, 5_000)).save(large)
    broken.write_bytes(b"")
    assert safe_workers([small, broken], 16) == 16
    assert safe_workers([small, large], 16) == images.MAX_PIXELS // 25_000_000 == 3
    assert safe_workers([large], 1) == 1
    assert safe_workers([], 2) == 2


def test_workers_do_not_change_the_result(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(9)]
    for index, path in enumerate(paths):
        Image.fromarray(gradient(20 + index, 30)).save(path)
    results: list[DecodedImages] = [decode_images(paths, 16, workers) for workers in (1, 2, 5)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].pixels, other.pixels)
        np.testing.assert_array_equal(results[0].original_sizes, other.original_sizes)


def by_the_words(path: Path, size: int) -> np.ndarray:
    """uint8 (size, size, 3) in plain Pillow and NumPy, by the steps that PREPROCESSING tells."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    square, bilinear = (size, size), Image.Resampling.BILINEAR
    if image.mode.startswith("I;16"):
        small = np.rint(np.asarray(image.convert("I").resize(square, bilinear)) / 257)
        return np.dstack([small.astype(np.uint8)] * 3)
    if image.has_transparency_data:
        rgb, alpha = np.split(np.asarray(image.convert("RGBA")).astype(int), [3], axis=2)
        image = Image.fromarray(np.rint(rgb * alpha / 255).astype(np.uint8))
    return np.asarray(image.convert("RGB").resize(square, bilinear))


def write_every_kind(folder: Path) -> list[Path]:
    """A file of each kind of pixels that is read, some on their side."""
    colour = Image.fromarray(gradient())
    grey_16 = Image.fromarray(gradient()[..., 0].astype(np.uint16) * 200)
    clear = colour.copy()
    clear.putalpha(Image.fromarray(gradient()[..., 1]))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    kinds: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "colour.png": (colour, {}),
        "on_its_side.jpg": (colour, {"exif": exif}),
        "grey.png": (colour.convert("L"), {}),
        "grey_16.png": (grey_16, {"exif": exif}),
        "grey_16.tif": (grey_16, {}),
        "clear.png": (clear, {"exif": exif}),
        "clear.webp": (clear, {"lossless": True}),
        "clear_grey.png": (clear.convert("LA"), {}),
        "palette.png": (colour.quantize(16), {}),
        "palette_clear.png": (colour.quantize(16), {"transparency": 3}),
        "cmyk.jpg": (colour.convert("CMYK"), {"exif": exif}),
        "ycbcr.tif": (colour.convert("YCbCr"), {}),
        "bits.png": (colour.convert("1"), {}),
        "frames.gif": (colour.quantize(16), {"save_all": True, "append_images": [colour]}),
        "pages.tif": (colour, {"save_all": True, "append_images": [grey_16]}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


def test_every_kind_of_file_is_read_alike_and_by_the_words(tmp_path):
    paths = write_every_kind(tmp_path)
    decoded = decode_images(paths, 16)
    for path, pixels, original in zip(paths, decoded.pixels, decoded.original_sizes, strict=True):
        alone, size = read_pixels(path, 16)
        assert size == tuple(original), path
        np.testing.assert_array_equal(alone, pixels.transpose(1, 2, 0), err_msg=path.name)
        told = by_the_words(path, 16)
        assert np.abs(alone.astype(int) - told.astype(int)).max() <= 1, path


def test_reading_for_an_exported_model_needs_pillow_and_numpy_alone(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(gradient()).save(path)
    code = f"""
import importlib.abc, importlib.metadata, sys

class Bare(importlib.abc.MetaPathFinder):
    packages = {{*importlib.metadata.packages_distributions()}} - {{"PIL", "numpy", "dfsc_tune"}}

    def find_spec(self, name, *_):
        if name.partition(".")[0] in self.packages:
            raise ImportError(name)

sys.meta_path.insert(0, Bare())
from dfsc_tune import read_pixels
print(read_pixels({str(path)!r}, 16)[0].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(16, 16, 3)\n", "")
