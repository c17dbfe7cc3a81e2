"""CUB-200-2011 and NABirds: birds with part points, in tables whose fields blanks divide.

https://www.vision.caltech.edu/datasets/cub_200_2011/ and https://dl.allaboutbirds.org/nabirds
"""

import re
from collections import defaultdict
from dataclasses import replace

from components.data.formats.files import Files
from components.data.formats.parts import (
    TEST,
    TRAIN,
    Part,
    PartImage,
    Split,
    Table,
    numbers_of,
    read_text,
    require_area,
    require_known,
    root_of,
    split_fields,
)
from components.data.formats.values import BadValueError, LeftOut, shown
from data_contracts.reasons import PartReason
from pixclip.masks import Box

SPLITS: dict[str, Split] = {"1": TRAIN, "0": TEST}
NUMBERED = re.compile(r"^\d+\.")
CUB_LAYOUT = """\
  CUB_200_2011/             the folder itself, one that holds it, or CUB_200_2011.tgz
    images.txt              <image id> <path below images/>
    images/
    classes.txt             <class id> <name>
    image_class_labels.txt  <image id> <class id>
    train_test_split.txt    <image id> <1: training, 0: test>
    bounding_boxes.txt      <image id> <x> <y> <width> <height>
    parts/parts.txt         <part id> <name>
    parts/part_locs.txt     <image id> <part id> <x> <y> <visible>
    attributes/image_attribute_labels.txt  <image id> <attribute id> <present> <certainty> <seconds>
  attributes.txt            <attribute id> <name>, if you have it: beside the folder or in it
  segmentations/            of segmentations.tgz, if you have it: beside CUB_200_2011 or in it"""
NABIRDS_LAYOUT = """\
  nabirds/                  the folder itself, one that holds it, or an archive of it
    images.txt              <image id> <path below images/>
    images/
    sizes.txt               <image id> <width> <height>
    classes.txt             <class id> <name>
    image_class_labels.txt  <image id> <class id>
    train_test_split.txt    <image id> <1: training, 0: test>
    bounding_boxes.txt      <image id> <x> <y> <width> <height>
    parts/parts.txt         <part id> <name>
    parts/part_locs.txt     <image id> <part id> <x> <y> <visible>"""
REQUIRED = (
    "parts/part_locs.txt",
    "parts/parts.txt",
    "bounding_boxes.txt",
    "train_test_split.txt",
    "image_class_labels.txt",
    "classes.txt",
    "images.txt",
)


class Cub:
    """CUB-200-2011: 15 part points a bird, boxes, and segmentations in an archive of their own."""

    name, title, layout = "cub", "CUB-200-2011", CUB_LAYOUT
    required: tuple[str, ...] = REQUIRED
    segmentations: tuple[str, ...] = ("segmentations/",)

    def read(self, files: Files, left_out: LeftOut) -> list[PartImage]:
        """All images, training and test."""
        root = root_of(files, self.title, self.required, self.layout)
        tables = _Tables(files, root, left_out)
        sizes = Table(files, f"{root}sizes.txt", 3, left_out) if self._has_sizes else None
        parts = _read_parts(files, root, tables.paths, left_out)
        images = [
            self._image(key, files, root, tables, sizes, tuple(parts[key]))
            for key in tables.paths.rows
        ]
        attributes = _read_attributes(files, root, tables.paths, left_out)
        return [replace(image, attributes=tuple(attributes[image.id])) for image in images]

    @property
    def _has_sizes(self) -> bool:
        return "sizes.txt" in self.required

    def _image(
        self,
        key: str,
        files: Files,
        root: str,
        tables: "_Tables",
        sizes: Table | None,
        parts: tuple[Part, ...],
    ) -> PartImage:
        path = tables.paths.text(key, "image")
        split: Split = ""
        label, box, size, fault = "", None, None, None
        try:
            split = tables.split(key)
            label, box = tables.label(key), tables.box(key)
            size = _size(sizes, key) if sizes else None
        except BadValueError as error:
            fault = error
        stem = path.rpartition(".")[0]
        masks = [root + folder + stem + ".png" for folder in self.segmentations]
        masks += [folder + stem + ".png" for folder in self.segmentations]
        return PartImage(
            id=key,
            place=tables.paths.places[key],
            file=f"{root}images/{path}",
            split=split,
            super_class="bird",
            labels=(NUMBERED.sub("", label).replace("_", " "),) if label else (),
            box=box,
            segmentation=next((name for name in masks if name in files.names), ""),
            size=size,
            parts=parts,
            fault=fault,
        )


class NaBirds(Cub):
    """NABirds: 11 part points a bird, and the images' sizes."""

    name, title, layout = "nabirds", "NABirds", NABIRDS_LAYOUT
    required = (*REQUIRED, "sizes.txt")
    segmentations = ()


