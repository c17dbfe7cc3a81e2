"""The short and long captions of regions, in an order that only the seed decides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


class Pairs:
    """Short and long captions, row by row; a step's rows are a pure function of its number."""

    def __init__(self, path: Path) -> None:
        table: Any = pq.read_table(path, columns=["short_caption", "long_caption"])
        self._columns = (table["short_caption"], table["long_caption"])
        if not len(self):
            raise ValueError(f"{path} holds no pair of captions to adapt the text tower with")

    def __len__(self) -> int:
        return len(self._columns[0])

    def rows(self, step: int, batch_size: int, seed: Sequence[int]) -> list[tuple[str, str]]:
        """The pairs of a step: every pair once before any comes again."""
        places = range(step * batch_size, (step + 1) * batch_size)
        orders = {
            epoch: np.random.default_rng([*seed, epoch]).permutation(len(self))
            for epoch in {place // len(self) for place in places}
        }
        rows = [int(orders[place // len(self)][place % len(self)]) for place in places]
        return [(self._columns[0][row].as_py(), self._columns[1][row].as_py()) for row in rows]
