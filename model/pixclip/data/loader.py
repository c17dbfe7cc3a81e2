"""Batches for training: the same for any number of workers, ranks and restarts."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from pixclip.data.batch import Batch, Buffers, Embeddings, Images, PackedBatch, Packer, unpack
from pixclip.data.config import DataConfig, PartDataConfig
from pixclip.data.order import EpochOrder, Rows, read_index
from pixclip.data.parts import PartsBatch, PartsPacker, Tokenize, unpack_parts
from pixclip.data.shards import Shards
from pixclip.data.store import DEFAULT_CACHE_BYTES, Store
from pixclip.preprocess import Preprocess

PREFETCHED_STEPS = 2  # a worker makes this many ahead


PackedT = TypeVar("PackedT")
BatchT = TypeVar("BatchT")


MadeT = TypeVar("MadeT", covariant=True)


class AnyPacker(Protocol[MadeT]):
    """Makes packed batches of rows of an index."""

    def pack(self, epoch: int, rows: Rows, buffers: Buffers) -> MadeT: ...


class Batches(ABC, Generic[PackedT, BatchT]):
    """The batches of a split, epoch by epoch."""

    def __init__(
        self, packer: AnyPacker[PackedT], order: EpochOrder, num_rows: int, batch_size: int
    ) -> None:
        self._packer, self._order = packer, order
        self._num_rows, self._batch_size = num_rows, batch_size

    @abstractmethod
    def _unpack(self, packed: PackedT, device: torch.device | str, buffers: Buffers) -> BatchT:
        """What the model reads."""

    def num_steps(self, epoch: int) -> int:
        """Steps of an epoch; what is left of a batch at its end is dropped."""
        return self._num_rows // self._batch_size

    def batches(
        self,
        *,
        epoch: int,
        start_step: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> Iterator[BatchT]:
        """This rank's parts of an epoch's batches, from a step on.

        A rank has a contiguous part of every global batch, so the ranks together see exactly what
        one rank would see. Nothing before `start_step` is read.

        Raises:
            ValueError: the global batch cannot be divided among the ranks.
            DataError: samples cannot be used.
            KeyError: a caption has no embedding.
        """
        if self._batch_size % num_ranks:
            raise ValueError(
                f"data.batch_size={self._batch_size} cannot be divided among "
                f"{num_ranks} ranks; make it a multiple"
            )
        size = self._batch_size // num_ranks
        steps = range(start_step, self.num_steps(epoch))
        starts = [step * self._batch_size + rank * size for step in steps]
        buffers = Buffers()
        for packed in _load(_Parts(self._packer, self._order, epoch, starts, size), num_workers):
            yield self._unpack(packed, device, buffers)


class LongGrit(Batches[PackedBatch, Batch]):
    """Regions of a split of a data set, on disk or in a store that fsspec reads (`s3://…`)."""

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
        index = read_index(store, split)
        self._preprocess, self._patch_size_px = preprocess, patch_size_px
        order = EpochOrder(index, config, config.regions_per_image, config.regions_per_epoch)
        super().__init__(
            Packer(Images(Shards(store), index), preprocess, embeddings, config),
            order,
            order.num_rows,
            config.batch_size,
        )

    def _unpack(self, packed: PackedBatch, device: torch.device | str, buffers: Buffers) -> Batch:
        return unpack(packed, self._preprocess, self._patch_size_px, device, buffers)


class FgPart(Batches[PartsBatch, PartsBatch]):
    """Images of a split with their captions and parts (PA-CLIP), on disk or in a store."""

    def __init__(
        self,
        folder_or_uri: str | Path,
        split: str,
        preprocess: Preprocess,
        tokenize: Tokenize,
        config: PartDataConfig,
        cache_folder: Path | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        store = Store(folder_or_uri, cache_folder, cache_bytes)
        index = read_index(store, split)
        self._preprocess = preprocess
        super().__init__(
            PartsPacker(Images(Shards(store), index), preprocess, tokenize, config),
            EpochOrder(index.by_image(), config),
            len(index.num_regions_I),
            config.batch_size,
        )

    def _unpack(
        self, packed: PartsBatch, device: torch.device | str, buffers: Buffers
    ) -> PartsBatch:
        return unpack_parts(packed, self._preprocess, device, buffers)


class _Parts(Dataset[PackedT]):
    """A rank's parts of the batches of an epoch, by their number."""

    def __init__(
        self,
        packer: AnyPacker[PackedT],
        order: EpochOrder,
        epoch: int,
        starts: list[int],
        size: int,
    ) -> None:
        self._packer, self._order, self._epoch = packer, order, epoch
        self._starts, self._size, self._buffers = starts, size, Buffers()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> PackedT:
        start = self._starts[number]
        rows = self._order.rows(self._epoch, start, start + self._size)
        return self._packer.pack(self._epoch, rows, self._buffers)


def _load(parts: _Parts[PackedT], num_workers: int) -> "DataLoader[PackedT]":
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
