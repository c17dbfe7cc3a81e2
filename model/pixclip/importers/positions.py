"""Position tables of public weights become those of a model for other images or longer texts."""

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pixclip.importers.translation import ImportChoices
from pixclip.text.clip_tower import stretch_positions, stretched_length

VISION, TEXT, FIXED = (
    "vision.position_embedding",
    "text.position_embedding",
    "text.fixed_positions",
)


def whole_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors, the text positions as one table where the model keeps its first rows."""
    whole = dict(state)
    if FIXED in whole:
        whole[TEXT] = torch.cat([whole.pop(FIXED), whole[TEXT]])
    return whole


def with_split_tables(
    values: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The opposite of `whole_tables`."""
    split = dict(values)
    if FIXED in state and TEXT in split:
        num_fixed = len(state[FIXED])
        split[FIXED], split[TEXT] = split[TEXT][:num_fixed], split[TEXT][num_fixed:]
    return split


def with_our_positions(
    parts: dict[str, dict[int, tuple[str, Tensor]]],
    num_parts: Mapping[str, int],
    state: Mapping[str, Tensor],
    choices: ImportChoices,
) -> list[str]:
    """Change the tables among `parts` to the model's lengths, if asked; says which and how."""
    changed = []
    for target, is_asked in ((VISION, choices.resize_positions), (TEXT, choices.stretch_positions)):
        if not is_asked or target not in state or num_parts.get(target) != 1:
            continue
        ((key, table),) = parts[target].values()
        made = _changed(target, table, state[target])
        if made is not None:
            parts[target] = {0: (key, made)}
            how = "bicubically" if target == VISION else "the first 20 rows kept"
            changed.append(f"{target}: {len(table)} rows became {len(made)}, {how}")
    return changed


def _changed(target: str, table: Tensor, ours: Tensor) -> Tensor | None:
    """The table in our length, if its own leads there."""
    if table.ndim != 2 or table.shape[1] != ours.shape[1] or len(table) == len(ours):
        return None
    if not table.is_floating_point() or table.numel() > 2**28:
        return None
    if target == TEXT:
        return stretch_positions(table) if stretched_length(len(table)) == len(ours) else None
    grids = [isqrt(len(one) - 1) for one in (table, ours)]
    if grids[0] ** 2 + 1 != len(table):
        return None
    return resized(table, grids[1])


def resized(table_NW: Tensor, grid: int) -> Tensor:
    """A table of [CLS] and a square of patches for a square of another side, as in open_clip.

    Bicubic, with antialiasing where the square shrinks.
    """
    cls_1W, patches_PW = table_NW[:1], table_NW[1:]
    side = isqrt(len(patches_PW))
    square_1Whw = patches_PW.float().T.reshape(1, -1, side, side)
    how: dict[str, Any] = {"mode": "bicubic", "antialias": True, "align_corners": False}
    resized_1Whw = F.interpolate(square_1Whw, (grid, grid), **how)
    return torch.cat([cls_1W.float(), resized_1Whw.flatten(2)[0].T])
