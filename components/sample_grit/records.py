"""GRIT records of composed scenes."""

from dataclasses import dataclass
from random import Random

from components.kernel.tables import Row
from components.sample_grit.captions import Caption, write_caption
from components.sample_grit.catalogue import ObjectPhoto, Photographs
from components.sample_grit.scenes import OBJECTS_PER_SCENE, Scene, compose_scene
from pixclip.masks import Box, encode_mask

TRAIN, BENCHMARK = "train", "benchmark"
SEEN, HELD_OUT = "seen_objects", "held_out_objects"


@dataclass(frozen=True)
class Label:
    """What a scene is for: its split and, in the benchmark, which objects it shows."""

    split: str
    subset: str


def label_of(number: int, benchmark_share: float) -> Label:
    """The label of a scene: benchmark scenes are spread evenly, every other one held out."""
    before, after = int(number * benchmark_share), int((number + 1) * benchmark_share)
    if before == after:
        return Label(TRAIN, "")
    return Label(BENCHMARK, SEEN if before % 2 == 0 else HELD_OUT)


def draw_scene(
    photographs: Photographs, label: Label, width_px: int, height_px: int, random: Random
) -> Scene:
    """A scene of three things with different names, from what its label allows."""
    is_train = label.split == TRAIN
    backgrounds = photographs.train_backgrounds if is_train else photographs.benchmark_backgrounds
    objects = photographs.held_out_objects if label.subset == HELD_OUT else photographs.seen_objects
    photos: dict[str, ObjectPhoto] = {}
    while len(photos) < OBJECTS_PER_SCENE:
        photo = random.choice(objects)
        photos.setdefault(photo.phrase, photo)
    background = random.choice(backgrounds)
    return compose_scene(list(photos.values()), background, width_px, height_px, random)


def record_of(number: int, label: Label, scene: Scene, random: Random) -> Row:
    """The GRIT record of a scene; similarities and scores are drawn as GRIT's are spread."""
    width, height = scene.image.size
    caption = write_caption(scene.objects, width, height, random)
    regions = _regions(scene, caption, random)
    similarity = random.uniform(0.20, 0.34)
    return {
        "key": f"{number:09d}",
        "clip_similarity_vitb32": round(similarity + random.uniform(0.0, 0.06), 6),
        "clip_similarity_vitl14": round(similarity, 6),
        "id": number,
        "url": f"file:///images/{number:09d}.jpg",
        "caption": caption.text,
        "width": width,
        "height": height,
        "noun_chunks": regions,
        "ref_exps": regions,
        "masks": [encode_mask(item.mask).counts for item in scene.objects],
        "split": label.split,
        "subset": label.subset,
        "fault": "",
    }


def _regions(scene: Scene, caption: Caption, random: Random) -> list[list[float]]:
    """GRIT's seven numbers of each object: offsets, normalised box and score."""
    return [
        [*map(float, span), *_normalised(item.box, scene), round(random.uniform(0.68, 0.96), 6)]
        for item, span in zip(scene.objects, caption.spans, strict=True)
    ]


def _normalised(box: Box, scene: Scene) -> tuple[float, float, float, float]:
    width, height = scene.image.size
    x1, y1, x2, y2 = box
    return x1 / width, y1 / height, x2 / width, y2 / height
