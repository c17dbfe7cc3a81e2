"""A registered model behind MLflow's interface.

    mlflow.pyfunc.load_model("models:/pixclip@champion").predict(rows)

A row in: `image` (the bytes of a JPEG, PNG or WebP), optionally `mask` (JSON: a box `[x1, y1, x2,
y2]` in pixels, polygons `[[x, y, …], …]`, or COCO's RLE `{"size": [h, w], "counts": …}`; empty:
the whole image), optionally `text`. A row out: `image_embedding`, `text_embedding` (both of unit
length; None without image or text) and `similarity`, their cosine.

Loading runs no code and no pickle of the artifact: MLflow names this module, and the folder is a
plain checkpoint.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

IMAGE, MASK, TEXT = "image", "mask", "text"
OUTPUTS = ("image_embedding", "text_embedding", "similarity")


class Encoder(Protocol):
    """The part of `pixclip.PixClip` that is used here."""

    def encode_image(self, images: list[Any], masks: list[Any] | None = None) -> Any:
        """Unit embeddings [n, D]."""

    def encode_text(self, texts: list[str]) -> Any:
        """Unit embeddings [n, D]."""


class RegionModel:
    """What MLflow calls; see this module's docstring."""

    def __init__(self, model: Encoder) -> None:
        self._model = model

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> Any:
        """Embeddings and similarity of every row, in the rows' order.

        Raises:
            ValueError: an image or a mask cannot be read; the library says why.
        """
        import pandas as pd

        # Bytes only: a text would be taken for a path on this machine.
        images = _given(rows, IMAGE, bytes)
        masks = _given(rows, MASK, str)
        texts = _given(rows, TEXT, str)
        pictures = list(images.values())
        # Each in a list of its own: polygons are a list too, and would count as several masks.
        regions = [[_mask(row, masks[row])] if row in masks else None for row in images]
        seen = _rows(images, lambda: self._model.encode_image(pictures, regions))
        read = _rows(texts, lambda: self._model.encode_text(list(texts.values())))
        table = [_row_out(seen.get(row), read.get(row)) for row in range(len(rows))]
        return pd.DataFrame(table, columns=list(OUTPUTS), index=rows.index)


def _given(rows: Any, column: str, kind: type) -> dict[int, Any]:
    """The values that are there, by the row's place."""
    if column not in rows.columns:
        return {}
    values = enumerate(rows[column])
    return {row: value for row, value in values if isinstance(value, kind) and value}


def _rows(rows: Iterable[int], encode: Callable[[], Any]) -> dict[int, Any]:
    rows = list(rows)
    return dict(zip(rows, np.asarray(encode(), dtype=np.float64), strict=True)) if rows else {}


def _mask(row: int, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(
            f"row {row}: the mask is no JSON; write a box [x1, y1, x2, y2], polygons or COCO's RLE"
        ) from None


def _row_out(image: Any, text: Any) -> tuple[Any, Any, Any]:
    both = image is not None and text is not None
    return (
        None if image is None else image.tolist(),
        None if text is None else text.tolist(),
        float(image @ text) if both else None,
    )


def _load_pyfunc(path: str) -> RegionModel:
    """MLflow's entry point: the model of a checkpoint folder."""
    import pixclip

    return RegionModel(pixclip.load(path))
