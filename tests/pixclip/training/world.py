"""A small training job: drawn scenes, vectors for their captions, a random model."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_contracts.text_embeddings import SCHEMA
from pixclip.checkpoint import save_checkpoint
from pixclip.data.config import DataConfig
from pixclip.data.shards import iterate_images
from pixclip.text.embeddings import caption_hash, write_part
from pixclip.training.config import Stage
from pixclip.training.job import Job
from tests.packed import make_longgrit
from tests.pixclip.data.world import some_scenes, write_longgrit
from tests.pixclip.training.small import TEXT_DIM, small_model, stage

NUM_STEPS = 60
DATA = DataConfig(batch_size=6, regions_per_image=2, shuffle_shards=2)


def write_world(folder: Path) -> Path:
    """`dataset`, `text_embeddings` and `parent` in a folder, which is given back."""
    scenes = some_scenes()
    write_longgrit(folder / "dataset", scenes)
    names = ("long_caption", "short_caption", "image_caption")
    write_embeddings(
        folder / "text_embeddings",
        sorted({str(row[name]) for scene in scenes for row in scene.rows for name in names}),
    )
    save_checkpoint(folder / "parent", small_model())
    return folder


def write_packed_world(folder: Path) -> Path:
    """As `write_world`, with a data set of the step `pack`, which keeps its contract."""
    samples = list(iterate_images(make_longgrit(folder / "dataset"), "train"))
    captions = {sample.caption for sample in samples}
    for region in (region for sample in samples for region in sample.regions):
        captions |= {region.long_caption, region.short_caption}
    write_embeddings(folder / "text_embeddings", sorted(captions))
    save_checkpoint(folder / "parent", small_model())
    return folder


def write_embeddings(folder: Path, captions: list[str], width: int = TEXT_DIM) -> None:
    """Random vectors for captions, in the form of `embed_text`."""
    folder.mkdir(parents=True)
    captions = sorted(captions, key=caption_hash)
    seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in captions]
    vectors = np.stack([np.random.default_rng(seed).normal(size=width) for seed in seeds])
    write_part(folder, 0, torch.from_numpy(vectors))
    rows = [
        {"caption_hash": caption_hash(text), "part": 0, "row": row, "num_tokens": 2}
        | {"is_truncated": False, "norm": 1.0}
        for row, text in enumerate(captions)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "index.parquet")


def make_stage(num_steps: int = NUM_STEPS) -> Stage:
    """All branches and parts, a few epochs."""
    return stage(data=DATA, num_steps=num_steps)


def make_job(world: Path, output: Path, **settings) -> Job:
    """A job on the world that writes below `output`."""
    (output / "work").mkdir(parents=True, exist_ok=True)
    return Job(
        **{
            "stage": make_stage(),
            "parent": str(world / "parent"),
            "dataset": str(world / "dataset"),
            "text_embeddings": str(world / "text_embeddings"),
            "work": str(output / "work"),
            "checkpoint": str(output / "checkpoint"),
            "save_every_steps": 4,
            **settings,
        }
    )
