"""What happens to rows that fail a contract, with the step's other artifacts known."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.core.contracts import check_drafts, require_contract
from components.core.counts import region_counts, write_quarantine
from components.core.errors import ContractViolation, InputError
from components.core.tables import Row, read_rows, write_rows
from data_contracts import candidates, images, records
from data_contracts.engine.contract import contract_digest
from tests.receipts import write_receipt
from tests.rows import record_row

NUM_ROWS = 100  # of which the contract lets two go
SHA256 = "ab" * 32


def candidate(number: int, **changes: Any) -> Row:
    row = record_row(number)
    del row["box_norm"], row["clip_similarity"]
    return row | {
        "image_sha256": SHA256,
        "image_shard": "00000.tar",
        "image_width_px": 100,
        "image_height_px": 80,
        "image_phash": "0" * 16,
        "box_xyxy": [0.0, 0.0, 20.0, 20.0],
        **changes,
    }


def write_drafts(folder: Path, rows: list[Row], name: str = "records") -> dict[str, Path]:
    """Drafts of two groups, the second with the last ten rows."""
    schema = {"records": records.SCHEMA, "candidates": candidates.SCHEMA}[name]
    drafts = {name: folder / f".{name}.draft-1", "quarantine": folder / ".q.draft-1.parquet"}
    write_rows(drafts[name] / "00000" / "part-00000.parquet", rows[:-10], schema)
    write_rows(drafts[name] / "00001" / "part-00000.parquet", rows[-10:], schema)
    write_quarantine(drafts["quarantine"], [])
    return drafts


def ids(path: Path) -> list[str]:
    return [row["region_id"] for row in read_rows(path)]


def test_good_drafts_are_published_as_they_are(tmp_path: Path) -> None:
    drafts = write_drafts(tmp_path, [record_row(n) for n in range(NUM_ROWS)])
    metrics = region_counts(NUM_ROWS, NUM_ROWS, Counter())
    ready, counted, met = check_drafts("select", {}, drafts, metrics)
    assert ready == drafts
    assert counted == metrics
    assert set(met) == {"records", "quarantine"}


def test_rows_within_the_budget_move_and_the_drafts_stay_whole(tmp_path: Path) -> None:
    rows = [record_row(n) for n in range(NUM_ROWS)]
    rows[5]["split"], rows[5]["score"] = "test", 7.0
    rows[95]["url"] = "ftp://example.org/1.jpg"
    drafts = write_drafts(tmp_path, rows)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    ready, metrics, _ = check_drafts(
        "select", {}, drafts, region_counts(NUM_ROWS, NUM_ROWS, Counter())
    )
    assert {path: path.read_bytes() for path in before} == before
    assert ids(ready["records"]) == [f"{n}-00" for n in range(NUM_ROWS) if n not in (5, 95)]
    moved = list(read_rows(ready["quarantine"]))
    assert [(row["region_id"], row["step"], row["reason"]) for row in moved] == [
        ("5-00", "select", "contract:score_in_range"),
        ("95-00", "select", "contract:url_well_formed"),
    ]
    assert metrics["regions_out"] == NUM_ROWS - 2
    assert metrics["regions_quarantined"] == 2
    assert metrics["quarantined.contract:score_in_range"] == 1


def test_tables_without_failing_rows_are_linked_not_written_again(tmp_path: Path) -> None:
    rows = [record_row(n) for n in range(NUM_ROWS)]
    rows[95]["score"] = -1.0
    drafts = write_drafts(tmp_path, rows)
    ready, *_ = check_drafts("select", {}, drafts, {})
    part = "part-00000.parquet"
    assert (ready["records"] / "00000" / part).samefile(drafts["records"] / "00000" / part)
    changed = ready["records"] / "00001" / part
    assert not changed.samefile(drafts["records"] / "00001" / part)
    assert pq.read_schema(changed).equals(records.SCHEMA)
    assert [path.name for path in changed.parent.iterdir()] == [part]


def test_a_region_that_comes_twice_is_counted_twice(tmp_path: Path) -> None:
    rows = [record_row(n) for n in range(NUM_ROWS)]
    rows[-1] = record_row(3)
    drafts = write_drafts(tmp_path, rows)
    ready, metrics, _ = check_drafts(
        "select", {}, drafts, region_counts(NUM_ROWS, NUM_ROWS, Counter())
    )
    assert ids(ready["quarantine"]) == ["3-00", "3-00"]
    assert metrics["regions_out"] == len(ids(ready["records"])) == NUM_ROWS - 2
    assert metrics["regions_quarantined"] == 2


def test_past_the_budget_the_step_fails_with_rules_counts_and_examples(tmp_path: Path) -> None:
    rows = [record_row(n, score=9.0) if n < 3 else record_row(n) for n in range(NUM_ROWS)]
    rows[7]["split"] = "test"
    drafts = write_drafts(tmp_path, rows)
    with pytest.raises(ContractViolation) as error:
        check_drafts("select", {}, drafts, {})
    assert str(error.value) == (
        "artifact 'records' breaks 2 rule(s): "
        "score_in_range: 3 row(s), e.g. 0-00 (score=9), 1-00 (score=9), 2-00 (score=9); "
        "split_known: 1 row(s), e.g. 7-00 (split=test). "
        "Too many to set aside: 4 of 100 rows, the budget is 2.0%."
    )
    assert error.value.artifact == "records"


def test_without_a_quarantine_beside_it_no_row_may_fail(tmp_path: Path) -> None:
    rows = [record_row(n) for n in range(NUM_ROWS)]
    rows[0]["score"] = 9.0
    drafts = write_drafts(tmp_path, rows)
    del drafts["quarantine"]
    with pytest.raises(ContractViolation, match="score_in_range"):
        check_drafts("select", {}, drafts, {})


def test_a_bad_row_of_the_quarantine_itself_fails_the_step(tmp_path: Path) -> None:
    drafts = write_drafts(tmp_path, [record_row(n) for n in range(NUM_ROWS)])
    bad = {
        "region_id": "7-00",
        "record_id": "7",
        "step": "select",
        "reason": "too small, I think",
        "detail": "",
        "url": "",
        "phrase": "",
        "image_sha256": None,
        "row": "{}",
    }
    write_quarantine(drafts["quarantine"], [bad])
    with pytest.raises(ContractViolation, match="reason_is_a_short_code"):
        check_drafts("select", {}, drafts, {})


def test_joins_to_the_steps_inputs_are_checked(tmp_path: Path) -> None:
    rows = [candidate(n) for n in range(NUM_ROWS)]
    rows[4]["image_sha256"] = "cd" * 32
    drafts = write_drafts(tmp_path, rows, "candidates")
    write_rows(tmp_path / "records" / "part.parquet", map(record_row, range(99)), records.SCHEMA)
    image = dict.fromkeys(images.SCHEMA.names) | {
        "url": "https://example.org/1.jpg",
        "status": "ok",
        "reason": "",
        "detail": "",
        "sha256": SHA256,
    }
    write_rows(tmp_path / "images" / "manifest.parquet", [image], images.SCHEMA)
    inputs = {"records": tmp_path / "records", "images": tmp_path / "images"}
    ready, *_ = check_drafts("deduplicate", inputs, drafts, {})
    assert {row["region_id"]: row["reason"] for row in read_rows(ready["quarantine"])} == {
        "4-00": "contract:image_in_manifest",
        "99-00": "contract:region_among_records",
    }


def test_a_draft_without_any_table_is_a_violation(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(ContractViolation, match="holds no Parquet file"):
        check_drafts("select", {}, {"records": tmp_path / "records"}, {})


def test_outputs_without_a_contract_are_left_alone(tmp_path: Path) -> None:
    drafts = {"exports": tmp_path / "nothing there"}
    assert check_drafts("export", {}, drafts, {}) == (drafts, {}, {})


def test_an_input_folder_without_tables_is_named(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(InputError, match=r"input records at .* holds no Parquet file"):
        require_contract("records", tmp_path / "records")


@pytest.mark.parametrize("made_as", ["longgrit", "dataset"])
def test_a_data_set_has_met_its_contract_whatever_it_was_made_as(
    tmp_path: Path, made_as: str
) -> None:
    digest = contract_digest("longgrit")
    write_receipt(tmp_path, "pack", made_as, contracts={made_as: digest})
    require_contract("dataset", tmp_path)  # it holds no table: nothing was read
    write_receipt(tmp_path, "pack", made_as, contracts={made_as: "another"})
    with pytest.raises(InputError, match=r"input dataset at .* holds no Parquet file"):
        require_contract("dataset", tmp_path)
