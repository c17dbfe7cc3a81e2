"""Compose a scene: three cut-out photographs on a photographic background, with exact masks.

Objects stand inside the image, apart, each in a part of its own; decoded photographs are kept small
and kept once.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from components.data.sample_grit.catalogue import ObjectPhoto
from pixclip.masks import Box, Mask, mask_box

OBJECTS_PER_SCENE = 3
MAX_UPSCALE = 2.2  # small stamps get blurred beyond it
JPEG_QUALITY = 92


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene; the mask [H, W] and the box are of its visible pixels."""

    phrase: str
    mask: Mask
    box: Box


@dataclass(frozen=True)
class Scene:
    """A composed image and what it shows, from left to right."""

    image: Image.Image
    objects: tuple[SceneObject, ...]

    def jpeg(self) -> bytes:
        """The image's bytes."""
        target = io.BytesIO()
        self.image.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return target.getvalue()


def compose_scene(
    photos: Sequence[ObjectPhoto],
    background: Path,
    width_px: int,
    height_px: int,
    random: Random,
) -> Scene:
    """Put the objects on the background; what stands lower in the image stands in front."""
    canvas = draw_background(background, width_px, height_px, random)
    cutouts = [object_image(photo.path) for photo in photos]
    sizes = [
        object_size(photo, cutout.size, height_px, random)
        for photo, cutout in zip(photos, cutouts, strict=True)
    ]
    places = lay_out(sizes, width_px, height_px, random)
    order = sorted(range(len(photos)), key=lambda i: (places[i].bottom, i))
    masks: dict[int, Mask] = {}
    for i in order:
        is_mirrored = photos[i].may_mirror and random.random() < 0.5
        shape = paste(canvas, cutouts[i], places[i], is_mirrored=is_mirrored)
        masks = {behind: mask & ~shape for behind, mask in masks.items()} | {i: shape}
    objects = [SceneObject(photos[i].phrase, masks[i], mask_box(masks[i])) for i in order]
    return Scene(canvas, tuple(sorted(objects, key=lambda item: item.box[0] + item.box[2])))


def draw_background(path: Path, width_px: int, height_px: int, random: Random) -> Image.Image:
    """A random view of a background: another crop, side and brightness every time."""
    source = background_image(path)
    largest = min(source.width / width_px, source.height / height_px)
    zoom = largest * random.uniform(0.55, 1.0)
    width, height = width_px * zoom, height_px * zoom
    left, top = random.uniform(0, source.width - width), random.uniform(0, source.height - height)
    box = (left, top, left + width, top + height)
    view = source.resize((width_px, height_px), Image.Resampling.LANCZOS, box=box)
    if random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(view).enhance(random.uniform(0.88, 1.08))


def object_size(
    photo: ObjectPhoto, pixels: tuple[int, int], height_px: int, random: Random
) -> tuple[int, int]:
    """Width and height of an object in a scene, in pixels."""
    long_side = height_px * random.uniform(photo.min_share, photo.max_share)
    scale = min(long_side / max(pixels), MAX_UPSCALE)
    return max(2, round(pixels[0] * scale)), max(2, round(pixels[1] * scale))


@dataclass(frozen=True)
class Place:
    """An object's rectangle in pixels of the scene."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Area in pixels."""
        return self.width * self.height

    @property
    def bottom(self) -> int:
        """The row below the rectangle."""
        return self.y + self.height


def paste(canvas: Image.Image, cutout: Image.Image, place: Place, *, is_mirrored: bool) -> Mask:
    """Draw an object and give the mask [H, W] of its mostly opaque pixels."""
    drawn = cutout.resize((place.width, place.height), Image.Resampling.LANCZOS)
    if is_mirrored:
        drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    straight = drawn.convert("RGBA")
    canvas.paste(straight, (place.x, place.y), straight)
    mask = np.zeros((canvas.height, canvas.width), dtype=bool)
    alpha = np.asarray(straight.getchannel("A"))
    mask[place.y : place.y + place.height, place.x : place.x + place.width] = alpha >= 128
    return mask


MARGIN_PX = 6
MAX_OVERLAP = 0.08  # of the smaller of two boxes
TRIES_PER_SIZE = 40
SHRINK = 0.92
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


def place_name(center_x: float, center_y: float) -> str:
    """What one calls a point of the image, given as shares of its width and height."""
    column, row = min(int(center_x * 3), 2), min(int(center_y * 3), 2)
    return PLACES[row][column]


def lay_out(
    sizes: Sequence[tuple[int, int]], width_px: int, height_px: int, random: Random
) -> list[Place]:
    """A place for every object of that (width, height), made smaller if there is no room."""
    scale = 1.0
    while True:
        scaled = [(max(1, round(w * scale)), max(1, round(h * scale))) for w, h in sizes]
        for _ in range(TRIES_PER_SIZE):
            places = [_anywhere(size, width_px, height_px, random) for size in scaled]
            if _is_clear(places, width_px, height_px):
                return places
        scale *= SHRINK
        assert scale > 0.01, f"no room for {sizes} in {width_px} x {height_px}"


def _anywhere(size: tuple[int, int], width_px: int, height_px: int, random: Random) -> Place:
    width, height = size
    room_x, room_y = width_px - width - 2 * MARGIN_PX, height_px - height - 2 * MARGIN_PX
    if room_x < 0 or room_y < 0:
        return Place(-1, -1, width, height)
    x = MARGIN_PX + random.randint(0, room_x)
    # Things stand on a ground more often than they fly.
    y = MARGIN_PX + round(random.triangular(0, room_y, 0.7 * room_y))
    return Place(x, y, width, height)


def _is_clear(places: Sequence[Place], width_px: int, height_px: int) -> bool:
    names = {
        place_name((p.x + p.width / 2) / width_px, (p.y + p.height / 2) / height_px) for p in places
    }
    return (
        all(place.x >= 0 for place in places)
        and len(names) == len(places)
        and all(overlap(a, b) <= MAX_OVERLAP for a, b in combinations(places, 2))
    )


def overlap(first: Place, second: Place) -> float:
    """The shared area as a share of the smaller rectangle."""
    width = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    height = min(first.bottom, second.bottom) - max(first.y, second.y)
    return max(width, 0) * max(height, 0) / min(first.area, second.area)


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
