"""Decoded photographs, kept small and kept once: scenes use each of them many times."""

from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

MAX_BACKGROUND_PX = 1600
MAX_OBJECT_PX = 640
# Where stamps fade out they still show what they were cut from: the outer half of the fading edge
# is left out, so that no light seam surrounds an object.
EDGE = [max(0, round((alpha - 96) * 255 / 159)) for alpha in range(256)]


@lru_cache(maxsize=64)
def background_image(path: Path) -> Image.Image:
    """A background, upright RGB, its long side limited."""
    with Image.open(path) as image:
        image.draft("RGB", (MAX_BACKGROUND_PX, MAX_BACKGROUND_PX))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((MAX_BACKGROUND_PX, MAX_BACKGROUND_PX), Image.Resampling.LANCZOS)
    return upright


def inner_alpha(alpha: Image.Image) -> Image.Image:
    """An alpha channel without the outermost pixels, which show what the object was cut from."""
    has_hard_edge = sum(alpha.histogram()[1:255]) == 0
    if has_hard_edge:
        return alpha.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.BoxBlur(0.5))
    return alpha.point(EDGE)


@lru_cache(maxsize=512)
def object_image(path: Path) -> Image.Image:
    """A cut-out object without its empty margin, premultiplied RGBa, its long side limited."""
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    rgba.putalpha(inner_alpha(rgba.getchannel("A")))
    visible = rgba.getchannel("A").point(lambda alpha: 255 if alpha >= 128 else 0).getbbox()
    assert visible, f"{path} shows nothing"
    # Premultiplied: a resize must not mix the unseen colour of transparent pixels into the edge.
    cut = rgba.crop(visible).convert("RGBa")
    cut.thumbnail((MAX_OBJECT_PX, MAX_OBJECT_PX), Image.Resampling.LANCZOS)
    return cut
