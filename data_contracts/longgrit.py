"""`longgrit`: the data set's manifest, one row a region; images and captions are in the shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.captions import CAPTION_RULES, caption_columns
from data_contracts.engine.columns import (
    BOX_TOLERANCE,
    MASK_SOURCE,
    PHASH,
    SHA256,
    as_bools,
    box_columns,
    fixed_lists,
    num_words,
    numbers,
)
from data_contracts.engine.contract import Join, hash_keys
from data_contracts.engine.rules import between, holds, is_in, matches
from data_contracts.engine.tables import AddColumns, Columns, read_chunks
from pixclip.data.layout import SPLITS
from pixclip.near_duplicates import has_near_duplicate_elsewhere

KEY = "region_id"
SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),  # sha256 of the image
        pa.field("split", pa.string(), nullable=False),  # "train", "val" or "benchmark"
        pa.field("subset", pa.string(), nullable=False),  # e.g. "held_out_objects", or ""
        pa.field("shard", pa.string(), nullable=False),  # tar beside the manifest: train/00000.tar
        pa.field("key", pa.string(), nullable=False),  # the sample's name in that tar
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("box_xyxy", pa.list_(pa.float64()), nullable=False),  # pixels
        pa.field("mask_area_px", pa.int64(), nullable=False),
        pa.field("image_width_px", pa.int32(), nullable=False),
        pa.field("image_height_px", pa.int32(), nullable=False),
        pa.field("image_phash", pa.string(), nullable=False),  # 64 bits as 16 hex digits
        pa.field("mask_source", pa.string(), nullable=False),
        pa.field("object_caption", pa.string(), nullable=False),
        pa.field("context_caption", pa.string(), nullable=False),
        pa.field("long_caption", pa.string(), nullable=False),
        pa.field("short_caption", pa.string(), nullable=False),
        pa.field("long_caption_words", pa.int32(), nullable=False),
        pa.field("short_caption_words", pa.int32(), nullable=False),
    ]
)

BUDGET = 0.0  # nothing can be taken out of a packed data set
JOINS = (
    Join("region_among_captions", "region_id", "captions", "region_id"),
    Join("image_in_manifest", "image_id", "images", "sha256", where=("status", "ok")),
)
# As `pack` and `deduplicate` see look-alikes at most; a smaller distance there can break this.
NEAR_DUPLICATE_BITS = 4
RULES = {
    "image_id_well_formed": matches("image_id", SHA256),
    "image_phash_well_formed": matches("image_phash", PHASH),
    "split_known": is_in("split", *SPLITS),
    "image_in_one_split": holds("image_is_in_one_split"),
    "image_in_one_sample": holds("image_is_in_one_sample"),
    "no_near_duplicate_in_other_split": holds("has_look_alike_in_other_split", is_true=False),
    "shard_well_formed": matches("shard", r"^[a-z]+/[\w-]+\.tar$"),
    "shard_of_split": holds("shard_is_of_split"),
    "key_well_formed": matches("key", r"^[\w-]+$"),
    "box_inside_image": between("box_outside", highest=BOX_TOLERANCE),
    "box_not_empty": between("box_shorter_side", above=0),
    "mask_not_empty": between("mask_area_px", 1),
    "mask_inside_image": between("mask_share_of_image", highest=1),
    "mask_source_known": matches("mask_source", MASK_SOURCE),
    "words_counted": holds("words_are_counted"),
    **CAPTION_RULES,
}


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: box, captions, and whether columns agree with each other."""
    width, height = numbers(chunk, "image_width_px"), numbers(chunk, "image_height_px")
    folder = pc.replace_substring_regex(chunk["shard"], r"/.*$", "")
    counted = [
        numbers(chunk, f"{name}_words") == num_words(chunk[name])
        for name in ("long_caption", "short_caption")
    ]
    return {
        **box_columns(fixed_lists(chunk["box_xyxy"], 4), width, height),
        **caption_columns(chunk),
        "mask_share_of_image": numbers(chunk, "mask_area_px") / np.maximum(width * height, 1),
        "shard_is_of_split": as_bools(pc.equal(folder, chunk["split"])),
        "words_are_counted": np.logical_and.reduce(counted),
    }


def survey(tables: Sequence[Path]) -> AddColumns:
    """Look at every image once: its split, its sample and what looks like it in other splits."""
    images, splits, samples, phashes = _all_images(tables)
    distinct, first, place = np.unique(images, return_index=True, return_inverse=True)
    in_one_split, in_one_sample = (_is_constant(column, place) for column in (splits, samples))
    has_look_alike = has_near_duplicate_elsewhere(
        phashes[first], splits[first], NEAR_DUPLICATE_BITS
    )

    def add(chunk: pa.Table) -> Columns:
        places = np.searchsorted(distinct, hash_keys(chunk, "image_id"))
        return {
            "image_is_in_one_split": in_one_split[places],
            "image_is_in_one_sample": in_one_sample[places],
            "has_look_alike_in_other_split": has_look_alike[places],
        }

    return add


def _all_images(tables: Sequence[Path]) -> tuple[Any, Any, Any, Any]:
    columns: list[tuple[Any, ...]] = []
    for chunk in read_chunks(tables, ["image_id", "split", "shard", "key", "image_phash"]):
        splits = pc.fill_null(pc.index_in(chunk["split"], pa.array(SPLITS)), -1)
        samples = hash_keys(chunk, "shard") * np.uint64(3) + hash_keys(chunk, "key")
        bits = [_phash_bits(text) for text in chunk["image_phash"].to_pylist()]
        columns.append(
            (
                hash_keys(chunk, "image_id"),
                splits.to_numpy().astype(np.int64),
                samples,
                np.array(bits, dtype=np.uint64),
            )
        )
    images, splits, samples, phashes = (
        np.concatenate(parts) for parts in zip(*columns, strict=True)
    )
    return images, splits, samples, phashes


def _phash_bits(text: str | None) -> int:
    try:
        return int(text or "", 16) & (2**64 - 1)
    except ValueError:
        return 0  # another rule reports it


def _is_constant(values: Any, place: Any) -> Any:
    """Whether all values at the same place are equal, by place."""
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    smallest = np.minimum.reduceat(values[order], starts)
    return smallest == np.maximum.reduceat(values[order], starts)
