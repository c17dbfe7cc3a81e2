"""Stanford Cars: boxes and classes in MATLAB files, in both layouts that were published.

https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone since 2023; copies exist). A `.mat` of
version 5 holds numbers and texts only: nothing in it is run.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from components.core.errors import InputError
from components.data.formats.files import Files
from components.data.formats.parts import (
    TEST,
    TRAIN,
    PartImage,
    Split,
    numbers_of,
    require_area,
    root_of,
)
from components.data.formats.values import BadValueError, LeftOut, shown
from data_contracts.reasons import PartReason

LAYOUT = """\
  stanford_cars/                   the folder itself, one that holds it, or an archive of it
    cars_train/, cars_test/        00001.jpg, …
    devkit/cars_meta.mat           class_names
    devkit/cars_train_annos.mat    annotations: bbox_x1, bbox_y1, bbox_x2, bbox_y2, class, fname
    cars_test_annos_withlabels.mat (here or in devkit; or devkit/cars_test_annos.mat)
  or, the older one,
    car_ims/                       000001.jpg, …
    cars_annos.mat                 annotations: relative_im_path, bbox_x1, …, class, test"""
NEW = ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat")
TEST_ANNOTATIONS = (
    "cars_test_annos_withlabels.mat",
    "devkit/cars_test_annos_withlabels.mat",
    "devkit/cars_test_annos.mat",
)
OLD = "cars_annos.mat"
SPLITS: dict[str, Split] = {"0": TRAIN, "1": TEST}  # of the older layout
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
MAX_BYTES = 1 << 26  # of a file's content unpacked; the published ones have 3 MB
HEADER_BYTES, MATRIX, COMPRESSED = 128, 14, 15
MAX_DEPTH = 16  # of arrays in arrays; the published ones are three deep


class Cars:
    """Stanford Cars: no parts."""

    name = "cars"

    def read(self, files: Files, left_out: LeftOut) -> list[PartImage]:
        """All images, training and test."""
        if any(name.rpartition("/")[2] == OLD for name in files.names):
            return _read_old(files, root_of(files, "Stanford Cars", (OLD,), LAYOUT), left_out)
        return _read_new(files, root_of(files, "Stanford Cars", NEW, LAYOUT), left_out)


@dataclass(frozen=True)
class _Entry:
    """An element of `annotations`."""

    place: str
    fields: Mapping[str, str]


def _read_old(files: Files, root: str, left_out: LeftOut) -> list[PartImage]:
    content = read_mat(files, root + OLD)
    classes = _class_names(content, root + OLD)
    images: list[PartImage] = []
    for entry in _entries(content, root + OLD, "relative_im_path", left_out):
        split = SPLITS.get(entry.fields.get("test", ""), "")
        name = root + entry.fields["relative_im_path"]
        images.append(_image(entry, name, split, classes))
    return images


def _read_new(files: Files, root: str, left_out: LeftOut) -> list[PartImage]:
    classes = _class_names(read_mat(files, root + NEW[1]), root + NEW[1])
    tables: list[tuple[str, Split, str]] = [("cars_train", TRAIN, root + NEW[0])]
    found = [root + name for name in TEST_ANNOTATIONS if root + name in files.names]
    tables += [("cars_test", TEST, name) for name in found[:1]]
    images: list[PartImage] = []
    for folder, split, table in tables:
        for entry in _entries(read_mat(files, table), table, "fname", left_out):
            places = [f"{root}{folder}/{entry.fields['fname']}"]
            places += [f"{root}{folder}/{folder}/{entry.fields['fname']}"]  # as copies nest it
            name = next((place for place in places if place in files.names), places[0])
            images.append(_image(entry, name, split, classes))
    return images + list(_unannotated(files, f"{root}cars_test/", {image.file for image in images}))


def _unannotated(files: Files, folder: str, known: set[str]) -> Iterator[PartImage]:
    """Test images without annotations: they are test images all the same."""
    for name in sorted(files.names):
        if name.startswith(folder) and name.lower().endswith(".jpg") and name not in known:
            yield PartImage(name, name, name, TEST, "car", has_parts=False)


def _image(entry: _Entry, file: str, split: Split, classes: list[str]) -> PartImage:
    label, box, fault = "", None, None
    try:
        if not split:
            raise BadValueError(PartReason.UNKNOWN_SPLIT, "'test' is neither 0 nor 1")
        x1, y1, x2, y2 = numbers_of([entry.fields.get(name, "") for name in BOX], "the box")
        box = require_area((x1 - 1, y1 - 1, x2, y2), entry.place)  # MATLAB counts from 1
        label = _label(entry.fields.get("class"), classes, is_needed=split == TRAIN)
    except BadValueError as error:
        fault = error
    return PartImage(
        id=file,
        place=entry.place,
        file=file,
        split=split,
        super_class="car",
        labels=(label,) if label else (),
        box=box,
        has_parts=False,
        fault=fault,
    )


def _label(number: str | None, classes: list[str], *, is_needed: bool) -> str:
    if number is None and not is_needed:
        return ""
    if number is None or not number.isdecimal() or not 1 <= int(number[:9]) <= len(classes):
        raise BadValueError(
            PartReason.UNKNOWN_REFERENCE, f"there is no class {shown(number)} of {len(classes)}"
        )
    return classes[int(number) - 1]


def _entries(
    content: Mapping[str, Any], table: str, key: str, left_out: LeftOut
) -> Iterator[_Entry]:
    """The elements of `annotations` with a name of their own, their values as texts."""
    import numpy as np

    annotations = np.atleast_1d(content.get("annotations", ()))
    names = annotations.dtype.names or ()
    if key not in names:
        raise InputError(f"{table} has no 'annotations' with '{key}'. The layout is\n{LAYOUT}")
    seen: set[str] = set()
    for number, element in enumerate(annotations.ravel(), start=1):
        place = f"{table}:annotations({number})"
        with left_out.judging(place):
            fields = {name: str(element[name]) for name in names}
            if not fields[key] or fields[key] in seen:
                raise BadValueError(
                    PartReason.REPEATED_ROW, f"an earlier element has the {key} {fields[key]!r:.80}"
                )
            seen.add(fields[key])
            yield _Entry(place, fields)


def _class_names(content: Mapping[str, Any], table: str) -> list[str]:
    import numpy as np

    if "class_names" not in content:
        raise InputError(f"{table} has no 'class_names'. The layout is\n{LAYOUT}")
    return [str(name) for name in np.atleast_1d(content["class_names"]).ravel()]


def read_mat(files: Files, name: str) -> dict[str, Any]:
    """The variables of a MATLAB file of version 5.

    Raises:
        InputError: it is none, is damaged, or unpacks to more than `MAX_BYTES`.
    """
    from scipy.io import loadmat

    data = files.read(name)
    try:
        _require_bounded(data)
        content: dict[str, Any] = loadmat(io.BytesIO(data), squeeze_me=True)
    except MemoryError:
        raise
    except NotImplementedError:
        raise InputError(f"{name} is a MATLAB file of version 7.3; save it with -v7") from None
    except Exception as error:  # scipy's reader raises anything on damaged files
        raise InputError(
            f"{name} is no MATLAB file of version 5 that can be read: "
            f"{type(error).__name__}: {error}"[:500]
        ) from error
    return content


def _require_bounded(data: bytes) -> None:
    """Refuse a file that unpacks to more than any such file has, or claims arrays it does not hold.

    https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf: elements of type and size.

    Raises:
        ValueError: it does.
    """
    order = "<" if data[HEADER_BYTES - 2 : HEADER_BYTES] == b"IM" else ">"
    left = MAX_BYTES
    for kind, content in _elements(data[HEADER_BYTES:], order):
        if kind == COMPRESSED:
            content = zlib.decompressobj().decompress(content, left + 1)
            left -= len(content)
            if left < 0:
                raise ValueError(f"its variables have more than {MAX_BYTES} bytes")
            _require_whole_arrays(content, order)
        else:
            _require_whole_arrays(struct.pack(f"{order}II", kind, len(content)) + content, order)


def _require_whole_arrays(data: bytes, order: str, depth: int = 0) -> None:
    """Refuse arrays of more entries than bytes: a reader would allocate them before it looks."""
    if depth > MAX_DEPTH:
        raise ValueError(f"its arrays are nested over {MAX_DEPTH} deep")
    for kind, content in _elements(data, order):
        if kind != MATRIX:
            continue
        _, dimensions, *_ = [*islice(_elements(content, order), 2), (0, b""), (0, b"")]
        sides = struct.unpack(f"{order}{len(dimensions[1]) // 4}i", dimensions[1])
        if math.prod(sides) > len(content) or any(side < 0 for side in sides):
            raise ValueError(f"an array of {len(content)} bytes claims to be {sides} large")
        _require_whole_arrays(content, order, depth + 1)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each data element; the last may be cut off."""
    place = 0
    while place + 8 <= len(data):
        kind, num_bytes = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # a small element: size, type and content in eight bytes
            num_bytes, kind = kind >> 16, kind & 0xFFFF
            yield kind, data[place + 4 : place + 4 + min(num_bytes, 4)]
            place += 8
            continue
        yield kind, data[place + 8 : place + 8 + num_bytes]
        # All but compressed elements are filled up to eight bytes.
        place += 8 + (num_bytes if kind == COMPRESSED else -(-num_bytes // 8) * 8)
