"""From an image file to uint8 RGB pixels; the one way in which pixels enter this project.

H W height and width of an image as stored (after its EXIF rotation), R side of the square it is resized to.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lmoe_tune.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

UInt8Array = npt.NDArray[np.uint8]

DECODER_VERSION = 1
"""Goes up with every change of what pixels a file gives; caches made by another one are not used."""


class CorruptImageError(UsageError):
    """A file that is no whole image, or cannot be read at all."""

    def __init__(self, path: Path | str, why: str) -> None:
        self.path = Path(path)
        self.why = why
        super().__init__(f"{path}: {why}")

    def __reduce__(self) -> tuple[type[CorruptImageError], tuple[Path, str]]:
        return CorruptImageError, (self.path, self.why)


def decode_rgb(path: Path | str, crop_bottom: int = 0) -> UInt8Array:
    """The image's pixels (H, W, 3), without its lowest `crop_bottom` rows.

    An EXIF rotation is applied. Grayscale, palette, CMYK and 16-bit images are converted; transparency is
    dropped, as `Image.convert("RGB")` does. Of several frames the first one counts.

    Raises:
        CorruptImageError: truncated, empty, no image, too large to be one, or not readable.
    """
    return np.asarray(_open_rgb(path, crop_bottom))


def decode_resized(path: Path | str, crop_bottom: int, side: int) -> UInt8Array:
    """The image resized to a square (R, R, 3): what torchvision's `Resize((R, R))` gives for a PIL image.

    Bilinear with antialiasing; the aspect ratio is not kept, as in the published protocol.
    """
    from PIL import Image

    image = _open_rgb(path, crop_bottom)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def decoder_name() -> str:
    """What decides the pixels besides the file: this module's version, and Pillow's."""
    import PIL

    return f"v{DECODER_VERSION}-pillow{PIL.__version__}"


def _open_rgb(path: Path | str, crop_bottom: int) -> Image:
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    try:
        # Pillow warns of what it reads all the same: large images, odd EXIF blocks, transparent palettes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                turned = opened.getexif().get(ExifTags.Base.Orientation, 1) != 1
                image = _as_rgb(ImageOps.exif_transpose(opened) if turned else opened)
    except FileNotFoundError:
        raise CorruptImageError(path, "is not there") from None
    except PermissionError:
        raise CorruptImageError(path, "cannot be read (permission denied)") from None
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        raise CorruptImageError(
            path, "is empty" if empty else "is no image that Pillow can read"
        ) from None
    except Image.DecompressionBombError:
        raise CorruptImageError(
            path, f"claims more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a broken file makes Pillow's plugins raise anything
        raise CorruptImageError(path, f"cannot be decoded ({error})") from error
    if crop_bottom:
        if crop_bottom >= image.height:
            raise CorruptImageError(
                path, f"is {image.height} pixels high, but {crop_bottom} are to be cut off"
            )
        image = image.crop((0, 0, image.width, image.height - crop_bottom))
    return image


def _as_rgb(image: Image) -> Image:
    from PIL import Image as module

    if image.mode == "RGB":
        return image
    if image.mode.startswith(
        "I"
    ):  # 16 bits a pixel, or 32 that hold 16 or 8: Pillow would clip them
        values = np.asarray(image).astype(np.int64)
        if image.mode != "I" or values.max(initial=0) > 255:
            values >>= 8
        return module.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert(
            "RGBA"
        )  # Pillow's own way for palettes with transparency; the colours are the same
    return image.convert("RGB")
