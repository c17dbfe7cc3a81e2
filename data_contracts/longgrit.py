"""`longgrit`: the data set's manifest, one row a region; images and captions are in the shards."""

import pyarrow as pa

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
