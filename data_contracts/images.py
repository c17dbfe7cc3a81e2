"""`images`: WebDataset shards and a manifest with one row for every URL that was tried."""

import pyarrow as pa

KEY = "url"
SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" or "failed"
        pa.field("reason", pa.string(), nullable=False),  # "" if ok, else a short code
        pa.field("detail", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # of the downloaded bytes; the key in the shard
        pa.field("shard", pa.string()),  # tar file beside the manifest
        pa.field("num_bytes", pa.int64()),
        pa.field("width_px", pa.int32()),  # upright, after EXIF orientation
        pa.field("height_px", pa.int32()),
        pa.field("phash", pa.string()),  # 64-bit perceptual hash, 16 hex digits
    ]
)
