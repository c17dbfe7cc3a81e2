"""A cache of text embeddings with vectors of our own making."""

from collections.abc import Iterable
from pathlib import Path

import torch

from components.core.tables import write_rows
from data_contracts.text_embeddings import SCHEMA
from pixclip.data.samples import Sample
from pixclip.text.embeddings import INDEX_NAME, caption_hash, write_part
from tests.pixclip.evaluation.models import TEXT_WIDTH


def captions(samples: Iterable[Sample]) -> set[str]:
    """Every text of the samples."""
    found = {sample.caption for sample in samples}
    return found | {
        text
        for sample in samples
        for region in sample.regions
        for text in (region.long_caption, region.short_caption)
    }


def write_cache(folder: Path, texts: Iterable[str], width: int = TEXT_WIDTH) -> None:
    """Write a random vector for every text."""
    folder.mkdir(parents=True)
    hashes = sorted({caption_hash(text) for text in texts})
    random = torch.Generator().manual_seed(0)
    write_part(folder, 0, torch.randn(len(hashes), width, generator=random))
    rows = [
        {
            "caption_hash": one,
            "part": 0,
            "row": row,
            "num_tokens": 5,
            "is_truncated": False,
            "norm": 1,
        }
        for row, one in enumerate(hashes)
    ]
    write_rows(folder / INDEX_NAME, rows, SCHEMA)
