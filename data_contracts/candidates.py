"""`candidates`: region rows whose image is there and is the only one of its kind."""

import pyarrow as pa

KEY = "region_id"
SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("image_caption", pa.string(), nullable=False),
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("image_shard", pa.string(), nullable=False),  # tar in the group's image folder
        pa.field("image_width_px", pa.int32(), nullable=False),
        pa.field("image_height_px", pa.int32(), nullable=False),
        pa.field("image_phash", pa.string(), nullable=False),
        pa.field("box_xyxy", pa.list_(pa.float64()), nullable=False),  # pixels, clipped
        pa.field("mask_counts", pa.string()),  # the source's own mask, if it brought one
        pa.field("mask_size", pa.list_(pa.int32())),
    ]
)
