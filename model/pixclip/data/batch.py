"""Batches: packed small where workers send them, unpacked to what the model reads.

From rows of the index to a packed batch is the work of a loader's worker.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixclip.data.config import DataConfig
from pixclip.data.errors import DataError
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.data.order import Draw, ImageIndex, Rows, draw
from pixclip.data.pictures import Masks, Views
from pixclip.data.samples import Region, Sample
from pixclip.data.shards import Shards
from pixclip.preprocess import Preprocess, patch_coverage
from pixclip.text.embeddings import caption_hash

# Legend: B = regions, U = distinct images, C = 3, H = W = side of the model's square, P = patches,
# E = width of the language model, M = wrong captions of the regions.

ItemT = TypeVar("ItemT")
MadeT = TypeVar("MadeT")
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

    @property
    def is_whole_image(self) -> bool:
        """Drawn as that, or a region that is the image itself."""
        return self.drawn.is_full_image or self.region.box_source == WHOLE_IMAGE


@dataclass(frozen=True)
class Chosen:
    """An image, its place among those of the batch, and what is wanted of it."""

    place: int
    sample: Sample
    wanted: Sequence[Wanted]

    @property
    def masked(self) -> list[Wanted]:
        """What has the mask of its region; the others are the whole image."""
        return [w for w in self.wanted if not w.drawn.is_full_image]


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

        All images are read, then all masks are made, then all pixels: a processor that has the
        code of one kind of work at hand takes a tenth less time than one that goes image by image.

        Raises:
            DataError: samples cannot be used; see `for_each`.
        """
        images, regions = rows
        distinct, image_index = np.unique(images, return_inverse=True)
        size_px = self._preprocess.image_size_px
        batch = _empty(len(distinct), len(images), size_px, self._config, buffers)
        batch["image_index_B"] = torch.from_numpy(image_index)

        def choose(u: int) -> Chosen:
            sample = self._images.read(int(distinct[u]))
            places = np.flatnonzero(image_index == u).tolist()
            return Chosen(u, sample, self._draw(epoch, sample, places, regions[places].tolist()))

        chosen = for_each(range(len(distinct)), choose)
        views = for_each(chosen, lambda one: self._write_masks(batch, one))
        for_each(list(zip(chosen, views, strict=True)), lambda pair: _write_pixels(batch, *pair))
        wanted = sorted((w for one in chosen for w in one.wanted), key=lambda w: w.place)
        batch["region_ids"] = [w.region.region_id for w in wanted]
        batch["is_full_image_B"] = torch.tensor([w.is_whole_image for w in wanted])
        self._add_texts(batch, [w.drawn for w in wanted])
        return batch

    def _draw(
        self, epoch: int, sample: Sample, places: list[int], regions: list[int]
    ) -> list[Wanted]:
        chosen = [sample.regions[number] for number in regions]
        return [
            Wanted(place, region, draw(self._config, epoch, sample, region))
            for place, region in zip(places, chosen, strict=True)
        ]

    def _write_masks(self, batch: PackedBatch, chosen: Chosen) -> Views:
        """Write the masks of an image's regions into their places; what is left to decode of it."""
        crop_covers, masked = batch["crop_covers_B1HW"], chosen.masked
        masks = Masks(self._preprocess, chosen.sample, [w.region for w in masked])
        windows = masks.windows if self._config.needs_crops else []
        views = Views(self._preprocess, chosen.sample, windows, self._config)
        for number, w in enumerate(masked):
            masks.write_cover(batch["covers_B1HW"][w.place], number, views.whole)
            if crop_covers is not None:
                masks.write_cover(crop_covers[w.place], number, views.windows[number])
        return views

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
        is_full_image_B=torch.empty(0),
        region_ids=[],
        negatives_ME=None,
        negative_of_M=None,
    )


def _write_pixels(batch: PackedBatch, chosen: Chosen, views: Views) -> None:
    """Write an image, the crops of its regions and what is the whole image into their places."""
    image, crops, decoded = batch["images_UCHW"][chosen.place], batch["crops_BCHW"], views.decode()
    decoded.write_image(image)
    if crops is not None:
        for number, w in enumerate(chosen.masked):
            decoded.write_window(crops[w.place], number)
    for w in chosen.wanted:
        if w.drawn.is_full_image:
            batch["covers_B1HW"][w.place] = 1
            if crops is not None and batch["crop_covers_B1HW"] is not None:
                crops[w.place], batch["crop_covers_B1HW"][w.place] = image, 1


def for_each(items: Sequence[ItemT], work: Callable[[ItemT], MadeT]) -> list[MadeT]:
    """What is made of every image of a batch by one kind of work.

    Raises:
        DataError: images cannot be used for it; says how many, and names the first.
    """
    made, errors = [], []
    for item in items:
        try:
            made.append(work(item))
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError(
            f"{len(errors)} of {len(items)} images of this batch cannot be used: "
            f"{'; '.join(errors[:NAMED_ERRORS])}. The data set is damaged: fetch or pack it again"
        )
    return made
