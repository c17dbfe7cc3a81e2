"""A training step of PixCLIP's three branches against the plain way to write it.

    python benchmarks/train_step.py [--images 8] [--regions 3] [--rounds 5] [--architecture tiny]
        [--language-model .cache/models/smollm2-135m-instruct]

The plain way runs the tower three times (regions, crops, whole images), once for every region also
where regions share an image, decodes and resizes every mask by itself, and runs the language model
on the captions of every batch. Ours reads cached text embeddings, makes one pass, embeds an image
once for all its regions and computes its dense features once. Same weights; the losses are
compared. Rounds alternate; medians are told. Use an idle machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from torch.utils.flop_counter import FlopCounterMode

from pixclip.config import ARCHITECTURES, ModelConfig, TextConfig
from pixclip.data.batch import Batch
from pixclip.model import PixClip
from pixclip.text.encoder import TextEncoder
from pixclip.text.language_model import open_language_model
from pixclip.training.config import LossConfig
from pixclip.training.pixclip import Embeddings, PixClipObjective, pool_regions, total_loss

CAPTION = (
    "A {colour} {thing} with a smooth surface and a slightly worn edge stands at place {side} "
    "of the scene, in front of a soft background, close to two other objects that are a little "
    "smaller; light falls on it from above and leaves a faint shadow below."
)
CONFIG = LossConfig()
PICTURE_PX = (640, 480)


@dataclass
class Case:
    """A batch as it comes from disk: normalised pixels, masks as RLE, captions."""

    images_UCHW: torch.Tensor
    image_index_B: torch.Tensor
    crops_BCHW: torch.Tensor
    rles: list[dict[str, object]]
    crop_rles: list[dict[str, object]]
    captions: list[str]
    texts_BE: torch.Tensor


def make_case(num_images: int, num_regions: int, side_px: int, encode: Callable) -> Case:
    """Random pictures with ellipses as masks and captions of about 60 tokens."""
    random = np.random.default_rng(0)
    count = num_images * num_regions
    colours, things = ("red", "blue", "green"), ("kettle", "bicycle", "lamp", "horse")
    captions = [
        CAPTION.format(colour=random.choice(colours), thing=random.choice(things), side=index)
        for index in range(count)
    ]
    masks = [_ellipse(random) for _ in range(count)]
    crops = [mask[np.ix_(mask.any(1), mask.any(0))] for mask in masks]
    return Case(
        torch.randn(num_images, 3, side_px, side_px),
        torch.arange(num_images).repeat_interleave(num_regions),
        torch.randn(count, 3, side_px, side_px),
        [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks],
        [coco.encode(np.asfortranarray(crop.astype(np.uint8))) for crop in crops],
        captions,
        encode(captions),
    )


def _ellipse(random: np.random.Generator) -> np.ndarray:
    drawn = Image.new("L", PICTURE_PX)
    x, y = random.integers(40, 400), random.integers(40, 250)
    size = random.integers(40, 220, 2)
    ImageDraw.Draw(drawn).ellipse((x, y, x + int(size[0]), y + int(size[1])), fill=1)
    return np.asarray(drawn) > 0


def plain_masks(rles: list[dict[str, object]], model: PixClip) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks for the tower and as they are, one after the other with pycocotools and Pillow."""
    side, config = model.config.vision.image_size_px, model.config.preprocess
    shares = []
    for rle in rles:
        picture = Image.fromarray(coco.decode(rle).astype(np.float32))
        resized = np.asarray(picture.resize((side, side), Image.Resampling.BOX))
        shares.append(torch.from_numpy(resized.copy())[None])
    share_B1HW = torch.stack(shares)
    return (share_B1HW - config.mask_mean) / config.mask_std, share_B1HW


def full_forward(model: PixClip, images: torch.Tensor, masks: torch.Tensor, dense: bool):
    """The whole tower on every sample, as a model without our shortcuts would do it."""
    tower = model.vision
    tokens = tower.tokens(images, masks)
    for block in tower.blocks:
        tokens = block(tokens)
    tokens = tower.norm_post(tokens)
    return tokens[:, 1:] if dense else tower.project(tokens[:, 0])


def plain_step(model: PixClip, case: Case, texts_BE: torch.Tensor) -> torch.Tensor:
    """Three forward passes over all regions, and backward."""
    images_BCHW = case.images_UCHW[case.image_index_B]
    masks, share = plain_masks(case.rles, model)
    crop_masks, _ = plain_masks(case.crop_rles, model)
    full = model.preprocess.full_mask().expand_as(masks)
    patch = model.config.vision.patch_size_px
    coverage_BP = torch.nn.functional.avg_pool2d(share, patch).flatten(1)
    regions = full_forward(model, images_BCHW, masks, dense=False)
    crops = full_forward(model, case.crops_BCHW, crop_masks, dense=False)
    patches = full_forward(model, images_BCHW, full, dense=True)
    rows = torch.arange(len(patches))
    pooled = pool_regions(patches, rows, coverage_BP, CONFIG.coverage_threshold)
    made = Embeddings(regions, model.adaptor(texts_BE), crops, model.vision.project(pooled))
    return _loss_and_gradient(model, made, rows)


