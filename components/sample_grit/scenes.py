"""Compose a scene: three cut-out photographs on a photographic background, with exact masks."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageEnhance

from components.sample_grit.catalogue import ObjectPhoto
from components.sample_grit.layout import Place, lay_out
from components.sample_grit.pictures import background_image, object_image
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
