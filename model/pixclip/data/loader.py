"""Batches of LongGRIT for training: the same for any number of workers, ranks and restarts."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from pixclip.data.batch import Batch, Buffers, Embeddings, PackedBatch, Packer, unpack
from pixclip.data.config import DataConfig
from pixclip.data.order import EpochOrder, read_index
from pixclip.data.shards import Shards
from pixclip.data.store import DEFAULT_CACHE_BYTES, Store
from pixclip.preprocess import Preprocess

PREFETCHED_STEPS = 2  # a worker makes this many ahead


class LongGrit:
    """A split of a LongGRIT data set, on disk or in a store that fsspec reads (`s3://…`)."""

    def __init__(
        self,
        folder_or_uri: str | Path,
        split: str,
        preprocess: Preprocess,
        patch_size_px: int,
        embeddings: Embeddings,
        config: DataConfig,
        cache_folder: Path | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        store = Store(folder_or_uri, cache_folder, cache_bytes)
        self._preprocess, self._patch_size_px, self._config = preprocess, patch_size_px, config
        self._index = read_index(store, split)
        self._order = EpochOrder(self._index, config)
        self._packer = Packer(Shards(store), self._index, preprocess, embeddings, config)

    def num_steps(self, epoch: int) -> int:
        """Steps of an epoch; what is left of a batch at its end is dropped."""
        return self._index.num_regions // self._config.batch_size

    def batches(
        self,
        *,
        epoch: int,
        start_step: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """This rank's parts of an epoch's batches, from a step on.

        A rank has a contiguous part of every global batch, so the ranks together see exactly what
        one rank would see. Nothing before `start_step` is read.

        Raises:
            ValueError: the global batch cannot be divided among the ranks.
            DataError: samples cannot be used.
            KeyError: a caption has no embedding.
        """
        if self._config.batch_size % num_ranks:
            raise ValueError(
                f"data.batch_size={self._config.batch_size} cannot be divided among "
                f"{num_ranks} ranks; make it a multiple"
            )
        size = self._config.batch_size // num_ranks
        steps = range(start_step, self.num_steps(epoch))
        starts = [step * self._config.batch_size + rank * size for step in steps]
        buffers = Buffers()
        for packed in _load(_Parts(self._packer, self._order, epoch, starts, size), num_workers):
            yield unpack(packed, self._preprocess, self._patch_size_px, device, buffers)


class _Parts(Dataset[PackedBatch]):
    """A rank's parts of the batches of an epoch, by their number."""

    def __init__(
        self, packer: Packer, order: EpochOrder, epoch: int, starts: list[int], size: int
    ) -> None:
        self._packer, self._order, self._epoch = packer, order, epoch
        self._starts, self._size, self._buffers = starts, size, Buffers()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> PackedBatch:
        start = self._starts[number]
        rows = self._order.rows(self._epoch, start, start + self._size)
        return self._packer.pack(self._epoch, rows, self._buffers)


def _load(parts: _Parts, num_workers: int) -> "DataLoader[PackedBatch]":
    return DataLoader(
        parts,
        batch_size=None,
        num_workers=num_workers,
        # Forked workers share the memory of the index.
        multiprocessing_context="fork" if num_workers else None,
        prefetch_factor=PREFETCHED_STEPS if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_limit_threads,
        # Else every epoch, and every restart, would draw a number from the trainer's generator.
        generator=torch.Generator(),
    )


def _limit_threads(worker: int) -> None:
    # torch limits itself in workers; OpenCV would take every core in each.
    cv2.setNumThreads(0)
