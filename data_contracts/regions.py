"""`regions`: one row a region with its mask."""

import pyarrow as pa

from data_contracts import candidates

KEY = "region_id"
SCHEMA = pa.schema(
    [
        *(field for field in candidates.SCHEMA if not field.name.startswith("mask_")),
        pa.field("mask_counts", pa.string(), nullable=False),  # COCO compressed RLE
        pa.field("mask_size", pa.list_(pa.int32()), nullable=False),  # [height, width]
        pa.field("mask_area_px", pa.int64(), nullable=False),
        pa.field("mask_source", pa.string(), nullable=False),  # record, sam:<model>, grabcut, box
        pa.field("mask_score", pa.float64()),  # the segmenter's own quality estimate, if any
    ]
)
