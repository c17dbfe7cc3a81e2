"""Open untrusted images safely: real format, pixel limit, EXIF orientation applied once."""

import io
import warnings

from PIL import ExifTags, Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
DEFAULT_MAX_PIXELS = 50_000_000
# What makes an image upright, by its EXIF orientation; 1 is upright already.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that cannot be used; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def open_image(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink: int = 1) -> Image.Image:
    """Decode bytes to an upright RGB image; what is transparent becomes white.

    A JPEG can be decoded at 1/`shrink` of its size (2, 4 or 8; sides round up), which skips work
    inside the decoder; other formats are always decoded whole.

    Raises:
        ImageError: `not_an_image`, `too_many_pixels` (checked before decoding) or
            `truncated_image`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError("not_an_image", "the bytes are no image format we read") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise anything on damaged bytes
        raise ImageError("not_an_image", _describe(error)) from error
    if image.width * image.height > max_pixels:
        raise ImageError(
            "too_many_pixels", f"{image.width} x {image.height} is over the limit of {max_pixels}"
        )
    _require_colours(image)
    try:
        if shrink > 1:
            image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
        image.load()
        return opaque(_upright(image))
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError("truncated_image", _describe(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, without metadata, so that none turns it again.

    ImageOps.exif_transpose would also write the EXIF data anew, which fails on good images whose
    other tags are damaged.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # unreadable metadata of a readable image
        orientation = None
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    turned = image if method is None else image.transpose(method)
    # A palette's transparency belongs to the pixels; all else is metadata.
    turned.info = {key: value for key, value in turned.info.items() if key == "transparency"}
    return turned


def opaque(image: Image.Image) -> Image.Image:
    """The image in RGB; colours hidden under full transparency do not come to light.

    Raises:
        ImageError: `not_an_image`, if its numbers are no colours.
    """
    _require_colours(image)
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips all above 255 to white
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), pixels).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _require_colours(image: Image.Image) -> None:
    """Pillow would cut numbers off at 255: what was measured in thousands becomes all white."""
    if image.mode in ("I", "F"):
        raise ImageError(
            "not_an_image",
            f"its pixels are numbers (mode {image.mode}) whose range is not told; "
            "scale them to 0 to 255 and convert to L or RGB",
        )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
