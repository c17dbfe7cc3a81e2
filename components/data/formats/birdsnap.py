"""Birdsnap 1.1: birds with 17 part points, in tables whose fields tabs divide.

http://thomasberg.org/: the photographs are not in the archive, but addresses at Flickr. Those that
`get_birdsnap.py` brought are read; the others, whose links are dead, are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.core.errors import InputError
from components.data.formats.files import Files
from components.data.formats.parts import (
    TEST,
    TRAIN,
    Part,
    PartImage,
    Point,
    numbers_of,
    read_text,
    require_area,
    require_known,
    root_of,
)
from components.data.formats.values import BadValueError, LeftOut, shown
from data_contracts.reasons import PartReason
from pixclip.masks import Box

LAYOUT = """\
  birdsnap/                 the folder itself, one that holds it, or an archive of it
    images.txt              tabs between url, md5, path, species_id, bb_x1, bb_y1, bb_x2, bb_y2 and
                            <part>_x, <part>_y of every part, with a header; blank: not visible
    species.txt             tabs between id, common, scientific, dir, with a header
    test_images.txt         paths of the test images
    images/ or download/images/  where get_birdsnap.py put the photographs"""
REQUIRED = ("images.txt", "species.txt", "test_images.txt")
IMAGE_COLUMNS = ("url", "md5", "path", "species_id", "bb_x1", "bb_y1", "bb_x2", "bb_y2")
SPECIES_COLUMNS = ("id", "common")
FOLDERS = ("images/", "download/images/")


class Birdsnap:
    """Birdsnap: part points, boxes and the MD5 of every photograph."""

    name = "birdsnap"

    def read(self, files: Files, left_out: LeftOut) -> list[PartImage]:
        """All images, training and test."""
        root = root_of(files, "Birdsnap", REQUIRED, LAYOUT)
        rows = _rows(files, f"{root}images.txt", IMAGE_COLUMNS, left_out)
        species = {
            row["id"]: row["common"]
            for _, row in _rows(files, f"{root}species.txt", SPECIES_COLUMNS, left_out)
        }
        paths = {row["path"] for _, row in rows}
        test = _test_paths(files, f"{root}test_images.txt", paths, left_out)
        seen: set[str] = set()
        images = []
        for place, row in rows:
            with left_out.judging(place):
                if row["path"] in seen or not row["path"]:
                    raise BadValueError(
                        PartReason.REPEATED_ROW, f"an earlier row has the path {shown(row['path'])}"
                    )
                seen.add(row["path"])
                images.append(_image(_Row(place, row), files, root, species, test, left_out))
        return images


@dataclass(frozen=True)
class _Row:
    place: str
    fields: Mapping[str, str]


def _image(
    row: _Row,
    files: Files,
    root: str,
    species: Mapping[str, str],
    test: set[str],
    left_out: LeftOut,
) -> PartImage:
    path, label = row.fields["path"], row.fields["species_id"]
    box, fault = None, None
    try:
        require_known(label, species, "species", f"{root}species.txt")
        box = _box(row)
    except BadValueError as error:
        fault = error
    places = [f"{root}{folder}{path}" for folder in FOLDERS]
    return PartImage(
        id=path,
        place=row.place,
        file=next((name for name in places if name in files.names), places[0]),
        split=TEST if path in test else TRAIN,
        super_class="bird",
        labels=(species[label],) if label in species else (),
        box=box,
        md5=row.fields["md5"].lower(),
        parts=tuple(_parts(row, left_out)),
        fault=fault,
    )


def _box(row: _Row) -> Box:
    x1, y1, x2, y2 = numbers_of([row.fields[name] for name in IMAGE_COLUMNS[4:]], "the box")
    return require_area((x1, y1, x2, y2), row.place)


def _parts(row: _Row, left_out: LeftOut) -> list[Part]:
    found = []
    for column in row.fields:
        if not column.endswith("_x"):
            continue
        name = column.removesuffix("_x")
        place = f"{row.place}:{name}"
        with left_out.judging(place):
            found.append(Part(name.replace("_", " "), place, _point(row, name)))
    return found


def _point(row: _Row, name: str) -> Point | None:
    texts = [row.fields[f"{name}_{axis}"].strip() for axis in "xy"]
    if not any(texts):
        return None
    x, y = numbers_of(texts, f"the point of {name}")
    return x, y


def _rows(
    files: Files, name: str, columns: Sequence[str], left_out: LeftOut
) -> list[tuple[str, dict[str, str]]]:
    """The rows of a table by the names in its header.

    Raises:
        InputError: the header lacks a column.
    """
    found: list[tuple[str, dict[str, str]]] = []
    header: list[str] = []
    for place, line in read_text(files, name):
        fields = [field.strip() for field in line.split("\t")]
        if not header:
            header = fields
            missing = [column for column in columns if column not in header]
            xs = [column[:-1] for column in header if column.endswith("_x")]
            missing += [f"{column}y" for column in xs if f"{column}y" not in header]
            if missing:
                raise InputError(
                    f"{files.address} is not Birdsnap: the header of {name} lacks "
                    f"{', '.join(missing)}. The layout is\n{LAYOUT}"
                )
            continue
        with left_out.judging(place):
            if len(fields) != len(header):
                raise BadValueError(
                    PartReason.MALFORMED_ROW,
                    f"{shown(line)} has {len(fields)} fields, the header {len(header)}",
                )
            found.append((place, dict(zip(header, fields, strict=True))))
    return found


def _test_paths(files: Files, name: str, known: set[str], left_out: LeftOut) -> set[str]:
    """The test images; a path that no image has is told, as that image may be a training one."""
    found = set()
    for place, line in read_text(files, name):
        if line in known:
            found.add(line)
        elif line != "path":  # the header
            detail = f"images.txt has no image {shown(line)}"
            left_out.add(place, PartReason.UNKNOWN_REFERENCE, detail)
    return found
