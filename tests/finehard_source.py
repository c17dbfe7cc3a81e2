"""A small FineHARD in the layout of its authors: annotations, and drawn photographs."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.pack.conftest import backdrop, draw_scene

PREFIX = "grit-20m/data-12m/"
COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink", "yellow", "purple")
Entry = dict[str, Any]


def draw(number: int, size: tuple[int, int] = (320, 240)) -> tuple[bytes, list[dict[str, Any]]]:
    """A JPEG with three coloured things, and what and where they are."""
    random = np.random.default_rng(number)
    image = backdrop(random, size)
    found = draw_scene(image, random)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue(), found


def box_of(mask: Any) -> list[float]:
    """The box of a mask [H, W], in shares of the sides, with a score."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [
        float(columns[0]) / width,
        float(rows[0]) / height,
        float(columns[-1] + 1) / width,
        float(rows[-1] + 1) / height,
        0.71,
    ]


def entry_of(file: str, found: list[dict[str, Any]]) -> Entry:
    """An image's entry; of every thing but the last there are ten wrong captions."""
    boxes = []
    for index, thing in enumerate(found):
        _, colour, name = thing["phrase"].split()
        wrong = [other for other in (*COLOURS, "orange") if other != colour][:10]
        has_negatives = index < len(found) - 1
        boxes.append(
            {
                "bbox": box_of(thing["mask"]),
                "short_expr": thing["phrase"],
                "long_expr": f"{thing['phrase']} with a soft edge on a plain ground",
                "flag_short_neg": int(has_negatives),
                "short_expr_negs": {str(k): f"a {other} {name}" for k, other in enumerate(wrong)}
                if has_negatives
                else {},
            }
        )
    names = ", ".join(thing["phrase"] for thing in found)
    return {
        "f_path": PREFIX + file,
        "caption": f"The image shows {names}. They lie side by side on a soft and colourful ground "
        "that has neither a horizon nor a shadow, and nothing else can be seen in it.",
        "short_caption": f"a picture of {names}",
        "bbox_info": boxes,
    }


def write_finehard(
    folder: Path,
    num_images: int = 12,
    *,
    per_file: int = 5,
    in_tars: bool = False,
    change: Callable[[Entry, int], None] | None = None,
) -> tuple[Path, Path]:
    """Write annotations and images; gives both folders. `change` edits the entry of a number."""
    jsons, images = folder / "FineHARD" / "jsonfiles", folder / "grit-12m"
    jsons.mkdir(parents=True)
    entries, tars = [], dict[Path, list[tuple[str, bytes]]]()
    for number in range(num_images):
        jpeg, found = draw(number)
        shard = f"coyo_image_0/{number // 6:05d}"
        name = f"{number // 6:05d}{number:04d}.jpg"
        if in_tars:
            tars.setdefault(images / f"{shard}.tar", []).append((name, jpeg))
        else:
            (images / shard).mkdir(parents=True, exist_ok=True)
            (images / shard / name).write_bytes(jpeg)
        entry = entry_of(f"{shard}/{name}", found)
        if change:
            change(entry, number)
        entries.append(entry)
    for path, members in tars.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for start in range(0, num_images, per_file):
        path = jsons / f"2024-12-06_18-32-5{start // per_file}_results_{start}.json"
        path.write_text(json.dumps(entries[start : start + per_file]), encoding="utf-8")
    return jsons, images