def _loss_and_gradient(model: PixClip, made: Embeddings, ids: torch.Tensor) -> torch.Tensor:
    loss = total_loss(
        made,
        model.logit_scale.exp(),
        text_ids_b=ids,
        is_full_image_b=torch.zeros(len(ids), dtype=torch.bool),
        config=CONFIG,
    )["total"]
    loss.backward()
    return loss.detach()


def our_batch(model: PixClip, case: Case) -> Batch:
    """The same batch as our loader makes it; the loader's workers do this beside the training."""
    prepare, patch = model.preprocess, model.config.vision.patch_size_px
    masks = [coco.decode(rle).astype(bool) for rle in case.rles]
    crop_masks = [coco.decode(rle).astype(bool) for rle in case.crop_rles]
    count = len(masks)
    return Batch(
        images_UCHW=case.images_UCHW,
        image_index_B=case.image_index_B,
        masks_B1HW=torch.stack([prepare.mask(mask) for mask in masks]),
        crops_BCHW=case.crops_BCHW,
        crop_masks_B1HW=torch.stack([prepare.mask(mask) for mask in crop_masks]),
        coverage_BP=torch.stack([prepare.coverage(mask, patch) for mask in masks]),
        texts_BE=case.texts_BE,
        text_ids_B=torch.arange(count),
        is_full_image_B=torch.zeros(count, dtype=torch.bool),
        region_ids=[str(row) for row in range(count)],
    )


def our_step(model: PixClip, branches: PixClipObjective, case: Case) -> torch.Tensor:
    """Masks, one forward pass, and backward."""
    loss = branches(our_batch(model, case))["total"]
    loss.backward()
    return loss.detach()


def matmul_peak(seconds: float = 2.0, side: int = 1536) -> float:
    """The most FLOP/s that a product of large matrices reaches here."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        a @ b
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best


def timed(step: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """Seconds and loss of a step."""
    started = time.perf_counter()
    loss = float(step())
    return time.perf_counter() - started, loss


def main() -> None:
    """Alternate the ways and print medians, ratios and the share of the peak."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--regions", type=int, default=3, help="regions of each image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--architecture", default="tiny", choices=sorted(ARCHITECTURES))
    parser.add_argument("--language-model", default=".cache/models/smollm2-135m-instruct")
    options = parser.parse_args()
    torch.manual_seed(0)
    encode = open_encoder(Path(options.language_model))
    vision = ARCHITECTURES[options.architecture].changed(embed_dim=256)
    case = make_case(options.images, options.regions, vision.image_size_px, encode)
    text = TextConfig(embed_dim=case.texts_BE.shape[1])
    model = PixClip(ModelConfig(vision=vision, text=text))
    branches = PixClipObjective(model, CONFIG)
    ways = {
        "plain, language model in the loop": lambda: plain_step(model, case, encode(case.captions)),
        "plain, cached texts": lambda: plain_step(model, case, case.texts_BE),
        "ours": lambda: our_step(model, branches, case),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        losses = []
        for name, step in ways.items():
            model.zero_grad()
            took, loss = timed(step)
            losses.append(loss)
            if number:  # the first round warms up
                seconds[name].append(took)
        assert max(losses) - min(losses) < 1e-3 * max(losses), losses
    report(options, seconds, ways["ours"])


def open_encoder(folder: Path) -> Callable[[list[str]], torch.Tensor]:
    """What makes text embeddings."""
    from transformers import AutoTokenizer

    body = open_language_model(folder, with_head=False, dtype=torch.float32)
    config = TextConfig(embed_dim=body.config.hidden_size)
    return TextEncoder(body, AutoTokenizer.from_pretrained(folder), config).encode


def report(
    options: argparse.Namespace,
    seconds: dict[str, list[float]],
    our_step: Callable[[], torch.Tensor],
) -> None:
    """Print it."""
    count = options.images * options.regions
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.architecture}, {count} regions of {options.images} images; losses are equal")
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}"
        print(f"  {name:34} {median:6.2f} s a step ({spread}), {count / median:6.1f} regions/s")
    in_loop, cached, ours = medians.values()
    print(f"with cached texts {in_loop / ours:.2f} times as fast; vision alone {cached / ours:.2f}")
    with FlopCounterMode(display=False) as counter:
        our_step()
    peak, reached = matmul_peak(), counter.get_total_flops() / ours
    print(
        f"{reached / 1e9:.1f} GFLOP/s of a matrix-product peak of {peak / 1e9:.1f}: "
        f"model FLOPs utilisation {reached / peak:.0%}"
    )


if __name__ == "__main__":
    main()
