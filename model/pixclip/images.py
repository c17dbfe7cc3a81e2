"""Open untrusted images safely: real format, pixel limit, EXIF orientation applied once.

Samples of 16 bits become eight bits, by the depth that they use.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from pixclip.image_limits import ImageError as ImageError
from pixclip.image_limits import ImageFault as ImageFault
from pixclip.image_limits import require_pixels
from pixclip.image_parts import essential_parts

try:
    import simplejpeg
except ImportError:  # there is no wheel for this machine: Pillow gives the same, more slowly
    simplejpeg = None

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
SIDEWAYS = range(5, 9)  # orientations that swap width and height
Pixels = npt.NDArray[np.uint8]  # [H, W, 3]


@dataclass(frozen=True)
class OpenedImage:
    """An upright RGB image, and how it was stored: what a source's boxes may be measured in."""

    upright: Image.Image
    stored_width: int  # in pixels, before the EXIF orientation was applied
    stored_height: int
    orientation: int  # the EXIF orientation that was applied, 1 to 8; 1 is upright as stored
    stored_mode: str = "RGB"  # as Pillow names it
    has_sound_metadata: bool = True  # what is damaged may be read otherwise by others


def open_image(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink: int = 1) -> Image.Image:
    """Decode bytes to an upright RGB image; what is transparent becomes white.

    A JPEG can be decoded at 1/`shrink` of its size (2, 4 or 8; sides round up), which skips work
    inside the decoder; other formats are always decoded whole.

    Raises:
        ImageError: `not_an_image`, `too_many_pixels` and `too_costly` (both checked before
            decoding: `pixclip.image_parts`) or `truncated_image`.
    """
    return read_image(data, max_pixels, shrink).upright


def read_image(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink: int = 1) -> OpenedImage:
    """As `open_image`, with the size that the file declares and the orientation it asked for.

    Raises:
        ImageError: as `open_image`.
    """
    return _load(*_open(data, max_pixels), shrink)


def read_size(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Width and height as the file declares them, before any EXIF orientation; decodes nothing.

    Raises:
        ImageError: as `open_image`, but for `truncated_image`.
    """
    image, _ = _open(data, max_pixels)
    width, height = image.size
    is_turned = image.format == "TIFF" and _orientation(image)[0] in SIDEWAYS
    return (height, width) if is_turned else (width, height)


def read_pixels(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink: int = 1) -> Pixels:
    """The pixels of `open_image`, uint8 [H, W, 3]; of a usual JPEG in three fifths of the time.

    Raises:
        ImageError: as `open_image`.
    """
    image, parts = _open(data, max_pixels)
    is_usual = image.format == "JPEG" and image.mode in ("RGB", "L") and min(image.size) >= 8
    if is_usual and _orientation(image)[0] == 1:
        pixels = _decode_jpeg(parts, image.size, shrink)
        if pixels is not None:
            return pixels
    return np.array(_load(image, parts, shrink).upright)


def _decode_jpeg(data: bytes, size: tuple[int, int], shrink: int) -> Pixels | None:
    """A JPEG without Pillow's copies; None if anything is wrong with it, which Pillow then tells.

    Both are libjpeg-turbo with the same transform and upsampling: they give the same pixels.
    """
    width, height = (-(-side // shrink) for side in size)
    if simplejpeg is None:
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:  # any warning of the decoder
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _open(data: bytes, max_pixels: int) -> tuple[Image.Image, bytes]:
    """An image whose header alone was read, and the part of its file that it is loaded from."""
    name, parts = essential_parts(data, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(parts), formats=[name])
    except UnidentifiedImageError:
        raise ImageError(ImageFault.NOT_AN_IMAGE, "the bytes are no image format we read") from None
    except Image.DecompressionBombError as error:
        raise ImageError(ImageFault.TOO_MANY_PIXELS, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise anything on damaged bytes
        raise ImageError(ImageFault.NOT_AN_IMAGE, _describe(error)) from error
    require_pixels(*image.size, max_pixels)
    _require_colours(image)
    return image, parts


def _load(image: Image.Image, parts: bytes, shrink: int) -> OpenedImage:
    width, height = image.size
    stored_mode = image.mode
    tiff_orientation, _ = _orientation(image) if image.format == "TIFF" else (1, True)
    rawmode, top = wide_rawmode(image), told_top_value(image)
    try:
        if shrink > 1:
            image.draft(None, (max(1, width // shrink), max(1, height // shrink)))
        image.load()  # turns a TIFF itself; a PNG's orientation may follow its pixels
        orientation, is_sound = _orientation(image)
        upright = opaque(_turned(_eight_bits(image, parts, rawmode, top), orientation))
    except (MemoryError, ImageError):
        raise
    except Exception as error:
        raise ImageError(ImageFault.TRUNCATED_IMAGE, _describe(error)) from error
    if tiff_orientation in SIDEWAYS:  # Pillow gives a TIFF's size as it will be
        width, height = height, width
    orientation = max(orientation, tiff_orientation)
    return OpenedImage(upright, width, height, orientation, stored_mode, is_sound)


def _eight_bits(image: Image.Image, data: bytes, rawmode: str, top: int | None) -> Image.Image:
    if image.mode.startswith("I;16"):
        return grey_to_eight_bits(image, top)
    if not (rawmode and is_dark(image)):
        return image
    try:
        return colour_to_eight_bits(image, data, rawmode)
    except ValueError:
        raise ImageError(
            ImageFault.NOT_AN_IMAGE,
            f"its 16-bit colours ({rawmode}) use fewer bits and would be black; "
            "stretch them to the whole range, or convert to 8 bits",
        ) from None


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """The EXIF orientation, 1 where none means anything, and whether the metadata is readable."""
    try:
        orientation: object = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # unreadable metadata of a readable image
        return 1, False
    if isinstance(orientation, int) and orientation in UPRIGHT:
        return orientation, True
    return 1, True


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned upright, without metadata, so that none turns it again.

    ImageOps.exif_transpose would also write the EXIF data anew, which fails on good images whose
    other tags are damaged.
    """
    turned = image if orientation == 1 else image.transpose(UPRIGHT[orientation])
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
        image = grey_to_eight_bits(image)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), pixels).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _require_colours(image: Image.Image) -> None:
    """Pillow would cut numbers off at 255: what was measured in thousands becomes all white."""
    if image.mode in ("I", "F"):
        raise ImageError(
            ImageFault.NOT_AN_IMAGE,
            f"its pixels are numbers (mode {image.mode}) whose range is not told; "
            "scale them to 0 to 255 and convert to L or RGB",
        )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


