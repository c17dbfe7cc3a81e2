"""The two stages of an adaptation: what a step computes of its captions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixclip.distributed import num_ranks, rank
from pixclip.losses import contrastive_loss
from pixclip.text.adapt.batches import NOT_ASKED, Tokens, mask_id_of, mask_tokens, pad
from pixclip.text.adapt.job import AdaptJob, Contrast, MaskedTokens
from pixclip.text.adapt.pairs import Pairs
from pixclip.text.embeddings import caption_hash
from pixclip.text.encoder import mean_over
from pixclip.text.language_model import read_both_ways
from pixclip.text.tokens import CaptionTokenizer

# B = captions of this rank, N = tokens, E = width of the language model, M = hidden tokens
LossOf = Callable[[int], Tensor]  # step -> this rank's loss


class MaskedPrediction(nn.Module):
    """The loss of predicting hidden tokens, each from the state of the position before it."""

    def __init__(self, causal: Any) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, tokens: Tokens, labels_BN: Tensor) -> Tensor:
        hidden_BNE = read_both_ways(self.causal.base_model, tokens.ids_BN, tokens.is_token_BN)
        is_asked_BN = labels_BN[:, 1:] != NOT_ASKED
        before_ME = hidden_BNE[:, :-1][is_asked_BN]
        logits_MV = self.causal.get_output_embeddings()(before_ME).float()
        # With no hidden token at all (tiny batches) the loss is 0, not 0 / 0.
        total = F.cross_entropy(logits_MV, labels_BN[:, 1:][is_asked_BN], reduction="sum")
        return total / is_asked_BN.sum().clamp(min=1)


class PooledPairs(nn.Module):
    """The mean-pooled states [B, E] of two batches of captions."""

    def __init__(self, causal: Any) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, left: Tokens, right: Tokens) -> tuple[Tensor, Tensor]:
        return self._pooled(left), self._pooled(right)

    def _pooled(self, tokens: Tokens) -> Tensor:
        hidden_BNE = read_both_ways(self.causal.base_model, tokens.ids_BN, tokens.is_token_BN)
        return mean_over(hidden_BNE, tokens.is_caption_BN)


def masked_prediction_loss(
    engine: Any, pairs: Pairs, tokenize: CaptionTokenizer, tokenizer: Any, job: AdaptJob
) -> LossOf:
    """Masked prediction of captions, short or long by chance (LLM2CLIP)."""
    config: MaskedTokens = job.masked_tokens
    mask_id = mask_id_of(tokenizer, config.hide_behind)

    def loss_of(step: int) -> Tensor:
        seed = _seed_step(job.seed, 0, step)
        rows = _mine(pairs.rows(step, config.batch_size, [job.seed, 0]))
        generator = torch.Generator().manual_seed(seed)
        sides = torch.randint(2, (len(rows),), generator=generator).tolist()
        tokens = pad(tokenize([row[side] for row, side in zip(rows, sides, strict=True)]))
        hidden, labels_BN = mask_tokens(
            tokens, config.mask_share, mask_id, len(tokenizer), generator
        )
        loss: Tensor = engine(hidden.to(engine.device), labels_BN.to(engine.device))
        return loss

    return loss_of


def contrast_loss(engine: Any, pairs: Pairs, tokenize: CaptionTokenizer, job: AdaptJob) -> LossOf:
    """Cross entropy of cosines over the batch of all ranks.

    Rows with equal left texts are no wrong answers to each other; right texts are not compared.
    """
    config: Contrast = job.contrast
    left_side = 0 if config.kind == "captions" else 1  # SimCSE: a long caption with itself
    scale = torch.tensor([config.scale], device=engine.device)

    def loss_of(step: int) -> Tensor:
        _seed_step(job.seed, 1, step)
        rows = _mine(pairs.rows(step, config.batch_size, [job.seed, 1]))
        left, right = ([row[side] for row in rows] for side in (left_side, 1))
        tokens = (pad(tokenize(texts)).to(engine.device) for texts in (left, right))
        left_BE, right_BE = engine(*tokens)
        ids_B = torch.tensor([_text_id(text) for text in left], device=engine.device)
        return contrastive_loss(left_BE, right_BE, scale, ids_b=ids_B)

    return loss_of


def set_attention_dropout(model: nn.Module, share: float) -> None:
    """Drop attention weights while training; models of transformers keep the share themselves.

    Raises:
        ValueError: the model has no such share to set.
    """
    modules = [module for module in model.modules() if hasattr(module, "attention_dropout")]
    if share and not modules:
        raise ValueError(
            f"{type(model).__name__} has no attention dropout to set; "
            "leave contrast.attention_dropout at 0 and use lora.dropout"
        )
    for module in modules:
        module.attention_dropout = share  # type: ignore[assignment]


def _seed_step(seed: int, stage: int, step: int) -> int:
    """Seed dropout by the step: a resumed run draws what an undisturbed one does."""
    sequence = np.random.SeedSequence([seed, stage, step, rank()])
    mixed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(mixed)
    return mixed


def _mine(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """This rank's contiguous part of a step's rows."""
    size = len(rows) // num_ranks()
    return rows[rank() * size : (rank() + 1) * size]


def _text_id(text: str) -> int:
    return int(caption_hash(text)[:15], 16)  # 60 bits fit a signed number
