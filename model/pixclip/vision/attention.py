"""Multi-head attention for both kinds of tower: fused kernel, or weights to look at.

Legend: B samples, N tokens (first [CLS], then patches), Q queries (the first tokens), W width,
h heads, d = W / h.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(tokens_BNW: Tensor, num_heads: int) -> Tensor:
    """[B, N, W] to [B, h, N, d]."""
    return tokens_BNW.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attend(queries_BhQd: Tensor, keys_BhNd: Tensor, values_BhNd: Tensor) -> Tensor:
    """Scaled dot-product attention with the heads joined again: [B, Q, W]."""
    joined = F.scaled_dot_product_attention(queries_BhQd, keys_BhNd, values_BhNd)
    return joined.transpose(1, 2).flatten(2)


def attention_weights(queries_BhQd: Tensor, keys_BhNd: Tensor) -> Tensor:
    """What `attend` weights the values with: [B, h, Q, N], rows sum to one."""
    scale = queries_BhQd.shape[-1] ** -0.5
    return torch.softmax(scale * queries_BhQd @ keys_BhNd.transpose(-2, -1), dim=-1)


class PackedAttention(nn.Module):
    """CLIP's attention: queries, keys and values of one projection."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def queries_keys_values(
        self, tokens_BNW: Tensor, num_queries: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Heads of the first `num_queries` queries (default all) and of all keys and values."""
        width = tokens_BNW.shape[-1]
        if num_queries is None:
            queries, keys, values = self.qkv(tokens_BNW).chunk(3, dim=-1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            queries = F.linear(tokens_BNW[:, :num_queries], weight[:width], bias[:width])
            keys, values = F.linear(tokens_BNW, weight[width:], bias[width:]).chunk(2, dim=-1)
        heads = self.num_heads
        return split_heads(queries, heads), split_heads(keys, heads), split_heads(values, heads)

    def forward(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, Q, W]: the outputs of the first `num_queries` tokens (default: all)."""
        output: Tensor = self.out(attend(*self.queries_keys_values(tokens_BNW, num_queries)))
        return output
