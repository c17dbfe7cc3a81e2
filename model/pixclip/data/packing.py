"""From rows of the index to a packed batch: the work of a loader's worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pixclip.data.batch import Buffers, PackedBatch
from pixclip.data.config import DataConfig
from pixclip.data.draw import Draw, draw
from pixclip.data.errors import DataError
from pixclip.data.index import ImageIndex
from pixclip.data.order import Rows
from pixclip.data.pictures import Picture
from pixclip.data.samples import Region, Sample
from pixclip.data.shards import Shards
from pixclip.preprocess import Preprocess
from pixclip.text.embeddings import caption_hash

NAMED_ERRORS = 3


class Embeddings(Protocol):
    """Text embeddings by caption hash, such as `pixclip.text.embeddings.TextEmbeddings`."""

    def lookup(self, hashes: Sequence[str]) -> Tensor:
        """The vectors [n, E]."""
        ...


@dataclass(frozen=True)
class Wanted:
    """A region, its place in the batch and what it becomes there."""

    place: int
    region: Region
    drawn: Draw


class Packer:
    """Makes packed batches of rows."""

    def __init__(
        self,
        shards: Shards,
        index: ImageIndex,
        preprocess: Preprocess,
        embeddings: Embeddings,
        config: DataConfig,
    ) -> None:
        self._shards, self._index, self._preprocess = shards, index, preprocess
        self._embeddings, self._config = embeddings, config

    def pack(self, epoch: int, rows: Rows, buffers: Buffers) -> PackedBatch:
        """The batch of these rows; each image is read and decoded once.

        Raises:
            DataError: samples cannot be used; says how many and names the first.
        """
        images, regions = rows
        distinct, image_index = np.unique(images, return_inverse=True)
        size_px = self._preprocess.image_size_px
        batch = _empty(len(distinct), len(images), size_px, self._config, buffers)
        batch["image_index_B"] = torch.from_numpy(image_index)
        texts, errors = [""] * len(images), []
        for u, image in enumerate(distinct.tolist()):
            try:
                sample = self._read(image)
                places = np.flatnonzero(image_index == u).tolist()
                wanted = self._draw(epoch, sample, places, regions[places].tolist())
                _fill(batch, u, wanted, self._picture(sample, wanted))
            except DataError as error:
                errors.append(str(error))
                continue
            for w in wanted:
                texts[w.place] = w.drawn.text
        if errors:
            raise DataError(_summary(errors, len(distinct)))
        self._add_texts(batch, texts)
        return batch

    def _read(self, image: int) -> Sample:
        index = self._index
        shard = index.shards[index.shard_I[image]]
        sample = self._shards.sample(shard, int(index.key_hash_I[image]))
        if len(sample.regions) != index.num_regions_I[image]:
            raise DataError(
                f"{sample.place}: the sample has {len(sample.regions)} regions, "
                f"the manifest {index.num_regions_I[image]}"
            )
        return sample

    def _draw(
        self, epoch: int, sample: Sample, places: list[int], regions: list[int]
    ) -> list[Wanted]:
        chosen = [sample.regions[number] for number in regions]
        return [
            Wanted(place, region, draw(self._config, epoch, sample, region))
            for place, region in zip(places, chosen, strict=True)
        ]

    def _picture(self, sample: Sample, wanted: Sequence[Wanted]) -> Picture:
        regions = [w.region for w in wanted if not w.drawn.is_full_image]
        return Picture(self._preprocess, sample, regions, has_crops=self._config.needs_crops)

    def _add_texts(self, batch: PackedBatch, texts: Sequence[str]) -> None:
        hashes = [caption_hash(text) for text in texts]
        batch["texts_BE"] = self._embeddings.lookup(hashes)
        ids = [int.from_bytes(bytes.fromhex(text)[:8], "little", signed=True) for text in hashes]
        batch["text_ids_B"] = torch.tensor(ids)


def _empty(
    num_images: int, num_regions: int, size_px: int, config: DataConfig, buffers: Buffers
) -> PackedBatch:
    """A batch to be filled."""

    def pixels(number: int) -> Tensor:
        return buffers.take((number, 3, size_px, size_px), torch.uint8)

    def covers() -> Tensor:
        return buffers.take((num_regions, 1, size_px, size_px), torch.float16)

    return PackedBatch(
        images_UCHW=pixels(num_images),
        image_index_B=torch.empty(0),
        covers_B1HW=covers(),
        crops_BCHW=pixels(num_regions) if config.needs_crops else None,
        crop_covers_B1HW=covers() if config.needs_crops else None,
        texts_BE=torch.empty(0),
        text_ids_B=torch.empty(0),
        is_full_image_B=torch.zeros(num_regions, dtype=torch.bool),
        region_ids=[""] * num_regions,
    )


def _fill(batch: PackedBatch, u: int, wanted: Sequence[Wanted], picture: Picture) -> None:
    """Write image `u` and its regions into their places."""
    image = batch["images_UCHW"][u]
    picture.write_image(image)
    covers, crops = batch["covers_B1HW"], batch["crops_BCHW"]
    crop_covers = batch["crop_covers_B1HW"]
    number = 0  # of the region in the picture, which knows no full-image samples
    for w in wanted:
        batch["region_ids"][w.place] = w.region.region_id
        if w.drawn.is_full_image:
            batch["is_full_image_B"][w.place] = True
            covers[w.place] = 1
            if crops is not None and crop_covers is not None:
                crops[w.place], crop_covers[w.place] = image, 1
            continue
        picture.write_cover(covers[w.place], number)
        if crops is not None and crop_covers is not None:
            picture.write_crop(crops[w.place], crop_covers[w.place], number)
        number += 1


def _summary(errors: Sequence[str], num_images: int) -> str:
    return (
        f"{len(errors)} of {num_images} images of this batch cannot be used: "
        f"{'; '.join(errors[:NAMED_ERRORS])}. The data set is damaged: fetch or pack it again"
    )