class _Tables:
    """What every image has a row of."""

    def __init__(self, files: Files, root: str, left_out: LeftOut) -> None:
        self.paths = Table(files, f"{root}images.txt", 2, left_out, is_open=True)
        self._classes = Table(files, f"{root}classes.txt", 2, left_out, is_open=True)
        self._labels = Table(files, f"{root}image_class_labels.txt", 2, left_out)
        self._splits = Table(files, f"{root}train_test_split.txt", 2, left_out)
        self._boxes = Table(files, f"{root}bounding_boxes.txt", 5, left_out)

    def split(self, key: str) -> Split:
        """Whether an image is for training or for testing.

        Raises:
            BadValueError: `unknown_split`.
        """
        found = SPLITS.get(self._splits.rows.get(key, [""])[0])
        if found is None:
            raise BadValueError(
                PartReason.UNKNOWN_SPLIT, f"{self._splits.name} does not say it of image {key}"
            )
        return found

    def label(self, key: str) -> str:
        """The name of an image's class."""
        return self._classes.text(self._labels.text(key, "image"), "class")

    def box(self, key: str) -> Box:
        """The object's box."""
        self._boxes.text(key, "image")
        x, y, width, height = numbers_of(self._boxes.rows[key], self._boxes.name)
        return require_area((x, y, x + width, y + height), self._boxes.places[key])


def _size(sizes: Table, key: str) -> tuple[int, int]:
    sizes.text(key, "image")
    width, height = numbers_of(sizes.rows[key], sizes.name)
    if not (width.is_integer() and height.is_integer() and width >= 1 and height >= 1):
        raise BadValueError(
            PartReason.MALFORMED_ROW, f"{sizes.places[key]}: an image of {width} x {height}"
        )
    return int(width), int(height)


def _read_parts(
    files: Files, root: str, paths: Table, left_out: LeftOut
) -> defaultdict[str, list[Part]]:
    """The parts by image; a row of a part that another row has is left out."""
    kinds = Table(files, f"{root}parts/parts.txt", 2, left_out, is_open=True)
    found: defaultdict[str, list[Part]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    name = f"{root}parts/part_locs.txt"
    for place, line in read_text(files, name):
        with left_out.judging(place):
            image, kind, *point, is_visible = split_fields(line, 5)
            require_known(image, paths.rows, "image", paths.name)
            require_known(kind, kinds.rows, "part", kinds.name)
            if (image, kind) in seen:
                raise BadValueError(
                    PartReason.REPEATED_ROW, f"{shown(line)}: an earlier row is of this part"
                )
            seen.add((image, kind))
            x, y = numbers_of(point, "the part's point")
            if is_visible not in ("0", "1"):
                raise BadValueError(
                    PartReason.MALFORMED_ROW, f"{shown(line)}: visible is neither 0 nor 1"
                )
            part = Part(kinds.text(kind, "part"), place, (x, y) if is_visible == "1" else None)
            found[image].append(part)
    return found


SURE = ("3", "4")  # probably, definitely; 1 and 2 are "not visible" and "guessing"
LABELS, NAMES = "attributes/image_attribute_labels.txt", "attributes.txt"


def _read_attributes(
    files: Files, root: str, paths: Table, left_out: LeftOut
) -> defaultdict[str, list[str]]:
    """What annotators are sure to see, by image: `bill shape hooked`; nothing without the files.

    Some published rows have further columns: which of them count nobody knows.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    around = root.removesuffix("/").rpartition("/")[0]
    places = [f"{around}/{NAMES}".lstrip("/"), root + NAMES, f"{root}attributes/{NAMES}"]
    table = next((name for name in places if name in files.names), None)
    if table is None or root + LABELS not in files.names:
        return found
    names = Table(files, table, 2, left_out, is_open=True)
    for place, line in read_text(files, root + LABELS):
        fields = line.split()
        if len(fields) == 5 and fields[2] == "0":  # nine rows of ten, of three millions
            continue
        with left_out.judging(place):
            image, attribute, is_present, certainty, _ = split_fields(line, 5)
            require_known(image, paths.rows, "image", paths.name)
            text = names.text(attribute, "attribute")
            if is_present != "1":
                raise BadValueError(
                    PartReason.MALFORMED_ROW, f"{shown(line)}: present is neither 0 nor 1"
                )
            if certainty in SURE:
                found[image].append(_attribute_text(text))
    return found


def _attribute_text(name: str) -> str:
    """`has_bill_shape::curved_(up_or_down)` as `bill shape curved (up or down)`."""
    return " ".join(name.removeprefix("has_").replace("::", " ").replace("_", " ").split())
