"""Any COCO file whose annotations are parts, with the images beside it."""

from collections.abc import Mapping
from typing import Any

from components.core.errors import InputError
from components.data.formats.coco import CocoImage, read_images, read_json_bytes
from components.data.formats.files import Files
from components.data.formats.parts import Part, PartImage
from components.data.formats.values import LeftOut, record_number
from data_contracts.reasons import PartReason

LAYOUT = """\
  a folder, or an archive of it, with
    annotations.json        or one COCO file of any other name in .json
    …                       the images, where its file names lead from there, or from images/"""
PREFERRED = "annotations.json"


class CocoParts:
    """A COCO file of one's own: its categories are the parts, and all of it is of one split."""

    name = "coco"

    def read(self, files: Files, left_out: LeftOut) -> list[PartImage]:
        """All images; parts of groups (`iscrowd`) are left out."""
        table = _table(files)
        root = table[: table.rfind("/") + 1]
        content = read_json_bytes(files.read(table), table)
        supers = _super_classes(content)
        images = read_images(content, table, left_out)
        return [
            _image(key, image, files, root, table, supers, left_out)
            for key, image in sorted(images.items(), key=lambda item: record_number(item[0]))
        ]


def _table(files: Files) -> str:
    tables = [name for name in files.names if name.lower().endswith(".json")]
    preferred = [name for name in tables if name.rpartition("/")[2] == PREFERRED]
    found = preferred or tables
    if len(found) != 1:
        what = f"it holds {len(found)} .json files" if found else "it holds no .json file"
        raise InputError(f"{files.address} has not one COCO file: {what}. The layout is\n{LAYOUT}")
    return found[0]


def _super_classes(content: Mapping[str, Any]) -> dict[str, str]:
    """The super-categories by the names of their categories."""
    categories = content.get("categories")
    entries = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    return {
        " ".join(str(entry.get("name")).split()): " ".join(entry["supercategory"].split())
        for entry in entries
        if isinstance(entry.get("supercategory"), str) and entry["supercategory"].strip()
    }


def _image(
    key: int | str,
    image: CocoImage,
    files: Files,
    root: str,
    table: str,
    supers: Mapping[str, str],
    left_out: LeftOut,
) -> PartImage:
    parts = []
    for region in image.regions:
        if region.is_crowd:
            left_out.add(region.place, PartReason.GROUP_OF_PARTS, "marked as `iscrowd`")
            continue
        box = None
        if region.box_xywh is not None:
            x, y, width, height = region.box_xywh
            box = (x, y, x + width, y + height)
        parts.append(Part(region.name, region.place, None, box, region.segmentation))
    kinds = {supers[part.name] for part in parts if part.name in supers}
    places = [f"{root}{image.file_name}", f"{root}images/{image.file_name}"]
    return PartImage(
        id=str(key),
        place=f"{table}: image {key}",
        file=next((name for name in places if name in files.names), places[0]),
        split="",
        super_class=kinds.pop() if len(kinds) == 1 else "object",
        size=(image.width_px, image.height_px),
        parts=tuple(parts),
    )
