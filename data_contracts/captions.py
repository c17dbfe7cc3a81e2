"""`captions`: the region rows with what was said of them, and who said it."""

import pyarrow as pa

from data_contracts import regions

KEY = "region_id"
SCHEMA = pa.schema(
    [
        *regions.SCHEMA,
        pa.field("object_caption", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),  # "accepted"
        pa.field("verdict_reason", pa.string(), nullable=False),
        pa.field("context_caption", pa.string(), nullable=False),
        pa.field("long_caption", pa.string(), nullable=False),
        pa.field("short_caption", pa.string(), nullable=False),
        # JSON: stage -> {"describer", "model", "prompt", "prompt_version", "request_hash"}
        pa.field("provenance", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("cost_usd", pa.float64(), nullable=False),
    ]
)
