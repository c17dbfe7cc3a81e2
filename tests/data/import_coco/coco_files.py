"""A small annotation file."""

from typing import Any

HEIGHT, WIDTH = 300, 400


def annotation(number: Any = 1, category: Any = 18, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 9,
        "category_id": category,
        "bbox": [40, 30, 200, 150],
        "segmentation": [[40, 30, 240, 30, 240, 180, 40, 180]],
        "iscrowd": 0,
        **changes,
    }


def content(
    *annotations: Any, file_name: str = "cats & dogs/a b.jpg", **changes: Any
) -> dict[str, Any]:
    return {
        "images": [{"id": 9, "file_name": file_name, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 27, "name": "traffic light"}],
        "annotations": list(annotations),
        **changes,
    }
