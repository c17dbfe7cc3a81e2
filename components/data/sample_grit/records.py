"""GRIT records of composed scenes, their captions, and the faults of some of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from components.core.tables import Row
from components.data.sample_grit.catalogue import ObjectPhoto, Photographs
from components.data.sample_grit.scenes import (
    OBJECTS_PER_SCENE,
    Scene,
    SceneObject,
    compose_scene,
    place_name,
)
from pixclip.data.layout import BENCHMARK, HELD_OUT_OBJECTS, SEEN_OBJECTS, TRAIN, WHOLE_IMAGE
from pixclip.masks import Box, encode_mask


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
    return Label(BENCHMARK, SEEN_OBJECTS if before % 2 == 0 else HELD_OUT_OBJECTS)


def draw_scene(
    photographs: Photographs, label: Label, width_px: int, height_px: int, random: Random
) -> Scene:
    """A scene of three things with different names, from what its label allows."""
    is_train = label.split == TRAIN
    backgrounds = photographs.train_backgrounds if is_train else photographs.benchmark_backgrounds
    objects = (
        photographs.held_out_objects
        if label.subset == HELD_OUT_OBJECTS
        else photographs.seen_objects
    )
    photos: dict[str, ObjectPhoto] = {}
    while len(photos) < OBJECTS_PER_SCENE:
        photo = random.choice(objects)
        photos.setdefault(photo.phrase, photo)
    background = random.choice(backgrounds)
    return compose_scene(list(photos.values()), background, width_px, height_px, random)


def with_whole_image(row: Row) -> Row:
    """A record whose first region is the image itself, and the others parts of it.

    What an image shows is known by construction; it is a scene, and its objects stand for parts.
    """
    caption = f"{WHOLE}: {row['caption']}"
    shift = len(caption) - len(row["caption"])
    whole = [0.0, float(len(WHOLE)), 0.0, 0.0, 1.0, 1.0, 1.0]
    parts = [[start + shift, end + shift, *rest] for start, end, *rest in row["ref_exps"]]
    everything = np.ones((row["height"], row["width"]), dtype=bool)
    return {
        **row,
        "caption": caption,
        "noun_chunks": [whole, *parts],
        "ref_exps": [whole, *parts],
        "masks": [encode_mask(everything).counts, *row["masks"]],
        "box_sources": [WHOLE_IMAGE, *["published"] * len(parts)],
    }


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


@dataclass(frozen=True)
class Caption:
    """A caption; `spans` are the [start, end) character offsets of the objects' names."""

    text: str
    spans: tuple[tuple[int, int], ...]


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


WHOLE = "A composed scene"
OPENINGS = (
    "",
    "A composed scene with ",
    "A picture of ",
    "In this scene there are three things: ",
    "The image shows ",
    "Here one sees ",
)


def write_caption(
    objects: Sequence[SceneObject], width_px: int, height_px: int, random: Random
) -> Caption:
    """One sentence that names every object and says where it is."""
    text, spans = random.choice(OPENINGS), []
    for number, item in enumerate(objects):
        if number:
            text += " and " if number == len(objects) - 1 else ", "
        phrase = item.phrase if text else item.phrase[0].upper() + item.phrase[1:]
        spans.append((len(text), len(text) + len(phrase)))
        text += f"{phrase} {_where(item, width_px, height_px)}"
    return Caption(f"{text}.", tuple(spans))


def _where(item: SceneObject, width_px: int, height_px: int) -> str:
    x1, y1, x2, y2 = item.box
    return place_name((x1 + x2) / 2 / width_px, (y1 + y2) / 2 / height_px)


# `.invalid` never resolves (RFC 2606): a dead address on every machine, also without a network.
DEAD_HOST = "dead.invalid"
KEPT_SHARE = 0.55  # of a truncated image's bytes
DUPLICATE_IMAGE = "duplicate_image"
TRUNCATED_IMAGE = "truncated_image"
DEAD_URL = "dead_url"

Region = list[float]  # start, end, x1, y1, x2, y2, score


# Break records on purpose, so that gates, quarantine and report have something to show.
#
# Each fault has one place where it must end; a fault of a region breaks one region of its record.
#
# | fault | breaks | ends in | with the reason |
# |---|---|---|---|
# | `box_outside_image` | one region | select | `box_outside_image` |
# | `tiny_box` | one region | select | `tiny_box` |
# | `wrong_offsets` | one region | select | `wrong_offsets` |
# | `low_score` | one region | select | `low_score` |
# | `low_similarity` | the record | select | `low_clip_similarity` |
# | `dead_url` | the record | ingest | a failed download |
# | `truncated_image` | the record | ingest | `truncated_image` |
# | `duplicate_image` | the record | deduplicate | an exact duplicate of an earlier record |


def move_outside(region: Region, row: Row, random: Random) -> Region:
    """The box runs over the right edge of the image."""
    start, end, x1, y1, x2, y2, score = region
    shift = 1.0 - x1 - (x2 - x1) * random.uniform(0.2, 0.6)
    return [start, end, x1 + shift, y1, x2 + shift, y2, score]


def make_tiny(region: Region, row: Row, random: Random) -> Region:
    """The box is two or three pixels wide and high."""
    start, end, x1, y1, _, _, score = region
    side = random.choice((2, 3))
    return [start, end, x1, y1, x1 + side / row["width"], y1 + side / row["height"], score]


def misplace_offsets(region: Region, row: Row, random: Random) -> Region:
    """The offsets point behind the end of the caption."""
    shift = float(len(row["caption"]) + random.randint(1, 40))
    return [region[0] + shift, region[1] + shift, *region[2:]]


def lower_score(region: Region, row: Row, random: Random) -> Region:
    """The detector was not sure of this box."""
    return [*region[:6], round(random.uniform(0.30, 0.60), 6)]


REGION_FAULTS: dict[str, Callable[[Region, Row, Random], Region]] = {
    "box_outside_image": move_outside,
    "tiny_box": make_tiny,
    "wrong_offsets": misplace_offsets,
    "low_score": lower_score,
}
FAULTS = (
    DEAD_URL,
    TRUNCATED_IMAGE,
    "box_outside_image",
    "tiny_box",
    DUPLICATE_IMAGE,
    "wrong_offsets",
    "low_score",
    "low_similarity",
)


def plan_faults(num_records: int, share: float, seed: int) -> dict[int, str]:
    """Record number -> fault: that share of the records, every kind equally often."""
    random = Random(f"{seed}-faults")  # noqa: S311 - reproducible, not secret
    broken = sorted(random.sample(range(num_records), round(num_records * share)))
    return {number: FAULTS[turn % len(FAULTS)] for turn, number in enumerate(broken)}


def break_record(row: Row, fault: str, random: Random) -> Row:
    """A copy of a record with this fault, and the fault's name in it."""
    broken = {**row, "fault": fault}
    if fault in REGION_FAULTS:
        regions = [list(region) for region in row["ref_exps"]]
        index = random.randrange(len(regions))
        regions[index] = REGION_FAULTS[fault](regions[index], row, random)
        broken["ref_exps"] = regions
    elif fault == "low_similarity":
        broken["clip_similarity_vitl14"] = round(random.uniform(0.02, 0.10), 6)
    elif fault == DEAD_URL:
        broken["url"] = f"http://{DEAD_HOST}/{row['key']}.jpg"
    return broken
