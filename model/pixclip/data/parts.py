"""Batches of images with their captions and parts, as PA-CLIP learns from them (its eq. 1 to 5).

A part is a region that is not the image itself. Its crop is cut out of the original image, not out
of what the model sees of it.
"""

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pixclip.data.batch import Buffers, Images, for_each, grower, text_ids
from pixclip.data.config import PartDataConfig
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.data.order import Rows
from pixclip.data.pictures import Views, window_of
from pixclip.data.samples import Region, Sample
from pixclip.preprocess import Preprocess, Window, crop_window
from pixclip.text.embeddings import caption_hash

# Legend: b = images of a rank, P = parts of an image at most, s = b * P slots of parts, k = parts
# there are, m = wrong captions of them, l = tokens.

Tokenize = Callable[[Sequence[str]], Tensor]  # texts to token ids [number, l], filled up
NO_CAPTION = "-"  # in the place of a caption that is missing: no loss looks at it
SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class PartsBatch:
    """One rank's part of a step.

    Pixels are bytes where workers send them, and float32, normalised as the model's config says,
    where the model reads them.
    """

    images_bCHW: Tensor
    crops_kCHW: Tensor  # of all images: each part alone, squashed to the model's square (eq. 4)
    slots_k: Tensor  # which of the s slots a crop has: P * (image in the batch) + number
    long_bl: Tensor  # token ids, int64
    short_bl: Tensor
    parts_kl: Tensor
    negatives_ml: Tensor  # wrong captions of parts
    negative_of_m: Tensor  # which of the k parts each belongs to
    has_long_b: Tensor  # bool
    has_short_b: Tensor
    has_part_s: Tensor
    long_ids_b: Tensor  # int64: equal for equal texts
    short_ids_b: Tensor
    # Two numbers a part: equal for equal texts; equal for parts of one image that differ in their
    # side alone ("left eye", "right eye"). The second is another for every other part.
    part_ids_s2: Tensor
    image_ids: list[str]

    @property
    def num_samples(self) -> int:
        """The number of images."""
        return len(self.images_bCHW)

    def to(self, device: torch.device | str) -> "PartsBatch":
        """The batch on another device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PartsBatch":
        """The batch in memory that GPUs read by themselves; torch's loader asks for it."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "PartsBatch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(value) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class DrawnPart:
    """A part in a batch, with the caption that it has there."""

    region: Region
    text: str
    mirror: str  # the same for parts of one image that differ in their side alone
    negatives: tuple[str, ...]  # wrong captions: of the short one, so only beside that


class PartsPacker:
    """Makes packed batches of images."""

    def __init__(
        self, images: Images, preprocess: Preprocess, tokenize: Tokenize, config: PartDataConfig
    ) -> None:
        self._images, self._preprocess = images, preprocess
        self._tokenize, self._config = tokenize, config

    def pack(self, epoch: int, rows: Rows, buffers: Buffers) -> PartsBatch:
        """The batch of these images, in bytes; each is read and decoded once.

        Raises:
            DataError: samples cannot be used; see `for_each`.
        """
        samples = for_each(rows[0].tolist(), self._images.read)
        drawn = [draw_parts(self._config, epoch, sample) for sample in samples]
        images_bCHW, crops_kCHW = self._pixels(samples, drawn, buffers)
        most = self._config.parts_per_image
        parts = [part for of_image in drawn for part in of_image]
        slots_k = _numbers(
            number * most + place
            for number, of_image in enumerate(drawn)
            for place in range(len(of_image))
        )
        num_slots = len(samples) * most
        has_part_s = torch.zeros(num_slots, dtype=torch.bool)
        has_part_s[slots_k] = True
        part_ids_s2 = torch.zeros(num_slots, 2, dtype=torch.int64)
        part_ids_s2[slots_k, 0] = _ids([part.text for part in parts])
        part_ids_s2[slots_k, 1] = _ids([part.mirror for part in parts])
        negatives = [part.negatives for part in parts]
        long, short = ([getattr(s, f"{n}_caption") for s in samples] for n in ("long", "short"))
        return PartsBatch(
            images_bCHW=images_bCHW,
            crops_kCHW=crops_kCHW,
            slots_k=slots_k,
            long_bl=self._tokenize([text or NO_CAPTION for text in long]),
            short_bl=self._tokenize([text or NO_CAPTION for text in short]),
            parts_kl=self._tokenize([part.text for part in parts]),
            negatives_ml=self._tokenize([text for texts in negatives for text in texts]),
            negative_of_m=_numbers(number for number, texts in enumerate(negatives) for _ in texts),
            has_long_b=torch.tensor(list(map(bool, long))),
            has_short_b=torch.tensor(list(map(bool, short))),
            has_part_s=has_part_s,
            long_ids_b=_ids(long),
            short_ids_b=_ids(short),
            part_ids_s2=part_ids_s2,
            image_ids=[sample.image_id for sample in samples],
        )

    def _pixels(
        self, samples: Sequence[Sample], drawn: Sequence[Sequence[DrawnPart]], buffers: Buffers
    ) -> tuple[Tensor, Tensor]:
        """Every image, and the crops of all parts, in bytes."""
        size, num_parts = self._preprocess.image_size_px, sum(map(len, drawn))
        images_bCHW = buffers.take((len(samples), 3, size, size), torch.uint8)
        crops_kCHW = buffers.take((num_parts, 3, size, size), torch.uint8)
        crops = iter(crops_kCHW)

        def write(number: int) -> None:
            sample, parts = samples[number], drawn[number]
            boxes = [part.region.box_xyxy for part in parts]
            windows = [window_of(box, self._preprocess, sample) for box in boxes]
            windows.append(image_window(sample))
            decoded = Views(self._preprocess, sample, windows, self._config).decode()
            for place, into in enumerate([*islice(crops, len(parts)), images_bCHW[number]]):
                decoded.write_window(into, place)

        for_each(range(len(samples)), write)
        return images_bCHW, crops_kCHW


