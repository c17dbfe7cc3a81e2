"""Blocks of EVA02-CLIP's vision transformer (https://arxiv.org/abs/2303.11331, 2303.15389).

They differ from CLIP's in three ways: rotary positions of the patches, a norm inside attention
and MLP ("sub-LN"), and a gated MLP (SwiGLU).
Legend: B samples, N tokens, Q queries, P patches, W width, h heads, d = W / h.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixclip.config import VisionConfig
from pixclip.vision.attention import Attention
from pixclip.vision.block import Block

ROPE_THETA = 10_000.0


class RotaryPositions(nn.Module):
    """Rotary embedding of a patch's row (first half of d) and column (second half).

    A grid finer or coarser than that of pre-training spans the same range of positions.
    """

    cosines: Tensor  # [P, d]
    sines: Tensor  # [P, d]

    def __init__(self, grid: int, pretrained_grid: int, head_width: int) -> None:
        super().__init__()
        angles_Pd = _angles(grid, pretrained_grid, head_width)
        # Not saved: they follow from the configuration.
        self.register_buffer("cosines", angles_Pd.cos(), persistent=False)
        self.register_buffer("sines", angles_Pd.sin(), persistent=False)

    def forward(self, heads_BhNd: Tensor) -> Tensor:
        """Rotate the patches; [CLS], the first token, has no place in the grid."""
        cls, patches = heads_BhNd[:, :, :1], heads_BhNd[:, :, 1:]
        rotated = patches * self.cosines + _quarter_turn(patches) * self.sines
        return torch.cat([cls, rotated.to(cls.dtype)], dim=2)


def _angles(grid: int, pretrained_grid: int, head_width: int) -> Tensor:
    """The angle of every patch and channel, [P, d]; neighbouring channels share one.

    The device is named so that the table is real even where parameters are made without memory.
    """
    half = head_width // 2
    channels = torch.arange(0, half, 2, dtype=torch.float32, device="cpu")
    frequencies = ROPE_THETA ** (-channels / half)
    positions = torch.arange(grid, dtype=torch.float32, device="cpu") / grid * pretrained_grid
    angles = torch.outer(positions, frequencies).repeat_interleave(2, dim=-1)
    rows = angles[:, None].expand(grid, grid, half)
    columns = angles[None, :].expand(grid, grid, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _quarter_turn(heads_BhPd: Tensor) -> Tensor:
    """(x, y) of each pair of neighbouring channels becomes (-y, x)."""
    x, y = heads_BhPd[..., 0::2], heads_BhPd[..., 1::2]
    return torch.stack([-y, x], dim=-1).flatten(-2)


class RotaryAttention(Attention):
    """Attention with rotary positions and a norm before the output projection."""

    def __init__(self, config: VisionConfig) -> None:
        width = config.width
        norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        super().__init__(width, config.num_heads, norm)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width)
        self.rotary = RotaryPositions(config.grid, config.rope_grid, width // config.num_heads)

    def queries_keys_values(
        self, tokens_BNW: Tensor, num_queries: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention`; one query alone is that of [CLS], which is not rotated."""
        assert num_queries in (None, 1), "only [CLS] is ever asked for alone"
        queries = self.split_heads(self.q(tokens_BNW[:, :num_queries]))
        keys, values = self.split_heads(self.k(tokens_BNW)), self.split_heads(self.v(tokens_BNW))
        return (queries if num_queries else self.rotary(queries)), self.rotary(keys), values


class SwiGlu(nn.Module):
    """Gated MLP with a norm before its last layer (https://arxiv.org/abs/2002.05202)."""

    def __init__(self, width: int, hidden_width: int, eps: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden_width)
        self.w2 = nn.Linear(width, hidden_width)
        self.norm = nn.LayerNorm(hidden_width, eps=eps)
        self.w3 = nn.Linear(hidden_width, width)

    def forward(self, tokens_BNW: Tensor) -> Tensor:
        """[B, N, W] to [B, N, W]."""
        gated = F.silu(self.w1(tokens_BNW)) * self.w2(tokens_BNW)
        output: Tensor = self.w3(self.norm(gated))
        return output


def eva02_block(config: VisionConfig) -> Block:
    """One block of an EVA02 tower."""
    mlp = SwiGlu(config.width, config.mlp_width, config.layer_norm_eps)
    return Block(config.width, RotaryAttention(config), mlp, config.layer_norm_eps)
