"""Captions as padded tensors for training, and tokens hidden for masked prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixclip.text.tokens import Caption

# B = captions, N = tokens of the longest one
NOT_ASKED = -100  # label of a token that is not to be predicted
HIDDEN_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the masked tokens; the others stay (BERT)


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