def draw_parts(config: PartDataConfig, epoch: int, sample: Sample) -> list[DrawnPart]:
    """The parts of an image in an epoch, each with its long or short caption.

    All of them if there are no more than `parts_per_image`, in the order of the data set.
    """
    parts = [region for region in sample.regions if region.box_source != WHOLE_IMAGE]
    draws = [_draw(config, epoch, part) for part in parts]
    chosen = sorted(sorted(range(len(parts)), key=draws.__getitem__)[: config.parts_per_image])
    return [
        _drawn(config, sample, parts[place], is_long=draws[place][1] < config.long_part_share)
        for place in chosen
    ]


def image_window(sample: Sample) -> Window:
    """What the model sees as the image: without a banner that the source has below it, say."""
    wholes = [region for region in sample.regions if region.box_source == WHOLE_IMAGE]
    box = wholes[0].box_xyxy if wholes else (0.0, 0.0, sample.width_px, sample.height_px)
    return crop_window(box, sample.height_px, sample.width_px, margin=0.0)


def _draw(config: PartDataConfig, epoch: int, part: Region) -> tuple[float, float]:
    """Two numbers in [0, 1) of seed, epoch and part alone."""
    name = f"{config.seed}/{epoch}/{part.region_id}".encode()
    first, second = struct.unpack("<QQ", blake2b(name, digest_size=16).digest())
    return first / 2**64, second / 2**64


def _drawn(config: PartDataConfig, sample: Sample, part: Region, *, is_long: bool) -> DrawnPart:
    return DrawnPart(
        region=part,
        text=part.long_caption if is_long else part.short_caption,
        mirror=_mirror(sample, part),
        negatives=() if is_long else part.hard_negatives[: config.hard_negatives],
    )


def _mirror(sample: Sample, part: Region) -> str:
    """Another text for every part, but for those that differ in their side alone."""
    if not SIDE.search(part.phrase):
        return part.region_id
    return f"{sample.image_id}/{' '.join(SIDE.sub('', part.phrase).lower().split())}"


def _ids(texts: Sequence[str]) -> Tensor:
    return text_ids([caption_hash(text) for text in texts])


def _numbers(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


def unpack_parts(
    packed: PartsBatch, preprocess: Preprocess, device: torch.device | str, buffers: Buffers
) -> PartsBatch:
    """The batch on a device, its pixels normalised there."""
    sent, grow = packed.to(device), grower(device, buffers)
    return replace(
        sent,
        images_bCHW=grow(preprocess.normalise_pixels, sent.images_bCHW),
        crops_kCHW=grow(preprocess.normalise_pixels, sent.crops_kCHW),
    )
