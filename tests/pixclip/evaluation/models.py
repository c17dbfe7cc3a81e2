"""Tiny models with weights that do something."""

import torch

from pixclip.config import ModelConfig, TextConfig, VisionConfig
from pixclip.model import PixClip

TEXT_WIDTH = 12
VISION = VisionConfig(
    kind="clip",
    image_size_px=32,
    patch_size_px=8,
    width=32,
    num_layers=2,
    num_heads=2,
    mlp_width=64,
    embed_dim=16,
)


def tiny_model(seed: int, vision: VisionConfig = VISION, text_width: int = TEXT_WIDTH) -> PixClip:
    """A model of random weights whose mask convolution is not zero."""
    torch.manual_seed(seed)
    model = PixClip(ModelConfig(vision=vision, text=TextConfig(embed_dim=text_width)))
    with torch.no_grad():
        model.vision.mask_embed.weight.normal_(std=0.2)
    return model.eval()
