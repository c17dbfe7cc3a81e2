"""Transformer blocks: what the towers share, those of CLIP (its text tower's too) and of EVA02.

Legend: B samples, N tokens (first [CLS], then patches), Q queries (the first tokens), W width,
h heads, d = W / h.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixclip.config import VisionConfig


class Attention(nn.Module, ABC):
    """Scaled dot-product attention; subclasses say what queries, keys and values are."""

    def __init__(
        self, width: int, num_heads: int, norm: nn.Module, is_causal: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.is_causal = is_causal  # a token sees itself and those before it
        self.norm = norm  # of the joined heads, before the output projection
        self.out = nn.Linear(width, width)

    @abstractmethod
    def queries_keys_values(
        self, tokens_BNW: Tensor, num_queries: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, h, Q, d] of the first queries (`None`: all), [B, h, N, d] of keys and values."""

    def forward(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, Q, W]: the outputs of the first `num_queries` tokens (`None`: all)."""
        queries, keys, values = self.queries_keys_values(tokens_BNW, num_queries)
        joined_BhQd = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=self.is_causal
        )
        output: Tensor = self.out(self.norm(joined_BhQd.transpose(1, 2).flatten(2)))
        return output

    def weights(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, h, Q, N]: what `forward` weights the values with; rows sum to one."""
        assert not self.is_causal, "only vision towers are asked where they look"
        queries, keys, _ = self.queries_keys_values(tokens_BNW, num_queries)
        scale = queries.shape[-1] ** -0.5
        return torch.softmax(scale * queries @ keys.transpose(-2, -1), dim=-1)

    def split_heads(self, tokens_BNW: Tensor) -> Tensor:
        """[B, N, W] to [B, h, N, d]."""
        heads, head_width = self.num_heads, tokens_BNW.shape[-1] // self.num_heads
        return tokens_BNW.reshape(*tokens_BNW.shape[:-1], heads, head_width).transpose(1, 2)


class PackedAttention(Attention):
    """CLIP's attention: queries, keys and values of one projection."""

    def __init__(self, width: int, num_heads: int, is_causal: bool = False) -> None:
        super().__init__(width, num_heads, norm=nn.Identity(), is_causal=is_causal)
        self.qkv = nn.Linear(width, 3 * width)

    def queries_keys_values(
        self, tokens_BNW: Tensor, num_queries: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention`."""
        if num_queries is None:
            queries, keys, values = self.qkv(tokens_BNW).chunk(3, dim=-1)
        else:
            width, weight, bias = tokens_BNW.shape[-1], self.qkv.weight, self.qkv.bias
            queries = F.linear(tokens_BNW[:, :num_queries], weight[:width], bias[:width])
            keys, values = F.linear(tokens_BNW, weight[width:], bias[width:]).chunk(2, dim=-1)
        return self.split_heads(queries), self.split_heads(keys), self.split_heads(values)


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(self, width: int, attention: Attention, mlp: nn.Module, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp

    def forward(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, Q, W]: the first `num_queries` tokens (`None`: all), having looked at all.

        With fewer queries all but the keys and values costs less; the result is the same.
        """
        attended_BQW = self.attention(self.norm1(tokens_BNW), num_queries)
        tokens_BQW = tokens_BNW[:, :num_queries] + attended_BQW
        output: Tensor = tokens_BQW + self.mlp(self.norm2(tokens_BQW))
        return output

    def cls_attention(self, tokens_BNW: Tensor) -> Tensor:
        """[B, h, P]: how much [CLS] looks at each patch; what is left to one is for itself."""
        return self.attention.weights(self.norm1(tokens_BNW), num_queries=1)[:, :, 0, 1:]


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


def activation_of(name: str) -> nn.Module:
    """The activation of CLIP's towers by its name in a configuration."""
    return QuickGelu() if name == "quick_gelu" else nn.GELU()


def clip_block(config: VisionConfig) -> Block:
    """One block of a CLIP tower."""
    return Block(
        config.width,
        PackedAttention(config.width, config.num_heads),
        Mlp(config.width, config.mlp_width, activation_of(config.activation)),
        config.layer_norm_eps,
    )


ROPE_THETA = 10_000.0


# Blocks of EVA02-CLIP's vision transformer (https://arxiv.org/abs/2303.11331, 2303.15389).
#
# They differ from CLIP's in three ways: rotary positions of the patches, a norm inside attention
# and MLP ("sub-LN"), and a gated MLP (SwiGLU).
# Legend: B samples, N tokens, Q queries, P patches, W width, h heads, d = W / h.


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


# Layers whose output is added to the residual stream, by the end of their name.
TO_RESIDUAL = ("attention.out", "mlp.fc2", "mlp.w3")


def initialise(tower: nn.Module, num_layers: int) -> None:
    """Fill a tower as OpenAI's CLIP does: by width, smaller where many blocks add up.

    Convolutions keep PyTorch's initialisation, the mask embedding its zeros.
    """
    embedding = tower.get_parameter("class_embedding")
    std = len(embedding) ** -0.5
    nn.init.normal_(embedding, std=std)
    nn.init.normal_(tower.get_parameter("position_embedding"), std=std)
    for name, layer in tower.named_modules():
        if isinstance(layer, nn.Linear):
            depth = (2 * num_layers) ** -0.5 if name.endswith(TO_RESIDUAL) else 1.0
            nn.init.normal_(layer.weight, std=std * depth)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
