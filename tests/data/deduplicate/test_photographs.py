"""From photographs that EXIF turns to candidates: the box shows what it showed in the source."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from components.core.shards import read_image_bytes
from components.core.tables import read_rows, write_rows
from components.data.deduplicate.step import DeduplicateSettings, deduplicate
from components.data.ingest.settings import IngestSettings
from components.data.ingest.step import ingest_images
from data_contracts.records import SCHEMA
from pixclip.images import UPRIGHT
from pixclip.masks import Rle, decode_mask, encode_mask
from tests.rows import record_row

WIDTH, HEIGHT = 96, 72
BOX = (12, 40, 40, 64)  # of the red thing, in stored pixels


def photograph(orientation, seed):
    """A picture as stored, with a red rectangle, and its mask."""
    ground = np.random.default_rng(seed).integers(60, 120, (6, 8), dtype=np.uint8)
    image = Image.fromarray(ground).resize((WIDTH, HEIGHT)).convert("RGB")
    stencil = Image.new("L", image.size)
    for drawn, colour in ((image, (255, 0, 0)), (stencil, 255)):
        x1, y1, x2, y2 = BOX
        ImageDraw.Draw(drawn).rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image, np.asarray(stencil) > 0, exif


def record(number, form, orientation, measured_in, mask):
    box, size = np.array(BOX, dtype=float), (HEIGHT, WIDTH)
    if measured_in == "upright" and orientation > 1:
        mask = np.asarray(Image.fromarray(mask).transpose(UPRIGHT[orientation]))
        rows, columns = np.nonzero(mask)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)
        size = mask.shape
    return record_row(
        number,
        url=f"file:///{form}-{orientation}",
        box_norm=(box / (size[1], size[0], size[1], size[0])).tolist(),
        mask_counts=encode_mask(mask).counts,
        mask_size=list(size),
        declared_size=list(size),
    )


@pytest.mark.parametrize("measured_in", ["stored", "upright"])
def test_a_box_shows_what_it_showed_in_the_source_whatever_the_orientation(tmp_path, measured_in):
    root = tmp_path / "photos"
    root.mkdir()
    rows = []
    for number, (form, orientation) in enumerate(
        itertools.product(("JPEG", "PNG", "TIFF", "WEBP"), range(1, 9))
    ):
        image, mask, exif = photograph(orientation, number)
        image.save(root / f"{form}-{orientation}", form, exif=exif, quality=95)
        rows.append(record(number, form, orientation, measured_in, mask))
    write_rows(tmp_path / "records" / "00000" / "part-00000.parquet", rows, SCHEMA)
    images = tmp_path / "images" / "00000"
    settings = IngestSettings(file_root=str(root), min_success_rate=1, min_side_px=16)
    ingest_images(tmp_path / "records" / "00000", images, tmp_path / "ingest.parquet", settings)
    outputs = tmp_path / "candidates", tmp_path / "deduplicate.parquet"
    deduplicate.function(
        tmp_path / "records",
        tmp_path / "images",
        *outputs,
        settings=DeduplicateSettings(max_phash_distance=-1),
    )
    kept = list(read_rows(outputs[0]))
    assert len(kept) == len(rows)
    for row in kept:
        jpeg = read_image_bytes(images, row["image_shard"], row["image_sha256"])
        red, green, _ = np.asarray(Image.open(io.BytesIO(jpeg)), dtype=int).transpose(2, 0, 1)
        is_red = (red > 180) & (green < 90)
        inside = np.zeros_like(is_red)
        x1, y1, x2, y2 = map(round, row["box_xyxy"])
        inside[y1:y2, x1:x2] = True
        own = decode_mask(Rle(*row["mask_size"], row["mask_counts"]))
        for place in (inside, own):
            assert (place & is_red).sum() / (place | is_red).sum() > 0.9, row["url"]
