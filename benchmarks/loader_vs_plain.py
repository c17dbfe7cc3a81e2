"""Samples a core second of the LongGRIT loader against a plain PIL + pycocotools loader.

    python benchmarks/loader_vs_plain.py [--longgrit runs/demo/longgrit] [--rounds 5]

Both make the same samples in the same order: image, mask, I', M', text embedding, as float32
tensors in batches of 64. The plain one is what one writes first: for every region it decodes the
image and, for I', decodes it again, resizes with Pillow and normalises sample by sample;
`plain_one_decode` keeps the decoded image for I'. Rounds alternate; one thread, no workers.
"""

import argparse
import io
import json
import random
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco

from pixclip.config import ARCHITECTURES, AdaptorConfig, ModelConfig, PreprocessConfig, TextConfig
from pixclip.data.batch import Batch
from pixclip.data.config import DataConfig
from pixclip.data.draw import draw
from pixclip.data.loader import LongGrit
from pixclip.data.samples import parse_sample
from pixclip.preprocess import Preprocess
from pixclip.text.embeddings import caption_hash

EMBED_DIM, BATCH_SIZE, PATCH_PX = 384, 64, 16


class RandomVectors:
    """Stands for cached text embeddings, without their files."""

    def __init__(self) -> None:
        self.table = torch.randn(1024, EMBED_DIM)

    def lookup(self, hashes: list[str]) -> torch.Tensor:
        return self.table[[int(text[:8], 16) % 1024 for text in hashes]]


class PlainLoader:
    """One region after the other, in Python."""

    def __init__(
        self, longgrit: Path, size_px: int, config: DataConfig, vectors: RandomVectors, decodes: int
    ) -> None:
        self.size, self.config, self.vectors, self.decodes = size_px, config, vectors, decodes
        places = []
        for path in sorted((longgrit / "train").glob("*.tar")):
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


def read(place: tuple[Path, int, int]) -> bytes:
    """A member of a tar."""
    path, offset, size = place
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def samples_per_second(make: Callable[[int], Iterator[Any]], epoch: int) -> float:
    """Regions that come out per second of one core."""
    started = time.process_time()
    num_batches = sum(1 for _ in make(epoch))
    return num_batches * BATCH_SIZE / (time.process_time() - started)


def compare(
    longgrit: Path, size_px: int, config: DataConfig, num_rounds: int
) -> dict[str, float | int | bool]:
    """Medians over rounds in which every loader runs once."""
    vectors = RandomVectors()
    preprocess = Preprocess(size_px, PreprocessConfig())
    ours = LongGrit(longgrit, "train", preprocess, PATCH_PX, vectors, config)
    loaders: dict[str, Callable[[int], Iterator[Any]]] = {
        "ours": lambda epoch: ours.batches(epoch=epoch),
        "plain": PlainLoader(longgrit, size_px, config, vectors, 2).batches,
        "plain_one_decode": PlainLoader(longgrit, size_px, config, vectors, 1).batches,
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(num_rounds):
        for name, make in loaders.items():
            rates[name].append(samples_per_second(make, epoch))
    medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    return {
        "image_size_px": size_px,
        "needs_crops": config.needs_crops,
        "regions_per_image": config.regions_per_image,
        **{f"{name}_per_core_s": rate for name, rate in medians.items()},
        "ratio": round(medians["ours"] / medians["plain"], 2),
        "ratio_to_one_decode": round(medians["ours"] / medians["plain_one_decode"], 2),
    }


def step_seconds(longgrit: Path, config: DataConfig) -> dict[str, float]:
    """Core seconds of one batch and of the tiny model's step on it, forwards and backwards."""
    from pixclip.model import PixClip
    from pixclip.training.pixclip import PixClipObjective
    from pixclip.training.recipes import LossConfig

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
    data = LongGrit(longgrit, "train", preprocess, PATCH_PX, RandomVectors(), config)
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
    parser.add_argument("--longgrit", type=Path, default=Path("runs/demo/longgrit"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size_px, needs_crops, together in (
        (224, True, 1),
        (224, True, 3),
        (112, True, 3),
        (112, False, 3),
    ):
        config = DataConfig(
            batch_size=BATCH_SIZE, needs_crops=needs_crops, regions_per_image=together
        )
        print(json.dumps(compare(arguments.longgrit, size_px, config, arguments.rounds)))
    config = DataConfig(batch_size=BATCH_SIZE, regions_per_image=3)
    print(json.dumps(step_seconds(arguments.longgrit, config)))


if __name__ == "__main__":
    main()
