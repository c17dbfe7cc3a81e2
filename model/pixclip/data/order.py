"""The order of an epoch: a pure function of the seed and the epoch, computed a window at a time."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pixclip.data.config import DataConfig
from pixclip.data.index import ImageIndex

# Legend: r = rows (regions) of a window, W = windows.
Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # image, and region inside the image


class EpochOrder:
    """Regions in the order of training.

    The shards are shuffled, and the regions of `shuffle_shards` neighbours together: a worker
    reads from few shards at a time. Up to `regions_per_image` regions of an image stay together.
    Where a window starts follows from the number of its regions, so nothing before a row need be
    computed, let alone read.
    """

    def __init__(self, index: ImageIndex, config: DataConfig) -> None:
        self._index, self._config = index, config
        num_shards = len(index.shards)
        self._first_image = np.searchsorted(index.shard_I, np.arange(num_shards + 1))
        ends = np.concatenate([[0], np.cumsum(index.num_regions_I, dtype=np.int64)])
        self._shard_regions = np.diff(ends[self._first_image])
        self._windows = lru_cache(maxsize=4)(self._shuffle_shards)
        self._rows = lru_cache(maxsize=2)(self._shuffle_window)

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """The rows from `start` to `stop` of an epoch."""
        parts = list(self._overlapping(epoch, start, stop))
        images, regions = (np.concatenate(column) for column in zip(*parts, strict=True))
        return images, regions

    def _overlapping(self, epoch: int, start: int, stop: int) -> Iterator[Rows]:
        _, starts_W = self._windows(epoch)
        first = int(np.searchsorted(starts_W, start, side="right")) - 1
        for window in range(first, len(starts_W) - 1):
            offset = int(starts_W[window])
            if offset >= stop:
                return
            images, regions = self._rows(epoch, window)
            part = slice(max(0, start - offset), stop - offset)
            yield images[part], regions[part]

    def _shuffle_shards(self, epoch: int) -> Rows:
        """The shards in their order, and the first row of every window and the end."""
        shards = np.random.default_rng([self._config.seed, epoch]).permutation(
            len(self._index.shards)
        )
        per_window = np.add.reduceat(
            self._shard_regions[shards], np.arange(0, len(shards), self._config.shuffle_shards)
        )
        return shards, np.concatenate([[0], np.cumsum(per_window)])

    def _shuffle_window(self, epoch: int, window: int) -> Rows:
        size = self._config.shuffle_shards
        shards = self._windows(epoch)[0][window * size : (window + 1) * size]
        images = np.concatenate(
            [np.arange(self._first_image[s], self._first_image[s + 1]) for s in shards]
        )
        counts = self._index.num_regions_I[images].astype(np.int64)
        rng = np.random.default_rng([self._config.seed, epoch, window + 1])
        image_r = np.repeat(np.arange(len(images)), counts)
        place_r = np.arange(len(image_r)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Which regions of an image come together changes with the epoch.
        region_r = place_r[np.lexsort((rng.random(len(image_r)), image_r))]
        group_r = np.cumsum(place_r % self._config.regions_per_image == 0) - 1
        order_r = np.argsort(rng.random(group_r[-1] + 1)[group_r], kind="stable")
        return images[image_r[order_r]], region_r[order_r]
