"""The objectives that make an encoder of a causal language model (LLM2Vec), and their batches.

`MaskedPrediction` teaches it to read both ways, `CaptionContrast` to give a caption one vector.

Shapes: B = captions of this rank, N = tokens of the longest, E = width of the language model,
V = its vocabulary, M = hidden tokens.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixclip.distributed import num_ranks, rank
from pixclip.text.adapt_job import Contrast, MaskedTokens
from pixclip.text.embeddings import caption_hash
from pixclip.text.encoder import mean_over
from pixclip.text.language_model import read_both_ways
from pixclip.text.tokens import Caption, CaptionTokenizer
from pixclip.training.contrastive import contrastive_loss

NOT_ASKED = -100  # label of a token that is not to be predicted
HIDDEN_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the masked tokens; the others stay (BERT)


class Pairs:
    """Short and long captions, row by row; a step's rows are a pure function of its number."""

    def __init__(self, path: Path) -> None:
        table: Any = pq.read_table(path, columns=["short_caption", "long_caption"])
        self._columns = (table["short_caption"], table["long_caption"])
        if not len(self):
            raise ValueError(f"{path} holds no pair of captions to adapt the text tower with")

    def __len__(self) -> int:
        return len(self._columns[0])

    def rows(self, step: int, batch_size: int, seed: Sequence[int]) -> list[tuple[str, str]]:
        """The pairs of a step: every pair once before any comes again."""
        places = range(step * batch_size, (step + 1) * batch_size)
        orders = {
            epoch: np.random.default_rng([*seed, epoch]).permutation(len(self))
            for epoch in {place // len(self) for place in places}
        }
        rows = [int(orders[place // len(self)][place % len(self)]) for place in places]
        return [(self._columns[0][row].as_py(), self._columns[1][row].as_py()) for row in rows]


@dataclass(frozen=True)
class Tokens:
    """A batch of captions padded to the longest; `is_caption` leaves markers out."""

    ids_BN: Tensor
    is_token_BN: Tensor
    is_caption_BN: Tensor

    def to(self, device: torch.device) -> "Tokens":
        """The batch on a device."""
        return Tokens(*(part.to(device) for part in vars(self).values()))


def pad(captions: Sequence[Caption]) -> Tokens:
    """Captions as one batch."""
    shape = (len(captions), max(len(caption.ids) for caption in captions))
    ids_BN = torch.zeros(shape, dtype=torch.long)
    is_token_BN, is_caption_BN = (torch.zeros(shape, dtype=torch.bool) for _ in range(2))
    for row, caption in enumerate(captions):
        ids_BN[row, : len(caption.ids)] = torch.tensor(caption.ids)
        is_token_BN[row, : len(caption.ids)] = True
        is_caption_BN[row, caption.start : caption.stop] = True
    return Tokens(ids_BN, is_token_BN, is_caption_BN)


@dataclass(frozen=True)
class HiddenTokens:
    """Captions with hidden tokens, and the labels of those; dropout draws by the seed."""

    tokens: Tokens
    labels_BN: Tensor
    seed: int

    @property
    def num_samples(self) -> int:
        """The number of captions."""
        return len(self.labels_BN)

    def to(self, device: torch.device) -> "HiddenTokens":
        """The batch on a device."""
        return HiddenTokens(self.tokens.to(device), self.labels_BN.to(device), self.seed)


class MaskedPrediction(nn.Module):
    """The loss of predicting hidden tokens, each from the state of the position before it."""

    def __init__(self, causal: Any) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, batch: HiddenTokens) -> dict[str, Tensor]:
        """The mean over this rank's hidden tokens."""
        torch.manual_seed(batch.seed)
        tokens, labels_BN = batch.tokens, batch.labels_BN
        hidden_BNE = read_both_ways(self.causal.base_model, tokens.ids_BN, tokens.is_token_BN)
        is_asked_BN = labels_BN[:, 1:] != NOT_ASKED
        before_ME = hidden_BNE[:, :-1][is_asked_BN]
        logits_MV = self.causal.get_output_embeddings()(before_ME).float()
        # With no hidden token at all (tiny batches) the loss is 0, not 0 / 0.
        total = F.cross_entropy(logits_MV, labels_BN[:, 1:][is_asked_BN], reduction="sum")
        return {"total": total / is_asked_BN.sum().clamp(min=1)}


def masked_batches(
    pairs: Pairs, tokenize: CaptionTokenizer, tokenizer: Any, config: MaskedTokens, seed: int
) -> Callable[[int], Iterator[tuple[int, HiddenTokens]]]:
    """This rank's batches from a step on: captions, short or long by chance (LLM2CLIP).

    Raises:
        ValueError: the tokenizer has no token to hide others behind.
    """
    mask_id = mask_id_of(tokenizer, config.hide_behind)

    def batch_of(step: int) -> HiddenTokens:
        step_seed = _step_seed(seed, 0, step)
        rows = _mine(pairs.rows(step, config.batch_size, [seed, 0]))
        generator = torch.Generator().manual_seed(step_seed)
        sides = torch.randint(2, (len(rows),), generator=generator).tolist()
        tokens = pad(tokenize([row[side] for row, side in zip(rows, sides, strict=True)]))
        hidden, labels_BN = mask_tokens(
            tokens, config.mask_share, mask_id, len(tokenizer), generator
        )
        return HiddenTokens(hidden, labels_BN, step_seed)

    def batches(start_step: int) -> Iterator[tuple[int, HiddenTokens]]:
        for step in itertools.count(start_step):
            yield step * config.batch_size // len(pairs), batch_of(step)

    return batches


def mask_tokens(
    tokens: Tokens, share: float, mask_id: int, vocabulary: int, generator: torch.Generator
) -> tuple[Tokens, Tensor]:
    """Hide a share of the captions' tokens; gives the batch and the labels [B, N].

    Of the chosen tokens 80 % become the mask token, 10 % a random one, 10 % stay. The very first
    token of a text is never chosen: no position is before it to predict it from.
    """
    draw_BN = torch.rand(tokens.ids_BN.shape, generator=generator)
    is_chosen_BN = (draw_BN < share) & tokens.is_caption_BN
    is_chosen_BN[:, 0] = False
    labels_BN = tokens.ids_BN.masked_fill(~is_chosen_BN, NOT_ASKED)
    fate_BN = torch.rand(tokens.ids_BN.shape, generator=generator)
    random_BN = torch.randint(vocabulary, tokens.ids_BN.shape, generator=generator)
    ids_BN = tokens.ids_BN.masked_fill(is_chosen_BN & (fate_BN < HIDDEN_SHARE), mask_id)
    is_random_BN = (fate_BN >= HIDDEN_SHARE) & (fate_BN < HIDDEN_SHARE + RANDOM_SHARE)
    ids_BN = torch.where(is_chosen_BN & is_random_BN, random_BN, ids_BN)
    return Tokens(ids_BN, tokens.is_token_BN, tokens.is_caption_BN), labels_BN


def mask_id_of(tokenizer: Any, text: str) -> int:
    """The id of the token that stands for a hidden one.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    found = tokenizer.convert_tokens_to_ids(text)
    if found is None or found == tokenizer.unk_token_id:
        raise ValueError(
            f"the tokenizer has no token '{text}' to hide others behind; "
            "set masked_tokens.hide_behind to one it has"
        )
    return int(found)


@dataclass(frozen=True)
class CaptionPairs:
    """Captions side by side; equal ids are equal left texts, and dropout draws by the seed."""

    left: Tokens
    right: Tokens
    ids_B: Tensor
    seed: int

    @property
    def num_samples(self) -> int:
        """The number of pairs."""
        return len(self.ids_B)

    def to(self, device: torch.device) -> "CaptionPairs":
        """The batch on a device."""
        return CaptionPairs(
            self.left.to(device), self.right.to(device), self.ids_B.to(device), self.seed
        )


class CaptionContrast(nn.Module):
    """Cross entropy of cosines of mean-pooled states over the batch of all ranks.

    Rows with equal left texts are no wrong answers to each other; right texts are not compared.
    """

    def __init__(self, causal: Any, scale: float) -> None:
        super().__init__()
        self.causal, self.scale = causal, scale

    def forward(self, batch: CaptionPairs) -> dict[str, Tensor]:
        """This rank's share of the loss; see `contrastive_loss`."""
        torch.manual_seed(batch.seed)
        left_BE, right_BE = self.pooled(batch.left), self.pooled(batch.right)
        scale = torch.tensor([self.scale], device=left_BE.device)
        return {"total": contrastive_loss(left_BE, right_BE, scale, ids_b=batch.ids_B)}

    def pooled(self, tokens: Tokens) -> Tensor:
        """The mean [B, E] of the states of the captions' own tokens."""
        hidden_BNE = read_both_ways(self.causal.base_model, tokens.ids_BN, tokens.is_token_BN)
        return mean_over(hidden_BNE, tokens.is_caption_BN)


def contrast_batches(
    pairs: Pairs, tokenize: CaptionTokenizer, config: Contrast, seed: int
) -> Callable[[int], Iterator[tuple[int, CaptionPairs]]]:
    """This rank's batches from a step on: short with long captions, or long with itself."""
    left_side = 0 if config.kind == "captions" else 1  # SimCSE: a long caption with itself

    def batch_of(step: int) -> CaptionPairs:
        rows = _mine(pairs.rows(step, config.batch_size, [seed, 1]))
        left, right = ([row[side] for row in rows] for side in (left_side, 1))
        ids_B = torch.tensor([_text_id(text) for text in left])
        return CaptionPairs(
            pad(tokenize(left)), pad(tokenize(right)), ids_B, _step_seed(seed, 1, step)
        )

    def batches(start_step: int) -> Iterator[tuple[int, CaptionPairs]]:
        for step in itertools.count(start_step):
            yield step * config.batch_size // len(pairs), batch_of(step)

    return batches


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


def _step_seed(seed: int, stage: int, step: int) -> int:
    """A seed of the step: a resumed run draws what an undisturbed one does."""
    sequence = np.random.SeedSequence([seed, stage, step, rank()])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _mine(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """This rank's contiguous part of a step's rows."""
    size = len(rows) // num_ranks()
    return rows[rank() * size : (rank() + 1) * size]


def _text_id(text: str) -> int:
    return int(caption_hash(text)[:15], 16)  # 60 bits fit a signed number
