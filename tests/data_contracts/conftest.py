"""Good rows of every artifact, and a check that is made once for many tests."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.tables import Row
from data_contracts.engine.contract import load_contract
from pixclip.masks import box_mask, encode_mask
from tests.rows import record_row

WIDTH, HEIGHT = 120, 100
BOX = (10.0, 10.0, 50.0, 60.0)
MASK = encode_mask(box_mask(BOX, HEIGHT, WIDTH))
LONG = (
    "A small red cat with white paws sits on the left of a green mat in front of a wooden wall, "
    "and it looks at the camera while a bird flies past."
)


def sha256_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def phash_of(number: int) -> str:
    """Hashes of which no two are near each other."""
    return sha256_of(number)[:16]


def masked_record_row(number: int) -> Row:
    return record_row(number, mask_counts=MASK.counts, mask_size=[HEIGHT, WIDTH])


def candidate_row(number: int) -> Row:
    row = masked_record_row(number)
    del row["box_norm"], row["clip_similarity"]
    return row | {
        "image_sha256": sha256_of(number),
        "image_shard": "00000.tar",
        "image_width_px": WIDTH,
        "image_height_px": HEIGHT,
        "image_phash": phash_of(number),
        "box_xyxy": list(BOX),
    }


def region_row(number: int) -> Row:
    return candidate_row(number) | {
        "mask_area_px": 40 * 50,
        "mask_source": "grabcut",
        "mask_score": None,
    }


def caption_row(number: int) -> Row:
    return region_row(number) | {
        "object_caption": "a small red cat",
        "verdict": "accepted",
        "verdict_reason": "consistent",
        "context_caption": "on the left of a mat",
        "long_caption": LONG,
        "short_caption": "a red cat on a mat",
        "provenance": '{"object": {"describer": "embedded"}}',
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_usd": 0.001,
    }


def contrasted_row(number: int) -> Row:
    wrong = ["a blue cat on a mat", "a red dog on a mat"]
    return caption_row(number) | {"hard_negatives": wrong[: number % 3]}


def image_row(number: int) -> Row:
    return {
        "url": f"https://example.org/{number}.jpg",
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": sha256_of(number),
        "shard": "00000.tar",
        "num_bytes": 1000,
        "width_px": WIDTH,
        "height_px": HEIGHT,
        "phash": phash_of(number),
        "stored_width": WIDTH,
        "stored_height": HEIGHT,
        "orientation": 1,
    }


def quarantine_row(number: int) -> Row:
    return {
        "region_id": f"{number}-00",
        "record_id": str(number),
        "step": "ingest",
        "reason": "http_404",
        "detail": "",
        "url": f"https://example.org/{number}.jpg",
        "phrase": "a cat",
        "image_sha256": None,
        "row": '{"region_id": "0-00"}',
    }


def longgrit_row(number: int) -> Row:
    split = ("train", "val", "benchmark")[number % 3]
    caption = caption_row(number)
    shared = ("region_id", "subset", "phrase", "box_xyxy", "mask_area_px", "mask_source")
    texts = ("object_caption", "context_caption", "long_caption", "short_caption")
    image = ("image_width_px", "image_height_px", "image_phash")
    return {name: caption[name] for name in (*shared, *texts, *image)} | {
        "image_id": sha256_of(number),
        "split": split,
        "shard": f"{split}/00000.tar",
        "key": sha256_of(number),
        "long_caption_words": len(LONG.split()),
        "short_caption_words": 6,
    }


def grit_row(number: int) -> Row:
    region = [0.0, 5.0, 0.1, 0.1, 0.5, 0.6, 0.9]
    return {
        "key": f"{number:09d}",
        "clip_similarity_vitb32": 0.3,
        "clip_similarity_vitl14": 0.3,
        "id": number,
        "url": f"https://example.org/{number}.jpg",
        "caption": "a cat on a mat",
        "width": WIDTH,
        "height": HEIGHT,
        "noun_chunks": [region],
        "ref_exps": [region, region],
    }


MAKERS: dict[str, Callable[[int], Row]] = {
    "grit": grit_row,
    "records": masked_record_row,
    "images": image_row,
    "candidates": candidate_row,
    "regions": region_row,
    "captions": caption_row,
    "contrasted": contrasted_row,
    "quarantine": quarantine_row,
    "longgrit": longgrit_row,
}


@pytest.fixture(scope="session")
def good_row() -> Callable[[str, int], Row]:
    """A row that meets its contract; rows of different numbers do not clash."""
    return lambda artifact, number: MAKERS[artifact](number)


@pytest.fixture(scope="session")
def write_table() -> Callable[[str, Path, list[Row]], Path]:
    """Write rows with the artifact's columns, also such that miss a required value."""

    def write(artifact: str, path: Path, rows: list[Row]) -> Path:
        contract = load_contract(artifact)
        assert contract
        lenient = pa.schema([field.with_nullable(True) for field in contract.schema])
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=lenient), path)
        return path

    return write


@pytest.fixture(scope="session")
def other_mask() -> str:
    """Counts of a mask of another image size."""
    return encode_mask(np.ones((HEIGHT, WIDTH + 1), dtype=bool)).counts
