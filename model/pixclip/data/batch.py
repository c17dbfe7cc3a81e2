"""Batches: packed small where workers send them, unpacked to what the model reads.

From rows of the index to a packed batch is the work of a loader's worker.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixclip.data.config import DataConfig
from pixclip.data.errors import DataError
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.data.order import Draw, ImageIndex, Rows, draw
from pixclip.data.pictures import Picture
from pixclip.data.samples import Region, Sample
from pixclip.data.shards import Shards
from pixclip.preprocess import Preprocess, patch_coverage
from pixclip.text.embeddings import caption_hash

# Legend: B = regions, U = distinct images, C = 3, H = W = side of the model's square, P = patches,
# E = width of the language model, M = wrong captions of the regions.

Lent = weakref.ReferenceType[npt.NDArray[np.uint8]]


class PackedBatch(TypedDict):
    """What a worker makes: a third of the bytes of a `Batch`."""

    images_UCHW: Tensor  # uint8
    image_index_B: Tensor
    covers_B1HW: Tensor  # float16, share of every pixel inside the mask
    crops_BCHW: Tensor | None  # uint8
    crop_covers_B1HW: Tensor | None  # float16
    texts_BE: Tensor
    text_ids_B: Tensor
    is_full_image_B: Tensor
    region_ids: list[str]
    negatives_ME: Tensor | None
    negative_of_M: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One rank's part of a step. Floats are float32, normalised as the model's config says."""

    images_UCHW: Tensor
    image_index_B: Tensor  # int64: which of the images a region is in
    masks_B1HW: Tensor
    crops_BCHW: Tensor | None  # I' of eq. 4; the image itself for a full-image sample
    crop_masks_B1HW: Tensor | None  # M'
    coverage_BP: Tensor  # share of every patch inside the mask (eq. 5)
    texts_BE: Tensor  # cached embeddings of the frozen language model
    text_ids_B: Tensor  # int64: equal for equal texts
    # bool: the whole image, by the draw or as a region of its own; its text is of the image.
    is_full_image_B: Tensor
    region_ids: list[str]
    negatives_ME: Tensor | None = None  # as `texts_BE`, of wrong captions; None: nobody wants them
    negative_of_M: Tensor | None = None  # int64: which of the regions each belongs to

    @property
    def num_samples(self) -> int:
        """The number of regions, whole images among them."""
        return len(self.image_index_B)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class Buffers:
    """Memory of batches that nobody holds any more, for the next ones.

    Fresh memory of a batch's size is given back to the system and taken from it again each time,
    and the first touch of its pages takes longer than the arithmetic on them.
    """

    def __init__(self) -> None:
        # With what a tensor holds as long as it lives.
        self._lent: list[tuple[npt.NDArray[np.uint8], Lent]] = []

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of anything on the CPU, in memory that no other living tensor has."""
        num_bytes = math.prod(shape) * dtype.itemsize
        if not num_bytes:
            return torch.empty(tuple(shape), dtype=dtype)
        memory = self._find(num_bytes)
        held = memory[:num_bytes]
        self._lent.append((memory, weakref.ref(held)))
        return torch.from_numpy(held).view(dtype).reshape(tuple(shape))

    def _find(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """The smallest free memory that is large enough, else new one instead of a free one."""
        free = [one for one in self._lent if one[1]() is None]
        free.sort(key=lambda one: one[0].nbytes)
        found = next((one for one in free if one[0].nbytes >= num_bytes), None)
        gone = found or (free[-1] if free else None)
        self._lent = [one for one in self._lent if one is not gone]
        return found[0] if found else np.empty(num_bytes, dtype=np.uint8)


def unpack(
    packed: PackedBatch,
    preprocess: Preprocess,
    patch_size_px: int,
    device: torch.device | str,
    buffers: Buffers,
) -> Batch:
    """The batch on a device; what is small is sent and grows there."""

    def send(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    grow = grower(device, buffers)
    crops, crop_covers = packed["crops_BCHW"], packed["crop_covers_B1HW"]
    negatives, negative_of = packed["negatives_ME"], packed["negative_of_M"]
    covers_B1HW = send(packed["covers_B1HW"])
    pixels, covers = preprocess.normalise_pixels, preprocess.normalise_cover
    return Batch(
        images_UCHW=grow(pixels, packed["images_UCHW"]),
        image_index_B=send(packed["image_index_B"]),
        masks_B1HW=grow(covers, covers_B1HW),
        crops_BCHW=None if crops is None else grow(pixels, crops),
        crop_masks_B1HW=None if crop_covers is None else grow(covers, crop_covers),
        coverage_BP=patch_coverage(covers_B1HW, patch_size_px),
        texts_BE=send(packed["texts_BE"]),
        text_ids_B=send(packed["text_ids_B"]),
        is_full_image_B=send(packed["is_full_image_B"]),
        region_ids=packed["region_ids"],
        negatives_ME=None if negatives is None else send(negatives),
        negative_of_M=None if negative_of is None else send(negative_of),
    )


Normalise = Callable[[Tensor, Tensor | None], Tensor]


def grower(device: torch.device | str, buffers: Buffers) -> Callable[[Normalise, Tensor], Tensor]:
    """What sends bytes to a device and normalises them there."""

    def grow(normalise: Normalise, tensor: Tensor) -> Tensor:
        sent = tensor.to(device, non_blocking=True)
        is_here = sent.device.type == "cpu"
        return normalise(sent, buffers.take(sent.shape, torch.float32) if is_here else None)

    return grow


NAMED_ERRORS = 3


class Images:
    """The samples of a split by their number in its index."""

    def __init__(self, shards: Shards, index: ImageIndex) -> None:
        self._shards, self._index = shards, index

    def read(self, image: int) -> Sample:
        """A sample with its encoded image.

        Raises:
            DataError: it is missing, damaged, or has other regions than the manifest.
        """
        index = self._index
        shard = index.shards[index.shard_I[image]]
        sample = self._shards.sample(shard, int(index.key_hash_I[image]))
        if len(sample.regions) != index.num_regions_I[image]:
            raise DataError(
                f"{sample.place}: the sample has {len(sample.regions)} regions, "
                f"the manifest {index.num_regions_I[image]}"
            )
        return sample


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
        images: Images,
        preprocess: Preprocess,
        embeddings: Embeddings,
        config: DataConfig,
    ) -> None:
        self._images, self._preprocess = images, preprocess
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
        draws: dict[int, Draw] = {}
        errors: list[str] = []
        for u, image in enumerate(distinct.tolist()):
            try:
                sample = self._images.read(image)
                places = np.flatnonzero(image_index == u).tolist()
                wanted = self._draw(epoch, sample, places, regions[places].tolist())
                _fill(batch, u, wanted, self._picture(sample, wanted))
            except DataError as error:
                errors.append(str(error))
                continue
            draws |= {w.place: w.drawn for w in wanted}
        require_usable(errors, len(distinct))
        self._add_texts(batch, [draws[place] for place in range(len(images))])
        return batch

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
        return Picture(self._preprocess, sample, regions, self._config)

    def _add_texts(self, batch: PackedBatch, draws: Sequence[Draw]) -> None:
        hashes = [caption_hash(drawn.text) for drawn in draws]
        wrong = [caption_hash(text) for drawn in draws for text in drawn.negatives]
        embedded = self._embeddings.lookup([*hashes, *wrong])
        batch["texts_BE"] = embedded[: len(hashes)]
        batch["text_ids_B"] = text_ids(hashes)
        if self._config.hard_negatives:
            batch["negatives_ME"] = embedded[len(hashes) :]
            owners = [place for place, drawn in enumerate(draws) for _ in drawn.negatives]
            batch["negative_of_M"] = torch.tensor(owners, dtype=torch.int64)


def text_ids(hashes: Sequence[str]) -> Tensor:
    """Numbers of texts by their `caption_hash`, int64 [n]: equal for equal texts."""
    ids = [int.from_bytes(bytes.fromhex(text)[:8], "little", signed=True) for text in hashes]
    return torch.tensor(ids, dtype=torch.int64)


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
        negatives_ME=None,
        negative_of_M=None,
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
        is_whole = w.drawn.is_full_image or w.region.box_source == WHOLE_IMAGE
        batch["is_full_image_B"][w.place] = is_whole
        if w.drawn.is_full_image:
            covers[w.place] = 1
            if crops is not None and crop_covers is not None:
                crops[w.place], crop_covers[w.place] = image, 1
            continue
        picture.write_cover(covers[w.place], number)
        if crops is not None and crop_covers is not None:
            picture.write_crop(crops[w.place], crop_covers[w.place], number)
        number += 1


def require_usable(errors: Sequence[str], num_images: int) -> None:
    """Refuse a batch with images that cannot be used.

    Raises:
        DataError: says how many, and names the first.
    """
    if errors:
        raise DataError(
            f"{len(errors)} of {num_images} images of this batch cannot be used: "
            f"{'; '.join(errors[:NAMED_ERRORS])}. The data set is damaged: fetch or pack it again"
        )
