"""Open what an evaluation needs, and refuse what does not belong together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.core.errors import InputError
from pixclip.checkpoint import load
from pixclip.checksums import CheckpointError, weights_digest
from pixclip.data.errors import DataError
from pixclip.data.layout import MANIFEST_NAME
from pixclip.data.shards import open_manifest
from pixclip.data.store import Store
from pixclip.evaluation.protocol import EvaluationError
from pixclip.model import PixClip
from pixclip.text.embeddings import (
    MissingCaption,
    OtherTextTower,
    TextEmbeddings,
    caption_hash,
    require_same_tower,
)

TEXTS_PER_PASS = 1024


@dataclass(frozen=True)
class Sources:
    """A checkpoint, the one its training began with, and the cached texts."""

    model: PixClip
    parent: PixClip
    embeddings: TextEmbeddings
    digest: str  # SHA-256 of the checkpoint's weights


@contextmanager
def input_errors() -> Iterator[None]:
    """What the library says of files that cannot be used, as errors of a step's input.

    Raises:
        InputError: the same message.
    """
    try:
        yield
    except (CheckpointError, DataError, EvaluationError, MissingCaption, OtherTextTower) as error:
        raise InputError(str(error)) from error


def count_regions(dataset: Path, split: str) -> int:
    """The number of regions of a split.

    Raises:
        InputError: there are none.
    """
    manifest = dataset / MANIFEST_NAME
    with input_errors(), open_manifest(Store(dataset)) as file:
        number: int = pq.read_table(
            file, columns=["split"], filters=[("split", "=", split)]
        ).num_rows
    if not number:
        raise InputError(
            f"{manifest} has no region of split '{split}', so there is nothing to ask; "
            "pack the data set with a benchmark (pack.benchmark_regions)"
        )
    return number


def open_sources(text_embeddings: Path, parent: Path, checkpoint: Path, device: str) -> Sources:
    """Load the models on a device and open the cached texts.

    Raises:
        CheckpointError, InputError: a folder cannot be used.
        OtherTextTower: the texts were embedded by another text tower than the models'.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model, began = load(checkpoint, device=device), load(parent, device=device)
    try:
        embed_dim = model.config.require_language_model().embed_dim
        embeddings = TextEmbeddings.open(text_embeddings, embed_dim)
    except ValueError as error:
        raise InputError(str(error)) from error
    for folder in (checkpoint, parent):
        require_same_tower(text_embeddings, folder)
    return Sources(model, began, embeddings, weights_digest(checkpoint))


@torch.inference_mode()
def embed_texts(sources: Sources, texts: Sequence[str]) -> Tensor:
    """The normalised embeddings [T, D] of texts, from the cache through the model's adaptor.

    Raises:
        MissingCaption: a text is not in the cache.
    """
    device = sources.model.logit_scale.device
    parts = []
    for start in range(0, len(texts), TEXTS_PER_PASS):
        hashes = [caption_hash(text) for text in texts[start : start + TEXTS_PER_PASS]]
        pooled_TE = sources.embeddings.lookup(hashes).to(device)
        parts.append(sources.model.embed_pooled(pooled_TE).float())
    return torch.cat(parts)
