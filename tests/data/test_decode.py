from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmoe_tune.data.decode import CorruptImageError, decode_resized, decode_rgb


@pytest.fixture
def photo() -> Image.Image:
    """Something with gradients, edges and colour, 90 x 60."""
    y, x = np.mgrid[:60, :90]
    pixels = np.stack([2 * x, 4 * y, 120 + 100 * np.sin(x / 5) * np.cos(y / 7)], axis=2)
    pixels[20:40, 30:50] = (250, 10, 10)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", {"quality": 90}), ("a.png", {}), ("a.webp", {}), ("a.bmp", {})]
)
def test_the_pixels_are_those_of_a_plain_reading(
    photo: Image.Image, tmp_path: Path, name: str, options
) -> None:
    photo.save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as plain:
        expected = np.asarray(plain.convert("RGB"))
    found = decode_rgb(tmp_path / name)
    assert found.shape == (60, 90, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow  # torchvision's import takes two seconds
@pytest.mark.parametrize("side", [32, 64, 224])
def test_resizing_equals_torchvisions_on_the_published_path(
    photo: Image.Image, tmp_path: Path, side: int
) -> None:
    from torchvision.transforms import Resize

    photo.save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as plain:
        expected = np.asarray(Resize((side, side))(plain.convert("RGB")))
    np.testing.assert_array_equal(decode_resized(tmp_path / "a.jpg", 0, side), expected)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_every_mode_becomes_rgb(photo: Image.Image, tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "tif"}.get(mode, "png")
    photo.convert(mode).save(tmp_path / f"a.{suffix}")
    found = decode_rgb(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found, np.asarray(photo.convert(mode).convert("RGB")))


def test_a_cmyk_jpeg_is_not_inverted(photo: Image.Image, tmp_path: Path) -> None:
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    difference = np.abs(decode_rgb(tmp_path / "a.jpg").astype(int) - np.asarray(photo).astype(int))
    assert difference.mean() < 10


def test_a_palette_with_transparency_keeps_its_colours(photo: Image.Image, tmp_path: Path) -> None:
    palette = photo.quantize(16)
    palette.save(tmp_path / "a.png", transparency=bytes(range(0, 160, 10)))
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == "P" and isinstance(opened.info["transparency"], bytes), (
            "the point of the test"
        )
    np.testing.assert_array_equal(
        decode_rgb(tmp_path / "a.png"), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 30 * 20).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    found = decode_rgb(tmp_path / f"a.{suffix}")
    for channel in range(3):
        np.testing.assert_array_equal(found[:, :, channel], values >> 8)


def test_thirty_two_bits_that_hold_eight_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.arange(200, dtype=np.int32).reshape(10, 20)
    Image.fromarray(values, mode="I").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(decode_rgb(tmp_path / "a.tif")[:, :, 0], values)


def test_floating_point_pixels_are_refused_as_no_file_says_their_range(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)).save(
        tmp_path / "a.tif"
    )
    with pytest.raises(CorruptImageError, match="floating-point numbers.*convert it to 8 or 16"):
        decode_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda p: p),
        (3, lambda p: p[::-1, ::-1]),
        (6, lambda p: np.rot90(p, -1)),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_an_exif_rotation_is_applied(
    photo: Image.Image, tmp_path: Path, orientation: int, turn
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode_rgb(tmp_path / "a.png"), turn(np.asarray(photo)))


def test_a_banner_at_the_bottom_is_cut_off_before_resizing(
    photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_rgb(tmp_path / "a.png", 20), np.asarray(photo)[:40])
    cut = photo.crop((0, 0, 90, 40)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_resized(tmp_path / "a.png", 20, 32), np.asarray(cut))


def test_of_several_frames_the_first_one_counts(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(
        tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", (90, 60), "white")]
    )
    np.testing.assert_array_equal(decode_rgb(tmp_path / "a.tif"), np.asarray(photo))


def spoilt(photo: Image.Image, path: Path, kind: str) -> None:
    photo.save(path, quality=90) if path.suffix == ".jpg" else photo.save(path)
    content = path.read_bytes()
    spoil = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "text": b"<html>404 not found</html>",
        "beheaded": content[20:],
    }
    path.write_bytes(spoil[kind])


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("truncated", "cannot be decoded"),
        ("empty", "is empty"),
        ("text", "is not an image"),
        ("beheaded", "is not an image"),
    ],
)
def test_a_broken_image_is_named_with_what_is_wrong(
    photo: Image.Image, tmp_path: Path, name: str, kind: str, why: str
) -> None:
    spoilt(photo, tmp_path / name, kind)
    with pytest.raises(CorruptImageError, match=why) as caught:
        decode_rgb(tmp_path / name)
    assert caught.value.path == tmp_path / name
    assert str(tmp_path / name) in str(caught.value)


def test_an_absent_image_and_one_that_is_all_banner_are_named(
    photo: Image.Image, tmp_path: Path
) -> None:
    with pytest.raises(CorruptImageError, match="is not there"):
        decode_rgb(tmp_path / "no.jpg")
    with pytest.raises(CorruptImageError, match="cannot be decoded .*File name too long"):
        decode_rgb(tmp_path / f"{'x' * 300}.jpg")
    photo.save(tmp_path / "a.png")
    with pytest.raises(CorruptImageError, match="is 60 pixels high, but 60 are to be cut off"):
        decode_rgb(tmp_path / "a.png", 60)


def test_an_image_that_claims_to_be_enormous_is_refused(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo.save(tmp_path / "a.png")
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 4000
    )  # 5400 only warn, as beyond twice as many is refused
    assert decode_rgb(tmp_path / "a.png").shape == (60, 90, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(CorruptImageError, match="claims more than 2,000 pixels"):
        decode_rgb(tmp_path / "a.png")


def test_the_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(CorruptImageError("x/a.jpg", "is empty")))
    assert (error.path, error.why) == (Path("x/a.jpg"), "is empty")


def test_a_pipe_among_the_images_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(CorruptImageError, match=r"p\.png: is not a regular file"):
        decode_rgb(tmp_path / "p.png")
