"""FGVC-Aircraft 2013b: three levels of labels, boxes of aircraft, and a banner in every photograph.

https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/
"""

from components.data.formats.files import Files
from components.data.formats.parts import (
    TEST,
    TRAIN,
    PartImage,
    Split,
    Table,
    numbers_of,
    require_area,
    root_of,
)
from components.data.formats.values import BadValueError, LeftOut
from data_contracts.reasons import PartReason
from pixclip.masks import Box

LEVELS = ("variant", "family", "manufacturer")  # the finest first
SPLITS: dict[str, Split] = {"trainval": TRAIN, "test": TEST}
BANNER_PX = 20  # the copyright notice at the bottom of every photograph
LAYOUT = """\
  fgvc-aircraft-2013b/      the folder itself, one inside or around it, or the archive
    data/images/            <image id>.jpg
    data/images_box.txt     <image id> <xmin> <ymin> <xmax> <ymax>
    data/images_variant_trainval.txt, images_variant_test.txt    <image id> <label>
    data/images_family_trainval.txt, images_family_test.txt
    data/images_manufacturer_trainval.txt, images_manufacturer_test.txt"""
REQUIRED = (
    "images_box.txt",
    *(f"images_{level}_{split}.txt" for level in LEVELS for split in SPLITS),
)


class Aircraft:
    """FGVC-Aircraft: no parts; its training and validation images are for training."""

    name = "aircraft"

    def read(self, files: Files, left_out: LeftOut) -> list[PartImage]:
        """All images, training and test."""
        root = root_of(files, "FGVC-Aircraft", REQUIRED, LAYOUT)
        boxes = Table(files, f"{root}images_box.txt", 5, left_out)
        tables = {
            (level, split): Table(
                files, f"{root}images_{level}_{split}.txt", 2, left_out, is_open=True
            )
            for level in LEVELS
            for split in SPLITS
        }
        images = []
        for split in SPLITS:
            levels = [tables[level, split] for level in LEVELS]
            other = next(tables[LEVELS[0], name] for name in SPLITS if name != split)
            for key in levels[0].rows:
                images.append(_image(key, root, SPLITS[split], levels, boxes, other))
        return images


def _image(
    key: str, root: str, split: Split, levels: list[Table], boxes: Table, other: Table
) -> PartImage:
    labels, box, fault = [], None, None
    try:
        if key in other.rows:
            raise BadValueError(
                PartReason.UNKNOWN_SPLIT, f"{levels[0].name} and {other.name} have image {key}"
            )
        labels = [table.text(key, "image") for table in levels]
        box = _box(key, boxes)
    except BadValueError as error:
        fault = error
    return PartImage(
        id=key,
        place=levels[0].places[key],
        file=f"{root}images/{key}.jpg",
        split="" if fault and fault.reason == PartReason.UNKNOWN_SPLIT else split,
        super_class="aircraft",
        labels=tuple(labels),
        box=box,
        banner_px=BANNER_PX,
        has_parts=False,
        fault=fault,
    )


def _box(key: str, boxes: Table) -> Box:
    boxes.text(key, "image")
    x1, y1, x2, y2 = numbers_of(boxes.rows[key], boxes.name)
    return require_area((x1 - 1, y1 - 1, x2, y2), boxes.places[key])  # they count from 1
