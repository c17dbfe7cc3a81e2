"""`quarantine`: every region that was dropped, by which step and why; nothing disappears."""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.columns import as_bools
from data_contracts.rules import named_suite
from data_contracts.tables import Columns

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

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


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: whether the kept row can be put back."""
    is_object = pc.match_substring_regex(chunk["row"], r"(?s)^\{.*\}$")
    return {"row_is_an_object": as_bools(is_object)}


def suite() -> "ExpectationSuite":
    """Every dropped region says which step dropped it and why, and can be put back."""
    from great_expectations import expectations as gxe

    return named_suite(
        "quarantine",
        {
            "step_well_formed": gxe.ExpectColumnValuesToMatchRegex(
                column="step", regex=r"^[a-z][a-z0-9_]*$"
            ),
            "reason_is_a_short_code": gxe.ExpectColumnValuesToMatchRegex(
                column="reason", regex=r"^[A-Za-z0-9][\w:.-]{0,79}$"
            ),
            "row_can_be_put_back": gxe.ExpectColumnValuesToBeInSet(
                column="row_is_an_object", value_set=[True]
            ),
        },
    )
