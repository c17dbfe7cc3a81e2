"""Blocks of OpenAI's CLIP vision transformer (https://arxiv.org/abs/2103.00020)."""

import torch
from torch import Tensor, nn

from pixclip.config import VisionConfig
from pixclip.vision.attention import PackedAttention
from pixclip.vision.block import Block


class QuickGelu(nn.Module):
    """The sigmoid approximation of GELU that OpenAI trained with."""

    def forward(self, values: Tensor) -> Tensor:
        """`values * sigmoid(1.702 * values)`."""
        return values * torch.sigmoid(1.702 * values)


class Mlp(nn.Module):
    """Two layers with an activation between."""

    def __init__(self, width: int, hidden_width: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.activation = activation
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, tokens_BNW: Tensor) -> Tensor:
        """[B, N, W] to [B, N, W]."""
        output: Tensor = self.fc2(self.activation(self.fc1(tokens_BNW)))
        return output


def clip_block(config: VisionConfig) -> Block:
    """One block of a CLIP tower."""
    activation = QuickGelu() if config.activation == "quick_gelu" else nn.GELU()
    return Block(
        config.width,
        PackedAttention(config.width, config.num_heads),
        Mlp(config.width, config.mlp_width, activation),
        config.layer_norm_eps,
    )
