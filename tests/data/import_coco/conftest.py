"""The step on a small annotation file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.tables import read_rows
from components.data.import_coco.step import import_coco


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Callable[..., Any]:
    """Run the step's function on a value, a JSON text or bytes; gives metrics and rows."""

    def run(value: Any, **settings: Any) -> Any:
        path = tmp_path / "instances.json"
        text = value if isinstance(value, str | bytes) else json.dumps(value)
        path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
        places = {"images": str(photos), "annotations": str(path)}
        metrics = import_coco.function(
            grit=tmp_path / "grit", settings=import_coco.settings_type(**places, **settings)
        )
        return metrics, list(read_rows(tmp_path / "grit"))

    return run


@pytest.fixture
def left_out(tmp_path: Path) -> Callable[[], list[dict[str, str]]]:
    """What the last run left out."""
    path = tmp_path / "grit" / "_left_out.jsonl"
    return lambda: (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )
