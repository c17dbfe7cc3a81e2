"""An artifact as a whole: rules over all groups, pages that need nothing from elsewhere."""

import logging
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.core.errors import ContractViolation, InputError, SettingsError
from components.core.run import run_step
from components.core.tables import Row, write_rows
from components.data.check.step import check, offline_page
from data_contracts.engine.contract import contract_digest
from data_contracts.engine.tables import Columns
from data_contracts.records import SCHEMA
from tests.receipts import write_receipt
from tests.rows import record_row

ATTACK = 'ftp://"><img src=x onerror=alert(1)><script>alert(2)</script>$name'


def write_groups(folder: Path, groups: list[list[Row]]) -> Path:
    for number, rows in enumerate(groups):
        write_rows(folder / f"{number:05d}" / "part-00000.parquet", rows, SCHEMA)
    return folder


def three_groups(folder: Path) -> Path:
    return write_groups(
        folder, [[record_row(10 * group + n) for n in range(10)] for group in range(3)]
    )


def run_check(checked: Path, data_docs: Path, **settings: object) -> dict[str, int | float]:
    outputs = {"data_docs": data_docs}
    receipt = run_step(check, {"checked": checked}, outputs, {"artifact": "records", **settings})
    return dict(receipt.metrics)


def pages(folder: Path) -> dict[str, str]:
    return {str(page.relative_to(folder)): page.read_text() for page in folder.rglob("*.html")}


def test_a_good_artifact_gets_an_index_its_rules_and_a_page_a_group(tmp_path: Path) -> None:
    checked = three_groups(tmp_path / "records")
    metrics = run_check(checked, tmp_path / "docs")
    assert metrics["num_rows"] == 30
    assert metrics["num_rules"] == 12
    assert metrics["num_rules_broken"] == metrics["num_rows_failing"] == 0
    found = pages(tmp_path / "docs")
    names = sorted(Path(page).stem for page in found)
    assert names == ["00000", "00001", "00002", "all", "index", "records"]
    links = re.findall(r'href="([^"#]+)"', found["index.html"])
    assert len(links) == 5
    assert all((tmp_path / "docs" / link).exists() for link in links)
    assert "box inside image" in found["index.html"]
    assert "box_inside_image: box_outside at most 1e-06" in found["expectations/records.html"]


def test_pages_fetch_and_run_nothing_and_are_the_same_every_time(tmp_path: Path) -> None:
    checked = three_groups(tmp_path / "records")
    for name in ("one", "two"):
        run_check(checked, tmp_path / name / "docs", max_group_pages=1)
    first, second = (pages(tmp_path / name / "docs") for name in ("one", "two"))
    assert first == second
    for text in first.values():
        assert not re.search(r"<(script|img|link|iframe)\b", text)
        assert not re.search(r"(src|url)\s*[=(]", text)
        assert "default-src 'none'" in text
        assert str(tmp_path) not in text
    files = [path.suffix for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert set(files) == {".html", ".json"}  # the receipt


def test_a_key_in_two_groups_is_a_violation_though_each_group_is_good(tmp_path: Path) -> None:
    checked = write_groups(
        tmp_path / "records", [[record_row(1)], [record_row(1)], [record_row(2)]]
    )
    with pytest.raises(ContractViolation) as error:
        run_check(checked, tmp_path / "docs")
    assert "region_id_unique: 2 row(s), e.g. 1-00 (occurrences_of_key=2)" in str(error.value)
    assert "2 of 3 rows fail, the budget is 2.0%" in str(error.value)
    assert not (tmp_path / "docs").exists()
    (draft,) = tmp_path.glob(".docs.draft-*")  # the pages are there to be looked at
    assert str(draft) in str(error.value)
    assert "region id unique" in (draft / "index.html").read_text()


def test_failing_rows_within_the_budget_pass_and_are_counted(tmp_path: Path) -> None:
    rows = [record_row(n) for n in range(100)]
    rows[7]["score"] = 2.0
    metrics = run_check(write_groups(tmp_path / "records", [rows]), tmp_path / "docs")
    assert metrics["num_rules_broken"] == metrics["num_rows_failing"] == 1


@pytest.mark.parametrize("name", ["$HOME", "a ${b} c", "5 $", "a\\$b", "é #1 'x'"])
def test_pages_go_where_they_should_whatever_the_folder_s_name_holds(
    tmp_path: Path, name: str
) -> None:
    checked = three_groups(tmp_path / "records")
    run_check(checked, tmp_path / name / "docs")
    assert len(pages(tmp_path / name / "docs")) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["records", name])


