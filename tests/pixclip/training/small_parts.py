"""A very small model with CLIP's own text tower, and batches of images with few or many parts."""

import torch

from pixclip.config import ClipTextConfig, ModelConfig
from pixclip.data.config import PartDataConfig
from pixclip.data.parts import PartsBatch
from pixclip.model import PixClip
from pixclip.training.config import PartLossConfig, PartStage
from pixclip.training.schedule import OptimizerConfig
from tests.pixclip.training.small import VISION

END, WORDS, LENGTH = 30, 30, 7
TEXT = ClipTextConfig(
    context_length=8,
    vocab_size=31,
    width=16,
    num_heads=2,
    num_layers=2,
    mlp_width=32,
    end_token_id=END,
    num_fixed_positions=2,
)
CONFIG = ModelConfig(vision=VISION, text=TEXT, adaptor=None)
MOST = 3  # parts of an image
PARTS_OF_IMAGE = (3, 0, 1, 2)
# Slots of parts: two have one text, two are the sides of one part.
SAME_TEXT, MIRRORED = (0, 9), (0, 1)
NEGATIVES_OF_PART = (2, 0, 1, 0, 3, 0)
HAS_SHORT, HAS_LONG = (True, True, False, True), (True, False, True, True)


def part_stage(**changes) -> PartStage:
    base = PartStage(
        name="test",
        losses=PartLossConfig(hard=0.5, alpha=0.7, label_smoothing=0.1),
        data=PartDataConfig(batch_size=4, parts_per_image=MOST, hard_negatives=3),
        optimizer=OptimizerConfig(rest_lr=1e-3, warmup_steps=2),
        precision="fp32",
    )
    return base.changed(**changes)


def small_part_model(seed: int = 0) -> PixClip:
    """A model whose every weight is random but the mask's, which are 0."""
    torch.manual_seed(seed)
    model = PixClip(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(2.0)
            elif "norm" not in name and "mask_embed" not in name:
                parameter.normal_(std=0.2)
    return model


def random_texts(generator: torch.Generator, number: int) -> torch.Tensor:
    """Texts of one to six words, each with its end marker."""
    texts = torch.randint(1, WORDS, (number, LENGTH), generator=generator)
    ends = torch.randint(1, LENGTH, (number,), generator=generator)
    texts[torch.arange(number), ends] = END
    return texts


def random_parts(seed: int = 0, ranks: slice = slice(None)) -> PartsBatch:
    """A batch of four images with six parts in all, or some of its images."""
    generator = torch.Generator().manual_seed(seed)
    side, num_images = VISION.image_size_px, len(PARTS_OF_IMAGE)
    slots = [MOST * image + n for image, num in enumerate(PARTS_OF_IMAGE) for n in range(num)]
    pixels = torch.randn(num_images + len(slots), 3, side, side, generator=generator)
    short, long, parts = (random_texts(generator, n) for n in (num_images, num_images, len(slots)))
    negatives = random_texts(generator, sum(NEGATIVES_OF_PART))
    parts[slots.index(SAME_TEXT[1])] = parts[slots.index(SAME_TEXT[0])]
    ids = torch.arange(2 * MOST * num_images).reshape(-1, 2)
    ids[SAME_TEXT[1], 0] = ids[SAME_TEXT[0], 0]
    ids[MIRRORED[1], 1] = ids[MIRRORED[0], 1]
    images = list(range(num_images))[ranks]
    chosen = torch.tensor([k for k, slot in enumerate(slots) if slot // MOST in images]).long()
    of_part = torch.repeat_interleave(torch.tensor(NEGATIVES_OF_PART))
    return PartsBatch(
        images_bCHW=pixels[images],
        crops_kCHW=pixels[num_images:][chosen],
        slots_k=torch.tensor(slots)[chosen] - MOST * images[0],
        long_bl=long[images],
        short_bl=short[images],
        parts_kl=parts[chosen],
        negatives_ml=negatives[torch.isin(of_part, chosen)],
        negative_of_m=torch.searchsorted(chosen, of_part[torch.isin(of_part, chosen)]),
        has_long_b=torch.tensor(HAS_LONG)[images],
        has_short_b=torch.tensor(HAS_SHORT)[images],
        has_part_s=torch.isin(torch.arange(MOST * num_images), torch.tensor(slots))[_slots(images)],
        long_ids_b=torch.tensor([0, 1, 2, 0])[images],
        short_ids_b=torch.arange(num_images)[images],
        part_ids_s2=ids[_slots(images)],
        image_ids=[str(image) for image in images],
    )


def _slots(images: list[int]) -> slice:
    return slice(MOST * images[0], MOST * (images[-1] + 1))
