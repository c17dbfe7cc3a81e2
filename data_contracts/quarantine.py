"""`quarantine`: every region that was dropped, by which step and why; nothing disappears."""

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.columns import as_bools
from data_contracts.engine.rules import holds, matches
from data_contracts.engine.tables import Columns

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

KEY_SCOPE = "none"  # of two regions with one id both are dropped
BUDGET = 0.0
RULES = {
    "step_well_formed": matches("step", r"^[a-z][a-z0-9_]*$"),
    "reason_is_a_short_code": matches("reason", r"^[A-Za-z0-9][\w:.-]{0,79}$"),
    "row_can_be_put_back": holds("row_is_an_object"),
}


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: whether the kept row can be put back."""
    is_object = pc.match_substring_regex(chunk["row"], r"(?s)^\{.*\}$")
    return {"row_is_an_object": as_bools(is_object)}
