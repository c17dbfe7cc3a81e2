"""A good row of the artifact `records`, for tests that need rows and care for no value in them."""

from typing import Any

from components.core.tables import Row


def record_row(number: int, **changes: Any) -> Row:
    """Rows of different numbers do not clash; `changes` replace values."""
    return {
        "region_id": f"{number}-00",
        "record_id": str(number),
        "url": f"https://example.org/{number}.jpg",
        "image_caption": "a cat on a mat",
        "phrase": "a cat",
        "box_norm": [0.1, 0.1, 0.5, 0.6],
        "score": 0.9,
        "clip_similarity": 0.3,
        "mask_counts": None,
        "mask_size": None,
        "mask_fault": None,
        "box_source": None,
        "point_norm": None,
        "declared_size": None,
        "split": "",
        "subset": "",
    } | changes
