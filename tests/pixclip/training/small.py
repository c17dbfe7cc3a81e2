"""A very small model and batches of random numbers for tests of training."""

import torch

from pixclip.config import ARCHITECTURES, AdaptorConfig, ModelConfig, TextConfig
from pixclip.data.batch import Batch
from pixclip.data.config import DataConfig
from pixclip.model import PixClip
from pixclip.training.config import LossConfig, Stage
from pixclip.training.schedule import OptimizerConfig

VISION = ARCHITECTURES["tiny"].changed(
    image_size_px=32,
    patch_size_px=8,
    width=32,
    num_layers=2,
    num_heads=2,
    mlp_width=64,
    embed_dim=24,
)
TEXT_DIM = 12
CONFIG = ModelConfig(
    vision=VISION, text=TextConfig(embed_dim=TEXT_DIM), adaptor=AdaptorConfig(num_layers=1)
)
# The two regions of an image share a text: equal texts must not be negatives of each other.
NUM_IMAGES, IMAGE_OF_REGION, TEXT_OF_REGION = 4, [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 4, 0, 5, 5]
IS_FULL = [False, True, False, False, False, False, True, False]
NEGATIVES_OF_REGION = (2, 0, 0, 1, 0, 3, 0, 0)


def stage(**changes) -> Stage:
    base = Stage(
        name="test",
        losses=LossConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(mask_lr=1e-2, rest_lr=1e-3, warmup_steps=2),
        trainable=("mask", "vision", "adaptor", "logit_scale"),
        precision="fp32",
    )
    return base.changed(**changes)


def hard_stage() -> Stage:
    """The same with wrong captions."""
    losses = LossConfig(label_smoothing=0.1, hard=0.5)
    return stage(losses=losses, data=DataConfig(hard_negatives=3))


def small_model(seed: int = 0) -> PixClip:
    """A model whose every weight is random, the mask embedding's too."""
    torch.manual_seed(seed)
    model = PixClip(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(2.0)
            elif "norm" not in name:
                parameter.normal_(std=0.1)
    return model


def random_batch(seed: int = 0, ranks: slice = slice(None)) -> Batch:
    """A batch of eight regions of four images, or the regions of some images."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    count, side = len(IMAGE_OF_REGION), VISION.image_size_px
    index = torch.tensor(IMAGE_OF_REGION)
    images = draw(NUM_IMAGES, 3, side, side)
    chosen = range(NUM_IMAGES)[ranks]
    rows = torch.tensor([i for i, image in enumerate(IMAGE_OF_REGION) if image in chosen])
    texts = draw(6, TEXT_DIM)[torch.tensor(TEXT_OF_REGION)]
    masks, crops, crop_masks = (draw(count, depth, side, side) for depth in (1, 3, 1))
    coverage = torch.rand(count, VISION.grid**2, generator=generator)
    of_region = torch.repeat_interleave(torch.tensor(NEGATIVES_OF_REGION))
    is_here = torch.isin(of_region, rows)
    return Batch(
        images_UCHW=images[ranks],
        image_index_B=index[rows] - chosen[0],
        masks_B1HW=masks[rows],
        crops_BCHW=crops[rows],
        crop_masks_B1HW=crop_masks[rows],
        coverage_BP=coverage[rows],
        texts_BE=texts[rows],
        text_ids_B=torch.tensor(TEXT_OF_REGION)[rows],
        is_full_image_B=torch.tensor(IS_FULL)[rows],
        region_ids=[str(row) for row in rows.tolist()],
        negatives_ME=draw(len(of_region), TEXT_DIM)[is_here],
        negative_of_M=torch.searchsorted(rows, of_region[is_here]),
    )