def test_only_the_worst_groups_get_a_page_of_their_own(tmp_path: Path) -> None:
    groups = [[record_row(100 * group + n) for n in range(100)] for group in range(4)]
    groups[2][5]["score"] = 2.0
    checked = write_groups(tmp_path / "records", groups)
    run_check(checked, tmp_path / "docs", max_group_pages=1)
    found = pages(tmp_path / "docs")
    assert sorted(Path(page).stem for page in found) == ["00002", "all", "index", "records"]
    assert "3 more groups have no page of their own" in found["index.html"]


def test_a_value_from_outside_cannot_put_markup_into_a_page(tmp_path: Path) -> None:
    rows = [record_row(n) for n in range(100)]
    rows[7]["url"] = ATTACK
    run_check(write_groups(tmp_path / "records", [rows]), tmp_path / "docs")
    found = pages(tmp_path / "docs")
    shown = [text for text in found.values() if "onerror" in text]
    assert len(shown) == 3  # the index, the whole and the group
    for text in shown:
        assert "&lt;img src=x onerror" in text
        assert not re.search(r"<(script|img)\b", text)


def test_an_artifact_that_is_not_what_its_name_says_is_shown_and_refused(tmp_path: Path) -> None:
    checked = three_groups(tmp_path / "records")
    with pytest.raises(ContractViolation, match="column image_sha256 is missing"):
        run_check(checked, tmp_path / "docs", artifact="candidates")


def test_an_unknown_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"check\.artifact"):
        run_check(three_groups(tmp_path / "records"), tmp_path / "docs", artifact="everything")


def test_the_text_of_a_page_stays() -> None:
    page = (
        "<html><head><script src='https://x.test/a.js'></script></head><body><b>kept</b>"
        '<img class="NO-CACHE" src="https://x.test/logo.png?d=2026">'
        "<p id=a-f621540b-e75a-41a8-8ef8-adb0514c4d05>1970-01-01T00:00:00Z</p></body></html>"
    )
    found = offline_page(page, "")
    assert "x.test" not in found
    assert "<b>kept</b><p id=a>not recorded</p>" in found


def test_a_file_that_is_no_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "part-00000.parquet").write_text("no table at all")
    with pytest.raises(InputError, match=r"part-00000.parquet is no Parquet file"):
        run_check(tmp_path / "records", tmp_path / "docs")


def test_great_expectations_says_nothing_of_its_own_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run_check(three_groups(tmp_path / "records"), tmp_path / "docs")
    assert not [line for line in caplog.messages if "temporary directory" in line]


@pytest.mark.parametrize("met", [True, False])
def test_masks_that_a_receipt_vouches_for_are_not_read_again(
    met: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = three_groups(tmp_path / "records")
    digest = contract_digest("records") if met else "that of another contract"
    for group in checked.iterdir():
        write_receipt(group, "select", "records", contracts={"records": digest})
    read: list[int] = []

    def parse(chunk: pa.Table) -> Columns:
        read.append(len(chunk))
        return {"own_mask_is_whole": np.ones(len(chunk), dtype=bool)}

    monkeypatch.setattr("data_contracts.records.parse", parse)
    metrics = run_check(checked, tmp_path / "docs", max_group_pages=3)
    assert read == ([] if met else [30, 10, 10, 10])
    assert metrics["num_rules"] == 12
    shown = pages(tmp_path / "docs")["index.html"]
    assert re.search(r"own mask whole</td>.*?<td[^>]*>30</td>", shown, re.DOTALL)
