"""How well long captions are found by the short captions of the same regions."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from pixclip.text.encoder import TextEncoder

# Q = distinct short captions, G = distinct long captions
RANKS = (1, 5, 10)


def short_to_long_recall(
    encoder: TextEncoder, short_captions: Sequence[str], long_captions: Sequence[str]
) -> dict[str, float]:
    """Share of distinct short captions that find a long caption of theirs among the first k.

    A short caption that several regions share is right with any of their long captions. Of equal
    similarities the wrong one comes first: a tower that says the same of all finds nothing.

    Returns:
        `r1`, `r5`, `r10` in [0, 1]. None of them if there is no pair.
    """
    if not len(short_captions):
        return {}
    shorts, longs = list(dict.fromkeys(short_captions)), list(dict.fromkeys(long_captions))
    query_of = {text: row for row, text in enumerate(shorts)}
    answer_of = {text: row for row, text in enumerate(longs)}
    is_right_QG = torch.zeros(len(shorts), len(longs), dtype=torch.bool)
    for short, long in zip(short_captions, long_captions, strict=True):
        is_right_QG[query_of[short], answer_of[long]] = True
    queries_QE = F.normalize(encoder.encode(shorts), dim=-1)
    answers_GE = F.normalize(encoder.encode(longs), dim=-1)
    similarity_QG = queries_QE @ answers_GE.T
    best_right_Q1 = similarity_QG.masked_fill(~is_right_QG, -torch.inf).amax(1, keepdim=True)
    rank_Q = 1 + ((similarity_QG >= best_right_Q1) & ~is_right_QG).sum(dim=1)
    return {f"r{k}": (rank_Q <= k).double().mean().item() for k in RANKS}
