"""Whatever a source holds, `select` loses no region and names none twice."""

import math

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.tables import read_rows, write_rows
from components.data.select.step import select
from components.data.select.verdict import Repeats, record_keys
from data_contracts.engine.check import check_table
from data_contracts.grit import SAMPLE_SCHEMA
from tests.data.select.test_select import FULL, record

numbers = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([math.nan, math.inf, 0.0, 1.0]))
offsets = st.one_of(st.integers(-2, 60).map(float), st.floats(0, 50), st.just(math.nan))
region = st.tuples(offsets, offsets, numbers, numbers, numbers, numbers, numbers).map(list)
short = st.lists(numbers, max_size=8)
records = st.lists(
    st.builds(
        record,
        number=st.integers(0, 3),
        caption=st.one_of(st.none(), st.text(max_size=50)),
        width=st.one_of(st.none(), st.integers(-5, 1000)),
        ref_exps=st.one_of(st.none(), st.lists(st.one_of(st.none(), region, short), max_size=4)),
        url=st.one_of(st.none(), st.sampled_from(["", "https://a.example/1", "s3://b/ü", "x"])),
        clip_similarity_vitl14=st.one_of(st.none(), numbers, st.just(-7.0)),
        masks=st.one_of(st.none(), st.lists(st.sampled_from([None, "", "`", FULL]), max_size=3)),
        split=st.sampled_from([None, "", "train", "test"]),
    ),
    max_size=6,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=records)
def test_no_region_is_lost_or_named_twice_and_the_contract_is_met(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("select")
    write_rows(folder / "grit" / "a.parquet", [*rows, record(99)], SAMPLE_SCHEMA)
    outputs = {"records": folder / "records", "quarantine": folder / "q.parquet"}
    metrics = select.function(
        grit=folder / "grit", **outputs, settings=select.settings_type(min_score=0)
    )
    kept = list(read_rows(outputs["records"]))
    assert check_table("records", outputs["records"]).failures == ()
    names = [row["region_id"] for row in (*kept, *read_rows(outputs["quarantine"]))]
    assert len(names) == sum(len(row["ref_exps"] or ()) for row in [*rows, record(99)])
    assert len(set(names)) == len(names)
    assert metrics["regions_in"] == len(names)
    for row in kept:
        assert row["phrase"]
        assert row["phrase"] in row["image_caption"]
        x1, y1, x2, y2 = row["box_norm"]
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()))))
def test_repeats_marks_what_a_set_would_mark(batches):
    keys = [pa.array([key for key, _ in batch], pa.int64()) for batch in batches]
    repeats = Repeats(np.array([key for batch in batches for key, _ in batch], dtype=np.int64))
    met = set()
    for batch, values in zip(batches, keys, strict=True):
        eligible = np.array([is_eligible for _, is_eligible in batch], dtype=bool)
        expected = []
        for key, is_eligible in batch:
            expected.append(is_eligible and key in met)
            if is_eligible:
                met.add(key)
        assert repeats.later(record_keys(values), eligible).tolist() == expected
