"""Samples a core second of the LongGRIT loader, of plainer ones, and of decoding JPEGs alone.

    python benchmarks/loader_vs_plain.py [--dataset runs/demo/longgrit] [--rounds 5] [--batches 6]

Ours and the plain one make the same samples in the same order: image, mask, I', M', text
embedding, as float32 tensors in batches of 64. The plain one is what one writes first: for every
region it decodes the image and, for I', decodes it again, resizes with Pillow and normalises
sample by sample; `plain_one_decode` keeps the decoded image for I'.

`alphaclip` reads as AlphaCLIP's data set does, where no crops are wanted, which it does not make:
OpenCV decodes, image and mask are padded to a square, and both are resized as float tensors.

`ours_<decoding>` is ours with a value of `DataConfig.decoding`: `whole` decodes as the peers do,
`spare` is the default, `tight` decodes least. `only_decoding_<decoding>` does nothing but decode
what this one decodes, at the same scale, by the same decoder: no loader can be faster.

Every kind of sample is measured twice. With `regions_per_image` 1, all loaders decode an image for
every region. With 3, as the recipe `tiny` trains, ours decodes an image once for all regions of it
that share a batch; that is a feature of ours: the peers, as AlphaCLIP's data set, have a region a
sample and decode its image every time.

Rounds alternate; one thread, no workers; processor seconds of so many batches an epoch.
"""

import argparse
import io
import json
import random
import statistics
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from torch.nn import functional as F

from pixclip.config import ARCHITECTURES, AdaptorConfig, ModelConfig, PreprocessConfig, TextConfig
from pixclip.data.batch import Batch
from pixclip.data.config import DataConfig
from pixclip.data.loader import LongGrit
from pixclip.data.order import draw
from pixclip.data.samples import Sample, parse_sample
from pixclip.images import read_pixels
from pixclip.preprocess import Preprocess
from pixclip.text.embeddings import caption_hash

EMBED_DIM, BATCH_SIZE, PATCH_PX = 384, 64, 16
DECODINGS = get_args(DataConfig.model_fields["decoding"].annotation)


class RandomVectors:
    """Stands for cached text embeddings, without their files."""

    def __init__(self) -> None:
        self.table = torch.randn(1024, EMBED_DIM)

    def lookup(self, hashes: list[str]) -> torch.Tensor:
        return self.table[[int(text[:8], 16) % 1024 for text in hashes]]


class PlainLoader:
    """One region after the other, in Python."""

    def __init__(
        self, dataset: Path, size_px: int, config: DataConfig, vectors: RandomVectors, decodes: int
    ) -> None:
        self.size, self.config, self.vectors, self.decodes = size_px, config, vectors, decodes
        places = []
        for path in sorted((dataset / "train").glob("*.tar")):
            with tarfile.open(path) as tar:
                places += [(path, member.offset_data, member.size) for member in tar]
        # A sample's members are neighbours: jpg, json.
        samples = list(zip(places[::2], places[1::2], strict=True))
        self.regions = [
            (*sample, number)
            for sample in samples
            for number in range(len(json.loads(read(sample[1]))["regions"]))
        ]

    def batches(self, epoch: int) -> Iterator[list[torch.Tensor]]:
        regions = random.Random(epoch).sample(self.regions, len(self.regions))
        for start in range(0, len(regions) - BATCH_SIZE + 1, BATCH_SIZE):
            samples = [self.sample(epoch, *one) for one in regions[start : start + BATCH_SIZE]]
            yield [torch.stack(column) for column in zip(*samples, strict=True)]

    def sample(self, epoch: int, jpg: Any, description: Any, number: int) -> list[torch.Tensor]:
        data = parse_sample("", "", read(description), read(jpg))
        region = data.regions[number]
        drawn = draw(self.config, epoch, data, region)
        image = Image.open(io.BytesIO(data.jpeg)).convert("RGB")
        mask = coco.decode(region.mask.as_coco())
        if drawn.is_full_image:
            mask = np.ones_like(mask)
        text = self.vectors.lookup([caption_hash(drawn.text)])[0]
        made = [self.image_tensor(image), self.mask_tensor(mask), text]
        if self.config.needs_crops:
            if self.decodes == 2:
                image = Image.open(io.BytesIO(data.jpeg)).convert("RGB")
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            made += [self.image_tensor(image.crop((x1, y1, x2, y2)))]
            made += [self.mask_tensor(mask[y1:y2, x1:x2])]
        return made

    def image_tensor(self, image: Image.Image) -> torch.Tensor:
        small = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        settings = PreprocessConfig()
        mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
        return (pixels - mean[:, None, None]) / std[:, None, None]

    def mask_tensor(self, mask: np.ndarray) -> torch.Tensor:
        picture = Image.fromarray(mask * np.uint8(255))
        small = picture.resize((self.size, self.size), Image.Resampling.BOX)
        share = torch.from_numpy(np.array(small)).float()[None] / 255
        return (share - 0.5) / 0.26


