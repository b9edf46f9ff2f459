"""From an image file to uint8 RGB pixels; the one way in which files become what a network sees.

H W height and width of an image as stored (after its EXIF rotation), R side of the square it is
resized to.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from lmoe_tune.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

UInt8Array = npt.NDArray[np.uint8]

Picture: TypeAlias = Union[Path, str, bytes, UInt8Array, "Image"]
"""An image in any form: a file's path, a file's content, a Pillow image, or pixels.

Pixels are uint8, (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGB with transparency.
"""

DECODER_VERSION = 1
"""Goes up whenever a file gives other pixels; caches made by another version are not used."""

NAMELESS = "the image"
"""What messages call an image that came without a path."""


class CorruptImageError(UsageError):
    """A file that is not an intact image, or cannot be read at all."""

    def __init__(self, path: Path | str, why: str) -> None:
        self.path = Path(path)
        self.why = why
        super().__init__(f"{path}: {why}")

    def __reduce__(self) -> tuple[type[CorruptImageError], tuple[Path, str]]:
        return CorruptImageError, (self.path, self.why)


def decode_rgb(picture: Picture, crop_bottom: int = 0) -> UInt8Array:
    """The image's pixels (H, W, 3), without its lowest `crop_bottom` rows.

    An EXIF rotation is applied. Grayscale, palette, CMYK and 16-bit images are converted;
    transparency is dropped, as `Image.convert("RGB")` does. Of several frames, the first is used.

    Raises:
        CorruptImageError: truncated, empty, not an image, too large to be one, or not readable.
        UsageError: it is none of `Picture`.
    """
    return np.asarray(_as_cut_rgb(picture, crop_bottom))


def decode_resized(picture: Picture, crop_bottom: int, side: int) -> UInt8Array:
    """The image resized to a square (R, R, 3): what torchvision's `Resize((R, R))` gives for a PIL
    image.

    Bilinear with antialiasing; the aspect ratio is not kept, as in the published protocol.
    """
    from PIL import Image

    image = _as_cut_rgb(picture, crop_bottom)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def name_of(picture: Picture) -> Path | str:
    """What messages call an image: its path, if it came with one."""
    return picture if isinstance(picture, Path | str) else NAMELESS


def decoder_name() -> str:
    """What determines the pixels besides the file: this module's version, and Pillow's."""
    import PIL

    return f"v{DECODER_VERSION}-pillow{PIL.__version__}"


def _as_cut_rgb(picture: Picture, crop_bottom: int) -> Image:
    from PIL import Image

    _refuse_other(picture)
    name = name_of(picture)
    with _explained(name):
        if isinstance(picture, Path | str) and Path(picture).is_fifo():  # it would be waited for
            raise CorruptImageError(name, "is not a regular file")
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)

        if isinstance(picture, Image.Image):
            image = _turned_rgb(picture)
        else:
            file = io.BytesIO(picture) if isinstance(picture, bytes) else picture
            with Image.open(file) as opened:
                image = _turned_rgb(opened)

    if not crop_bottom:
        return image

    if crop_bottom >= image.height:
        why = f"is {image.height} pixels high, but {crop_bottom} are to be cut off"
        raise CorruptImageError(name, why)

    return image.crop((0, 0, image.width, image.height - crop_bottom))


def _refuse_other(picture: Any) -> None:
    from PIL import Image

    if isinstance(picture, Path | str | bytes | Image.Image) or hasattr(picture, "read"):
        return
    if not isinstance(picture, np.ndarray):
        raise UsageError(
            f"an image is given as {type(picture).__name__}, but must be a path, a file's content, a Pillow image, "
            "or a NumPy array of uint8 pixels (H, W), (H, W, 3) or (H, W, 4)"
        )
    if picture.dtype != np.uint8 or not (
        picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
    ):
        raise UsageError(
            f"an image's pixels are {picture.dtype} of shape {picture.shape}, but must be uint8 of shape (H, W), "
            "(H, W, 3) or (H, W, 4)"
        )


@contextmanager
def _explained(name: Path | str) -> Iterator[None]:
    """Whatever Pillow raises becomes a CorruptImageError; its warnings are dropped."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Pillow warns about images that it still reads: large, odd EXIF, transparent palettes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FileNotFoundError:
        raise CorruptImageError(name, "is not there") from None
    except PermissionError:
        raise CorruptImageError(name, "cannot be read (permission denied)") from None
    except UnidentifiedImageError:
        empty = name != NAMELESS and Path(name).stat().st_size == 0
        why = "is empty" if empty else "is not an image that Pillow can read"
        raise CorruptImageError(name, why) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise CorruptImageError(name, f"claims more than {limit:,} pixels") from None
    except (MemoryError, CorruptImageError):
        raise
    except Exception as error:  # a broken file makes Pillow's plugins raise anything
        raise CorruptImageError(name, f"cannot be decoded ({error})") from error


def _turned_rgb(image: Image) -> Image:
    from PIL import ExifTags, ImageOps

    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return _as_rgb(ImageOps.exif_transpose(image) if turned else image)


def _as_rgb(image: Image) -> Image:
    from PIL import Image as module

    if image.mode == "RGB":
        return image

    if image.mode.startswith("I"):
        # 16 bits a pixel, or 32 that hold 16 or 8: Pillow would clip them
        values = np.asarray(image).astype(np.int64)
        if image.mode != "I" or values.max(initial=0) > 255:
            values >>= 8
        return module.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")

    if image.mode == "F":
        raise ValueError(
            "its pixels are floating-point numbers, whose range no file says: convert it to 8 or 16 bits"
        )

    if image.mode in ("P", "PA") and "transparency" in image.info:
        # Pillow's own way for palettes with transparency; the colours are the same
        image = image.convert("RGBA")

    return image.convert("RGB")
