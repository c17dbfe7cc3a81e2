"""The residual adaptor between the language model's space and the space shared with images."""

import torch.nn.functional as F
from torch import Tensor, nn

from pixclip.config import AdaptorConfig

# B = texts, E = width of the language model, D = width of the shared embeddings


class ResidualBlock(nn.Module):
    """x + fc2(gelu(fc1(norm(x)))), the block of LLM2CLIP's adaptor."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, x_BE: Tensor) -> Tensor:
        hidden: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x_BE))))
        return x_BE + hidden


class TextAdaptor(nn.Module):
    """Pooled states of the language model [B, E] to text embeddings [B, D], not normalised.

    The input is L2-normalised first, so that the scale of the language model does not matter
    (LLM2CLIP; PixCLIP, Table 9: four layers).
    """

    def __init__(self, embed_dim: int, output_dim: int, config: AdaptorConfig) -> None:
        super().__init__()
        hidden_width = embed_dim * config.expansion
        self.blocks = nn.ModuleList(
            ResidualBlock(embed_dim, hidden_width) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.projection = nn.Linear(embed_dim, output_dim)

    def forward(self, pooled_BE: Tensor) -> Tensor:
        x_BE = F.normalize(pooled_BE.to(self.projection.weight.dtype), dim=-1)
        for block in self.blocks:
            x_BE = block(x_BE)
        embedding_BD: Tensor = self.projection(self.norm(x_BE))
        return embedding_BD
