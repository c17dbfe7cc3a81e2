"""Multi-head attention: what both kinds of tower share, and CLIP's own projections.

Legend: B samples, N tokens (first [CLS], then patches), Q queries (the first tokens), W width,
h heads, d = W / h.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module, ABC):
    """Scaled dot-product attention; subclasses say what queries, keys and values are."""

    def __init__(self, width: int, num_heads: int, norm: nn.Module) -> None:
        super().__init__()
        self.num_heads = num_heads
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
        joined_BhQd = F.scaled_dot_product_attention(queries, keys, values)
        output: Tensor = self.out(self.norm(joined_BhQd.transpose(1, 2).flatten(2)))
        return output

    def weights(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, h, Q, N]: what `forward` weights the values with; rows sum to one."""
        queries, keys, _ = self.queries_keys_values(tokens_BNW, num_queries)
        scale = queries.shape[-1] ** -0.5
        return torch.softmax(scale * queries @ keys.transpose(-2, -1), dim=-1)

    def split_heads(self, tokens_BNW: Tensor) -> Tensor:
        """[B, N, W] to [B, h, N, d]."""
        heads, head_width = self.num_heads, tokens_BNW.shape[-1] // self.num_heads
        return tokens_BNW.reshape(*tokens_BNW.shape[:-1], heads, head_width).transpose(1, 2)


class PackedAttention(Attention):
    """CLIP's attention: queries, keys and values of one projection."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads, norm=nn.Identity())
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