class AlphaClipLoader(PlainLoader):
    """Image and mask as float tensors of the padded picture, resized by torch; no crops."""

    def sample(self, epoch: int, jpg: Any, description: Any, number: int) -> list[torch.Tensor]:
        data = parse_sample("", "", read(description), read(jpg))
        region = data.regions[number]
        drawn = draw(self.config, epoch, data, region)
        pixels = cv2.imdecode(np.frombuffer(data.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        mask = coco.decode(region.mask.as_coco())
        if drawn.is_full_image:
            mask = np.ones_like(mask)
        image, cover = self.squared(pixels), self.squared(mask[..., None] * np.uint8(255))
        settings = PreprocessConfig()
        mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
        text = self.vectors.lookup([caption_hash(drawn.text)])[0]
        return [(image - mean[:, None, None]) / std[:, None, None], (cover - 0.5) / 0.26, text]

    def squared(self, pixels: np.ndarray) -> torch.Tensor:
        height_px, width_px, _ = pixels.shape
        side = max(height_px, width_px)
        top, left = (side - height_px) // 2, (side - width_px) // 2
        square = np.zeros((side, side, pixels.shape[2]), dtype=np.uint8)
        square[top : top + height_px, left : left + width_px] = pixels
        floats = torch.from_numpy(square).permute(2, 0, 1).float() / 255
        size = (self.size, self.size)
        return F.interpolate(floats[None], size, mode="bicubic", antialias=True)[0]


def decodings(batches: Iterable[Batch]) -> list[tuple[bytes, int]]:
    """The JPEGs that are decoded for batches, each with the part of its size."""
    found: list[tuple[bytes, int]] = []
    decode = Sample.pixels

    def noted(sample: Sample, shrink: int = 1) -> np.ndarray:
        found.append((sample.jpeg, shrink))
        return decode(sample, shrink)

    Sample.pixels = noted
    try:
        for _ in batches:
            pass
    finally:
        Sample.pixels = decode
    return found


def read(place: tuple[Path, int, int]) -> bytes:
    """A member of a tar."""
    path, offset, size = place
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


Loader = Callable[[int], Iterable[Any]]


def seconds(parts: Iterable[Any]) -> float:
    """Of one core, until all parts are made."""
    started = time.process_time()
    for _ in parts:
        pass
    return time.process_time() - started


def compare(
    dataset: Path, size_px: int, config: DataConfig, num_rounds: int, num_batches: int
) -> dict[str, float | int | bool]:
    """Medians over rounds in which every loader makes that many batches."""
    vectors = RandomVectors()
    preprocess = Preprocess(size_px, PreprocessConfig())
    peers = {"plain": 2, "plain_one_decode": 1}  # decodings of an image
    loaders: dict[str, Loader] = {
        name: PlainLoader(dataset, size_px, config, vectors, decodes).batches
        for name, decodes in peers.items()
    }
    if not config.needs_crops:
        loaders["alphaclip"] = AlphaClipLoader(dataset, size_px, config, vectors, 1).batches
    for decoding in DECODINGS:
        settings = config.changed(decoding=decoding)
        data = LongGrit(dataset, "train", preprocess, PATCH_PX, vectors, settings)
        loaders[f"ours_{decoding}"] = lambda epoch, data=data: data.batches(epoch=epoch)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    num_regions = min(num_batches, data.num_steps(0)) * config.batch_size
    for epoch in range(num_rounds):
        for name, batches in loaders.items():
            rates[name].append(num_regions / seconds(islice(batches(epoch), num_batches)))
        for decoding in DECODINGS:
            jpegs = decodings(islice(loaders[f"ours_{decoding}"](epoch), num_batches))
            alone = seconds(read_pixels(data, shrink=k) for data, k in jpegs)
            rates.setdefault(f"only_decoding_{decoding}", []).append(num_regions / alone)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "image_size_px": size_px,
        "needs_crops": config.needs_crops,
        "regions_per_image": config.regions_per_image,
        **{f"{name}_per_core_s": round(rate, 1) for name, rate in medians.items()},
        **{
            f"{decoding}_to_{name}": round(medians[f"ours_{decoding}"] / medians[name], 2)
            for decoding in DECODINGS
            for name in ("alphaclip", *peers, f"only_decoding_{decoding}")
            if name in medians
        },
    }


def step_seconds(dataset: Path, config: DataConfig) -> dict[str, float]:
    """Core seconds of one batch and of the tiny model's step on it, forwards and backwards."""
    from pixclip.model import PixClip
    from pixclip.training.config import LossConfig
    from pixclip.training.pixclip import PixClipObjective

    vision = ARCHITECTURES["tiny"]
    model = PixClip(
        ModelConfig(
            vision=vision,
            text=TextConfig(embed_dim=EMBED_DIM),
            adaptor=AdaptorConfig(num_layers=1),
        )
    )
    module = PixClipObjective(model, LossConfig())
    preprocess = Preprocess(vision.image_size_px, PreprocessConfig())
    data = LongGrit(dataset, "train", preprocess, PATCH_PX, RandomVectors(), config)
    started = time.process_time()
    batches: list[Batch] = list(data.batches(epoch=0))
    loaded = time.process_time()
    for batch in batches[:3]:
        module(batch)["total"].backward()
    stepped = time.process_time()
    return {
        "load_core_s": round((loaded - started) / len(batches), 3),
        "step_core_s": round((stepped - loaded) / len(batches[:3]), 3),
    }


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("runs/demo/longgrit"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6, help="of an epoch, in every round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for size_px, needs_crops, regions_per_image in (
        (224, False, 1),
        (112, False, 1),
        (224, True, 1),
        (112, True, 1),
        (224, False, 3),
        (112, False, 3),
        (224, True, 3),
        (112, True, 3),
    ):
        config = DataConfig(
            batch_size=BATCH_SIZE, needs_crops=needs_crops, regions_per_image=regions_per_image
        )
        rounds, batches = arguments.rounds, arguments.batches
        print(json.dumps(compare(arguments.dataset, size_px, config, rounds, batches)), flush=True)
    config = DataConfig(batch_size=BATCH_SIZE, regions_per_image=3)
    print(json.dumps(step_seconds(arguments.dataset, config)))


if __name__ == "__main__":
    main()
