"""`quarantine`: every region that was dropped, by which step and why; nothing disappears."""

import pyarrow as pa

KEY = "region_id"
SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # a short code, counted in the metrics
        pa.field("detail", pa.string(), nullable=False),  # values and advice for a person
        pa.field("url", pa.string(), nullable=False),
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),  # null where the image never arrived
        pa.field("row", pa.string(), nullable=False),  # the whole row as JSON, to be put back
    ]
)