USUAL_BITS = (8, 10, 12, 14, 16)
TIFF_BITS, TIFF_MAX_VALUE = 258, 281  # BitsPerSample, MaxSampleValue
# Pillow keeps the first byte of each 16-bit colour sample; read the other way round, the second.
SECOND_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}  # N is this machine's own: L
LUMINANCE_ALPHA = "LA;16B"
Samples = npt.NDArray[np.uint16]


# Pictures of 16 bits a sample, as eight bits a sample.
#
# Cameras and microscopes write 10, 12 or 14 bits into files of 16: read as if they used the whole
# range they would be black. A TIFF that says how many bits count is believed. Otherwise the
# greatest value tells: the samples are of the smallest usual depth that holds it. (PNG's sBIT does
# not help: it speaks of samples that were already stretched to 16 bits.)


def grey_to_eight_bits(image: Image.Image, top: int | None = None) -> Image.Image:
    """A grey picture of mode I;16 in mode L; `top` is the value of white, if it is known."""
    wide = image.convert("I")
    _, greatest = wide.getextrema()
    assert isinstance(greatest, int | float)
    scale = 255 / (top if top and top >= greatest else top_value(int(greatest)))
    return wide.point(lambda value: value * scale).convert("L")


def top_value(greatest: int) -> int:
    """The value of white in samples of which the greatest is known."""
    bits = next((bits for bits in USUAL_BITS if greatest < 2**bits), USUAL_BITS[-1])
    return (1 << bits) - 1


def told_top_value(image: Image.Image) -> int | None:
    """The value of white, where a TIFF of 16 bits says it."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    told = [2**bits - 1 for bits in _numbers(tags.get(TIFF_BITS))] + _numbers(
        tags.get(TIFF_MAX_VALUE)
    )
    usable = [top for top in told if 255 <= top < 2**16 - 1]
    return min(usable) if usable else None


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [number for number in values if isinstance(number, int) and 0 < number < 2**16]


def wide_rawmode(image: Image.Image) -> str:
    """How an image that is not loaded yet holds 16-bit colours; "" if it holds none."""
    if image.mode not in ("RGB", "RGBA") or not isinstance(image, ImageFile.ImageFile):
        return ""
    modes = {_rawmode(tile.args) for tile in image.tile}
    return next((mode for mode in modes if ";16" in mode), "")


def is_dark(image: Image.Image) -> bool:
    """Whether the first bytes of 16-bit colours leave the upper quarter of the range unused."""
    return max(_greatest(band) for band in image.split()[:3]) < 2**14 >> 8


def colour_to_eight_bits(image: Image.Image, data: bytes, rawmode: str) -> Image.Image:
    """A loaded picture whose colours need fewer than 16 bits, from the whole samples.

    Raises:
        ValueError: Pillow does not read the second bytes of such samples.
    """
    again = Image.open(io.BytesIO(data), formats=[image.format or ""])
    again.tile = [tile._replace(args=_other_bytes(tile.args)) for tile in again.tile]
    again.load()
    if rawmode == LUMINANCE_ALPHA:  # as RGBA: both bytes of the grey, both bytes of the alpha
        four = np.asarray(again).astype(np.uint16)
        grey, alpha = four[..., 0] << 8 | four[..., 1], four[..., 2] << 8 | four[..., 3]
        samples = np.stack([grey, grey, grey, alpha], axis=-1)
    else:
        samples = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    colours = _scaled(samples[..., :3])
    if samples.shape[-1] == 3:
        return Image.fromarray(colours)
    return Image.fromarray(np.concatenate([colours, _scaled(samples[..., 3:])], axis=-1))


def _scaled(samples: Samples) -> npt.NDArray[np.uint8]:
    table = np.arange(2**16) * (255 / top_value(int(samples.max())))
    return table.clip(max=255).round().astype(np.uint8)[samples]


def _greatest(band: Image.Image) -> int:
    greatest = band.getextrema()[1]
    assert isinstance(greatest, int)
    return greatest


def _rawmode(args: object) -> str:
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _other_bytes(args: Any) -> Any:
    rawmode = _rawmode(args)
    other = rawmode[:-4] + SECOND_BYTE.get(rawmode[-4:], rawmode[-4:])
    other = "RGBA" if rawmode == LUMINANCE_ALPHA else other
    return (other, *args[1:]) if isinstance(args, tuple) else other
