"""A registered model behind MLflow's interface.

    mlflow.pyfunc.load_model("models:/pixclip@champion").predict(rows)

A row in: `image` (the bytes of a JPEG, PNG or WebP), optionally `mask` (JSON: a box `[x1, y1, x2,
y2]` in pixels, polygons `[[x, y, …], …]`, or COCO's RLE `{"size": [h, w], "counts": …}`; empty:
the whole image), optionally `text`. A row out: `image_embedding`, `text_embedding` (both of unit
length; None without image or text) and `similarity`, their cosine.

A model of parts (PA-CLIP) has learnt no masks: it is shown the mask's box, cut out of the image, as
`evaluate_parts` measures it.

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

    def __init__(self, model: Encoder, part_margin: float | None = None) -> None:
        """Takes a model; with `part_margin`, one that sees parts by their crops.

        `part_margin`: what is shown around a part's box, in shares of its sides.
        """
        self._model, self._part_margin = model, part_margin

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
        pictures: list[Any] = list(images.values())
        # Each in a list of its own: polygons are a list too, and would count as several masks.
        regions = [[_mask(row, masks[row])] if row in masks else None for row in images]
        if self._part_margin is not None:
            pictures = [
                _cut(row, picture, region[0], self._part_margin) if region else picture
                for row, picture, region in zip(images, pictures, regions, strict=True)
            ]
            regions = [None] * len(pictures)
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


def _cut(row: int, picture: bytes, region: Any, margin: float) -> Any:
    """The part of a picture that shows a region: its box in whole pixels."""
    from pixclip.inputs import as_image, as_mask
    from pixclip.masks import mask_box
    from pixclip.preprocess import crop_window

    try:
        image = as_image(picture)
        mask = as_mask(region, image.height, image.width)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    is_box = isinstance(region, list) and len(region) == 4 and not isinstance(region[0], list)
    x1, y1, x2, y2 = map(float, region) if is_box else mask_box(mask > 0)
    return image.crop(crop_window((x1, y1, x2, y2), image.height, image.width, margin))


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

    model = pixclip.load(path)
    is_of_parts = model.config.text.kind == "clip" and not model.reads_masks
    return RegionModel(model, model.config.preprocess.crop_margin if is_of_parts else None)
