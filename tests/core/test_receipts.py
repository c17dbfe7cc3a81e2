"""What counts as a change of an input."""

import pytest

from components.core.receipts import (
    fingerprint,
    input_digest,
    input_digests_of_settings,
    note_owner,
)
from components.core.settings import parse_settings
from components.core.step import load_step
from tests.receipts import write_receipt

FILES = {"captions/part-00000.parquet": "c", "ledger": "wall seconds of one run"}


@pytest.fixture
def digest_of(tmp_path):
    """The digest of captions that were published with these files."""

    def digest_of(name: str, files: dict[str, str]) -> str:
        write_receipt(tmp_path, "describe", "captions", metrics={"regions_in": 1}, files=files)
        return input_digest(name, tmp_path)

    return digest_of


def test_other_outputs_of_the_same_step_do_not_count(digest_of):
    """A ledger holds times: captions that come again from the cache are still the same."""
    before = digest_of("captions", FILES)
    assert digest_of("captions", FILES | {"ledger": "of another run"}) == before
    assert digest_of("captions", FILES | {"captions/part-00000.parquet": "d"}) != before
    assert digest_of("captions", FILES | {"captions/part-00001.parquet": "d"}) != before


def test_a_note_of_whose_a_file_is_does_not_count_as_content(tmp_path):
    (tmp_path / "select.parquet").write_bytes(b"rows")
    before = input_digest("quarantines", tmp_path)
    note_owner(tmp_path / "select.parquet", tmp_path / "records", "digest")
    assert len(list(tmp_path.iterdir())) == 2
    assert input_digest("quarantines", tmp_path) == before


def test_an_artifact_under_another_name_counts_whole(digest_of):
    before = digest_of("checked", FILES)
    assert digest_of("checked", FILES | {"captions/part-00000.parquet": "d"}) != before


@pytest.mark.parametrize(
    ("name", "setting", "others"),
    [("init_model", "weights", {"format": "openai"}), ("adapt_text", "base_model", {})],
)
def test_other_weights_in_the_place_that_a_setting_names_are_other_work(
    tmp_path, name, setting, others
):
    step, weights = load_step(name), tmp_path / "weights"
    settings = parse_settings(step, {setting: str(weights), **others})
    digests = []
    for content in ("a", "a", "b"):
        weights.write_text(content)
        digests.append(fingerprint(step, settings, input_digests_of_settings(step, settings)))
    assert digests[0] == digests[1] != digests[2]
