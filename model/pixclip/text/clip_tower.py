"""CLIP's own text transformer (https://arxiv.org/abs/2103.00020): token ids become embeddings.

Legend: N texts, L tokens of a text, C context length, W width of the tower, D embedding width.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixclip.config import ClipTextConfig
from pixclip.vision.blocks import (
    TO_RESIDUAL,
    Block,
    Mlp,
    PackedAttention,
    activation_of,
)

# Of a stretched table: its first rows, which short texts have trained well, stay as they are.
KEPT_POSITIONS, STRETCH = 20, 4


class ClipTextTower(nn.Module):
    """A causal transformer whose state at a text's end marker is projected.

    The position table is two tensors where its first rows are fixed: those are a buffer, which no
    optimiser sees, so that neither gradients nor weight decay can move them.
    """

    fixed_positions: Tensor  # [num_fixed_positions, W], there only if any are fixed

    def __init__(self, config: ClipTextConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width, eps = config.width, config.layer_norm_eps
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        num_fixed = config.num_fixed_positions
        if num_fixed:
            self.register_buffer("fixed_positions", torch.empty(num_fixed, width))
        self.position_embedding = nn.Parameter(
            torch.empty(config.context_length - num_fixed, width)
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                PackedAttention(width, config.num_heads, is_causal=True),
                Mlp(width, config.mlp_width, activation_of(config.activation)),
                eps,
            )
            for _ in range(config.num_layers)
        )
        self.norm_post = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, embed_dim, bias=False)
        self._initialise()

    def forward(self, token_ids_NL: Tensor) -> Tensor:
        """Embeddings [N, D], not normalised.

        `token_ids_NL` are texts with their markers, filled up with anything to a common length of
        at most the context: a causal tower does not look behind the end marker, so neither the
        padding nor its length changes a result.

        Raises:
            ValueError: the texts are longer than the context.
            IndexError: a text has no end marker (on a GPU an assertion of the device).
        """
        length = token_ids_NL.shape[1]
        if length > self.config.context_length:
            raise ValueError(
                f"texts of {length} tokens do not fit into text.context_length="
                f"{self.config.context_length}; cut them as `ClipTokenizer` does"
            )
        tokens_NLW = self.token_embedding(token_ids_NL) + self.positions()[:length]
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens_NLW = checkpoint(block, tokens_NLW, use_reentrant=False)
            else:
                tokens_NLW = block(tokens_NLW)
        is_end_NL = token_ids_NL == self.config.end_token_id
        # The first end marker; one behind the last token where there is none.
        place_N = torch.where(is_end_NL.any(dim=1), is_end_NL.int().argmax(dim=1), length)
        rows_N = torch.arange(len(place_N), device=place_N.device)
        embeddings_ND: Tensor = self.projection(self.norm_post(tokens_NLW[rows_N, place_N]))
        return embeddings_ND

    def positions(self) -> Tensor:
        """The whole position table [C, W]."""
        if not self.config.num_fixed_positions:
            return self.position_embedding
        return torch.cat([self.fixed_positions, self.position_embedding])

    def _initialise(self) -> None:
        """Fill the tower as OpenAI's CLIP does."""
        width, depth = self.config.width, (2 * self.config.num_layers) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.01)
        if self.config.num_fixed_positions:
            nn.init.normal_(self.fixed_positions, std=0.01)
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                std = width**-0.5
                if name.endswith(TO_RESIDUAL):
                    std *= depth
                elif name.endswith("mlp.fc1"):
                    std = (2 * width) ** -0.5
                nn.init.normal_(layer.weight, std=std)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def stretched_length(num_rows: int) -> int:
    """The rows of a position table after `stretch_positions`: 77 become 248."""
    return STRETCH * num_rows - (STRETCH - 1) * KEPT_POSITIONS


def stretch_positions(table_CW: Tensor) -> Tensor:
    """A position table for longer texts, as Long-CLIP (arXiv:2403.15378) and FG-CLIP make it.

    The first 20 rows stay. Each further row becomes four, on the way to the next one; the last
    row's four go on in the direction in which the table arrived there.

    Raises:
        ValueError: the table has fewer than 22 rows.
    """
    if len(table_CW) < KEPT_POSITIONS + 2:
        raise ValueError(
            f"a position table of {len(table_CW)} rows cannot be stretched: the first "
            f"{KEPT_POSITIONS} are kept, and at least two must follow"
        )
    kept_W, rest_RW = table_CW[:KEPT_POSITIONS], table_CW[KEPT_POSITIONS:]
    steps_RW = rest_RW.diff(dim=0)
    steps_RW = torch.cat([steps_RW, steps_RW[-1:]])
    shares_1S1 = torch.arange(STRETCH, dtype=table_CW.dtype)[None, :, None] / STRETCH
    between_RSW = rest_RW[:, None] + shares_1S1.to(table_CW.device) * steps_RW[:, None]
    return torch.cat([kept_W, between_RSW.flatten(0, 1)])
