"""`records`: one row a region of the source, after the filters, split into groups."""

import pyarrow as pa

KEY = "region_id"
SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),  # "<record_id>-<index of the box>"
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),  # http(s)://, s3:// or file://
        pa.field("image_caption", pa.string(), nullable=False),
        pa.field("phrase", pa.string(), nullable=False),  # what the source calls the region
        pa.field("box_norm", pa.list_(pa.float64()), nullable=False),  # xyxy in [0, 1]
        pa.field("score", pa.float64(), nullable=False),
        pa.field("clip_similarity", pa.float64()),  # ViT-L/14, as the source gives it
        pa.field("mask_counts", pa.string()),  # the source's own mask, COCO compressed RLE
        pa.field("mask_size", pa.list_(pa.int32())),  # [height, width] of that mask
        pa.field("split", pa.string(), nullable=False),  # "train", "benchmark" or "" (undecided)
        pa.field("subset", pa.string(), nullable=False),  # e.g. "held_out_objects", or ""
    ]
)
