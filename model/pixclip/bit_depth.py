"""Pictures of 16 bits a sample, as eight bits a sample.

Cameras and microscopes write 10, 12 or 14 bits into files of 16: read as if they used the whole
range they would be black. A TIFF that says how many bits count is believed. Otherwise the greatest
value tells: the samples are of the smallest usual depth that holds it. (PNG's sBIT does not help:
it speaks of samples that were already stretched to 16 bits.)
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

USUAL_BITS = (8, 10, 12, 14, 16)
TIFF_BITS, TIFF_MAX_VALUE = 258, 281  # BitsPerSample, MaxSampleValue
# Pillow keeps the first byte of each 16-bit colour sample; read the other way round, the second.
SECOND_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}  # N is this machine's own: L
LUMINANCE_ALPHA = "LA;16B"
Samples = npt.NDArray[np.uint16]


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
