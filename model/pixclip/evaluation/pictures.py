"""Pictures of what a model sees: outlined regions, attention of [CLS], similarity to a text.

Legend: P patches, S side of the model's square, D embedding width.
"""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from pixclip.evaluation.metrics import Floats
from pixclip.masks import Mask
from pixclip.model import PixClip

Pixels = npt.NDArray[np.uint8]
OUTLINE = (255, 64, 32)
DIMMED = 0.55  # brightness around an outlined region
HEAT_SHARE = 0.6  # of the colour map in what it is laid over
# Dark blue over red to pale yellow: brighter means more, also in print and to the colour-blind.
COLOURS = np.array(
    [(10, 8, 40), (70, 12, 95), (150, 30, 90), (220, 70, 50), (250, 150, 20), (252, 250, 170)],
    dtype=np.float64,
)


def shrunken(image: Image.Image, side_px: int) -> Image.Image:
    """The image with its longer side at most `side_px`."""
    small = image.copy()
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return small


def outlined(image: Image.Image, mask: Mask, side_px: int) -> Image.Image:
    """A small picture on which a region stands out: outlined, and all else darker."""
    small = shrunken(image, side_px)
    inside = _shrunken_mask(mask, small.size)
    edge = np.array(Image.fromarray(inside).filter(ImageFilter.MaxFilter(5))) & ~inside
    pixels = np.array(small, dtype=np.float64)
    pixels[~inside] *= DIMMED
    pixels[edge] = OUTLINE
    return Image.fromarray(pixels.astype(np.uint8))


def _shrunken_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at another size; one that is thinner than a pixel keeps its best pixels."""
    soft = np.array(Image.fromarray(255 * mask.astype(np.uint8)).resize(size, Image.Resampling.BOX))
    return soft >= max(1, min(128, int(soft.max())))


def heat(
    image: Image.Image, values_P: Floats, low: float, high: float, side_px: int
) -> Image.Image:
    """A small picture with values of its patches laid over it, from `low` to `high`."""
    grid = round(len(values_P) ** 0.5)
    shares = np.clip((values_P - low) / max(high - low, 1e-12), 0, 1).reshape(grid, grid)
    small = shrunken(image, side_px)
    soft = Image.fromarray(shares.astype(np.float32)).resize(small.size, Image.Resampling.BICUBIC)
    colours = colour_map(np.clip(np.asarray(soft, dtype=np.float64), 0, 1))
    grey = np.asarray(small.convert("L"), dtype=np.float64)[..., None]
    return Image.fromarray((HEAT_SHARE * colours + (1 - HEAT_SHARE) * grey).astype(np.uint8))


def colour_map(shares: Floats) -> Pixels:
    """Colours [..., 3] of shares [...] in [0, 1]."""
    places = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(shares, places, COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


@torch.inference_mode()
def cls_attention(model: PixClip, image: Image.Image, mask: Mask | None) -> Floats:
    """How much [CLS] looks at every patch in the last block, mean over the heads, [P].

    No mask stands for the whole image.
    """
    images_1CHW, masks_11HW = _tensors(model, image, mask)
    attention_1hP = model.vision.cls_attention(images_1CHW, masks_11HW)
    return _floats(attention_1hP.mean(dim=1)[0])


@torch.inference_mode()
def patch_similarity(model: PixClip, image: Image.Image, text_D: Tensor) -> Floats:
    """Cosine of every patch of a whole image and a text's embedding, [P]."""
    tokens_1NW = model.vision.tokens(*_tensors(model, image, None))
    _, patches_1PW = model.vision.encode(tokens_1NW, num_dense=1)
    patches_PD = F.normalize(model.vision.project(patches_1PW[0]).float(), dim=-1)
    return _floats(patches_PD @ text_D.to(patches_PD.device))


def _tensors(model: PixClip, image: Image.Image, mask: Mask | None) -> tuple[Tensor, Tensor]:
    device = next(model.vision.parameters()).device
    preprocess = model.preprocess
    cover_1SS = preprocess.full_mask() if mask is None else preprocess.mask(mask)
    return preprocess.image(image)[None].to(device), cover_1SS[None].to(device)


def _floats(tensor: Tensor) -> Floats:
    return np.asarray(tensor.double().cpu().numpy(), dtype=np.float64)
