"""A transformer block, the same for both kinds of tower but for its attention and its MLP.

Legend: B samples, N tokens, Q queries (the first tokens), W width, P patches, h heads.
"""

from typing import Protocol

from torch import Tensor, nn

from pixclip.vision.attention import attention_weights


class Attention(Protocol):
    """What a block asks of its attention."""

    def queries_keys_values(
        self, tokens_BNW: Tensor, num_queries: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Heads of the first `num_queries` queries and of all keys and values."""

    def __call__(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, Q, W]: the outputs of the first `num_queries` tokens."""


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP."""

    attention: Attention

    def __init__(self, width: int, attention: nn.Module, mlp: nn.Module, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp

    def forward(self, tokens_BNW: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, Q, W]: the first `num_queries` tokens (default: all), having looked at all.

        With fewer queries all but the keys and values costs less; the result is the same.
        """
        attended_BQW = self.attention(self.norm1(tokens_BNW), num_queries)
        tokens_BQW = tokens_BNW[:, :num_queries] + attended_BQW
        output: Tensor = tokens_BQW + self.mlp(self.norm2(tokens_BQW))
        return output

    def cls_attention(self, tokens_BNW: Tensor) -> Tensor:
        """[B, h, P]: how much [CLS] looks at each patch; what is left to one is for itself."""
        queries, keys, _ = self.attention.queries_keys_values(self.norm1(tokens_BNW), 1)
        return attention_weights(queries, keys)[:, :, 0, 1:]
