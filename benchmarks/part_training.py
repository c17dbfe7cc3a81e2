"""A training step of PA-CLIP, and its loader, against the plain way to write them.

    python benchmarks/part_training.py [--dataset runs/parts/fgpart] [--images 8] [--parts 3]
        [--rounds 5] [--architecture tiny]

The step: all images and crops in one pass, short captions and those of parts in another, texts
filled up to the longest of a pass. The plain way makes a pass for the images and one for each
number of a part, as a loop over parts does, and fills every text up to the whole context. The
losses are compared. The loader: images of a data set a core second, decoded once and no larger
than needed, against Pillow, which opens an image for every crop. Rounds alternate; medians are
told. Use an idle machine.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from pixclip.config import (
    ARCHITECTURES,
    CLIP_MEAN,
    CLIP_STD,
    ClipTextConfig,
    ModelConfig,
    PreprocessConfig,
)
from pixclip.data.config import PartDataConfig
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.data.loader import FgPart
from pixclip.data.parts import PartsBatch
from pixclip.data.shards import iterate_images
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.training.config import PartLossConfig
from pixclip.training.contrastive import contrastive_loss
from pixclip.training.paclip import PaClipObjective

CONTEXT, END = 248, 1999
LENGTHS = {"long": (50, 90), "short": (6, 20), "part": (12, 40)}  # tokens
CONFIG = PartLossConfig(part_temperature="shared")


def make_batch(num_images: int, num_parts: int, side_px: int) -> PartsBatch:
    """Random pixels and tokens; every image has all its parts."""
    count = num_images * num_parts

    def texts(kind: str, number: int) -> torch.Tensor:
        fewest, most = LENGTHS[kind]
        rows = torch.randint(1, END, (number, most))
        rows[torch.arange(number), torch.randint(fewest - 1, most, (number,))] = END
        return rows

    ids = torch.arange(2 * count).reshape(count, 2)
    has_all = torch.ones(num_images, dtype=torch.bool)
    return PartsBatch(
        images_bCHW=torch.randn(num_images, 3, side_px, side_px),
        crops_kCHW=torch.randn(count, 3, side_px, side_px),
        slots_k=torch.arange(count),
        long_bl=texts("long", num_images),
        short_bl=texts("short", num_images),
        parts_kl=texts("part", count),
        negatives_ml=texts("part", 0),
        negative_of_m=torch.zeros(0, dtype=torch.int64),
        has_long_b=has_all,
        has_short_b=has_all,
        has_part_s=torch.ones(count, dtype=torch.bool),
        long_ids_b=torch.arange(num_images),
        short_ids_b=torch.arange(num_images),
        part_ids_s2=ids,
        image_ids=[str(number) for number in range(num_images)],
    )


def our_step(objective: PaClipObjective, batch: PartsBatch) -> float:
    """One pass for pixels, two for texts, and backward."""
    loss = objective(batch)["total"]
    loss.backward()
    return float(loss.detach())


def plain_step(model: PixClip, batch: PartsBatch, num_parts: int) -> float:
    """A pass for the images, one for each number of a part, texts filled up; and backward."""
    full = model.preprocess.full_mask()[None]
    images = model.vision(batch.images_bCHW, full)
    crops_kCHW = batch.crops_kCHW.reshape(-1, num_parts, *batch.crops_kCHW.shape[1:])
    crops = torch.stack([model.vision(crops_kCHW[:, n], full) for n in range(num_parts)], dim=1)
    texts = {
        name: model.text(F.pad(tokens, (0, CONTEXT - tokens.shape[1])))
        for name, tokens in (
            ("long", batch.long_bl),
            ("short", batch.short_bl),
            ("parts", batch.parts_kl),
        )
    }
    scale = model.logit_scale.exp()
    loss = (
        contrastive_loss(images, texts["short"], scale, ids_b=batch.short_ids_b)
        + contrastive_loss(images, texts["long"], scale, ids_b=batch.long_ids_b)
        + contrastive_loss(crops.flatten(0, 1), texts["parts"], scale, ids_b=batch.part_ids_s2)
    )
    loss.backward()
    return float(loss.detach())


def compare_steps(options: argparse.Namespace) -> dict[str, object]:
    """Median seconds of both ways."""
    vision = ARCHITECTURES[options.architecture]
    text = ClipTextConfig(
        context_length=CONTEXT,
        vocab_size=END + 1,
        width=vision.width,
        num_heads=vision.num_heads,
        num_layers=vision.num_layers,
        mlp_width=vision.mlp_width,
        end_token_id=END,
    )
    torch.manual_seed(0)
    model = PixClip(ModelConfig(vision=vision, text=text, adaptor=None))
    model.logit_scale.requires_grad_(False)
    batch = make_batch(options.images, options.parts, vision.image_size_px)
    objective = PaClipObjective(model, CONFIG)
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: our_step(objective, batch),
        "plain": lambda: plain_step(model, batch, options.parts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = {name: way() for name, way in ways.items()}
    assert abs(losses["ours"] - losses["plain"]) < 1e-3 * abs(losses["plain"]), losses
    for _ in range(options.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "what": "step",
        "images": options.images,
        "parts": options.parts,
        **{f"{name}_s": round(value, 4) for name, value in median.items()},
        "times_faster": round(median["plain"] / median["ours"], 2),
    }


def tokens_of(texts: list[str]) -> torch.Tensor:
    """A token a character: the tokenizer is not what is compared."""
    rows = [torch.tensor([ord(char) % END for char in text[:60]] + [END]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 1)


def plain_epoch(dataset: Path, size_px: int, parts_per_image: int) -> int:
    """Pillow decodes the image for itself and again for each crop; gives the number of images."""
    mean, std = (np.array(values, dtype=np.float32) for values in (CLIP_MEAN, CLIP_STD))
    count = 0
    for sample in iterate_images(dataset, "train"):
        count += 1
        parts = [region for region in sample.regions if region.box_source != WHOLE_IMAGE]
        for box in [None, *(part.box_xyxy for part in parts[:parts_per_image])]:
            image = Image.open(io.BytesIO(sample.jpeg)).convert("RGB")
            image = image.crop(box) if box else image
            small = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
            pixels = (np.asarray(small, dtype=np.float32) / 255 - mean) / std
            torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return count


def compare_loaders(options: argparse.Namespace) -> dict[str, object]:
    """Images a core second of both ways."""
    size_px = ARCHITECTURES[options.architecture].image_size_px
    config = PartDataConfig(batch_size=options.images, parts_per_image=options.parts)
    preprocess = Preprocess(size_px, PreprocessConfig())
    data = FgPart(options.dataset, "train", preprocess, tokens_of, config)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for epoch in range(options.rounds):
        started = time.process_time()
        count = sum(batch.num_samples for batch in data.batches(epoch=epoch))
        rates["ours"].append(count / (time.process_time() - started))
        started = time.process_time()
        count = plain_epoch(options.dataset, size_px, options.parts)
        rates["plain"].append(count / (time.process_time() - started))
    median = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "what": "loader",
        "size_px": size_px,
        **{f"{name}_images_a_core_s": round(value, 1) for name, value in median.items()},
        "times_faster": round(median["ours"] / median["plain"], 2),
    }


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", type=Path, default=Path("runs/parts/fgpart"))
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--parts", type=int, default=3, help="parts of each image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--architecture", default="tiny", choices=sorted(ARCHITECTURES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(compare_steps(options)), flush=True)
    if options.dataset.exists():
        print(json.dumps(compare_loaders(options)))


if __name__ == "__main__":
    main()
