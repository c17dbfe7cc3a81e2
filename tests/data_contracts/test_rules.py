"""Every rule of every contract fails on a row made to break it, and on no other row."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from data_contracts.engine.check import ContractResult, check_table
from data_contracts.engine.contract import load_contract
from pixclip.masks import encode_mask
from tests.data_contracts.broken import BROKEN

Row = dict[str, Any]
CASES = [
    (artifact, place, rule)
    for artifact, cases in BROKEN.items()
    for place, (rule, _) in enumerate(cases)
]
# Rules about several rows or tables have tests of their own below.
TOGETHER = {
    "region_id_present",
    "url_present",
    "region_id_unique",
    "url_unique",
    "long_caption_in_english",
    "image_in_one_split",
    "image_in_one_sample",
    "no_near_duplicate_in_other_split",
}
NUM_GOOD = 5


@pytest.fixture(scope="module")
def broken_result(
    good_row: Callable[[str, int], Row],
    write_table: Callable[[str, Path, list[Row]], Path],
    other_mask: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], ContractResult]:
    """One table an artifact, with one broken row a case, checked once."""

    @cache
    def result(artifact: str) -> ContractResult:
        cases = BROKEN[artifact]
        rows = [good_row(artifact, n) | change for n, (_, change) in enumerate(cases)]
        rows += [good_row(artifact, len(cases) + n) for n in range(NUM_GOOD)]
        for row in rows:
            if row.get("mask_counts") == "OTHER":
                row["mask_counts"] = other_mask
        folder = tmp_path_factory.mktemp(artifact)
        return check_table(artifact, write_table(artifact, folder / "part.parquet", rows))

    return result


@pytest.mark.parametrize(("artifact", "place", "rule"), CASES)
def test_a_rule_fails_on_the_row_made_to_break_it(
    artifact: str,
    place: int,
    rule: str,
    broken_result: Callable[[str], ContractResult],
    good_row: Callable[[str, int], Row],
) -> None:
    contract = load_contract(artifact)
    assert contract
    key = (good_row(artifact, place) | BROKEN[artifact][place][1])[contract.key]
    found = {failure.rule: failure.keys for failure in broken_result(artifact).failures}
    assert key in found[rule]


@pytest.mark.parametrize("artifact", BROKEN)
def test_no_rule_fails_on_a_good_row(
    artifact: str,
    broken_result: Callable[[str], ContractResult],
    good_row: Callable[[str, int], Row],
) -> None:
    contract = load_contract(artifact)
    assert contract
    first = len(BROKEN[artifact])
    good = {good_row(artifact, first + n)[contract.key] for n in range(NUM_GOOD)}
    failing = {key for failure in broken_result(artifact).failures for key in failure.keys}
    assert not good & failing


@pytest.mark.parametrize("artifact", BROKEN)
def test_every_rule_of_a_contract_has_a_row_that_breaks_it(artifact: str) -> None:
    contract = load_contract(artifact)
    assert contract
    rules = set(contract.rules())
    assert rules - TOGETHER == {rule for rule, _ in BROKEN[artifact]}


@pytest.mark.parametrize("rule", ["status_known", "width_px_positive"])
def test_a_violation_names_rule_count_and_examples(
    rule: str, broken_result: Callable[[str], ContractResult]
) -> None:
    texts = {failure.rule: str(failure) for failure in broken_result("images").failures}
    assert "1 row(s), e.g. https://example.org/" in texts[rule]
    assert rule in texts[rule]


def test_the_mask_of_a_good_row_is_what_its_columns_say(
    good_row: Callable[[str, int], Row],
) -> None:
    from pixclip.masks import Rle, decode_mask

    row = good_row("regions", 0)
    mask = decode_mask(Rle(*row["mask_size"], row["mask_counts"]))
    assert encode_mask(mask).counts == row["mask_counts"]
    assert mask.sum() == row["mask_area_px"]
