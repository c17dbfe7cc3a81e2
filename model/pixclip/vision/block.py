"""A transformer block, the same for both kinds of tower but for its attention and its MLP.

Legend: B samples, N tokens, Q queries (the first tokens), W width, P patches, h heads.
"""

from torch import Tensor, nn

from pixclip.vision.attention import Attention


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
