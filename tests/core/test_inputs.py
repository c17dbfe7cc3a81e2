"""Inputs that are not what their names say."""

from pathlib import Path

import pytest

from components.core.contracts import require_contract
from components.core.errors import GateError, InputError


def test_a_text_file_in_parquets_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_text("no table at all")
    for path in (tmp_path, tmp_path / "part-00000.parquet"):
        with pytest.raises(InputError, match=r"input records: .*part-00000.parquet is no Parquet"):
            require_contract("records", path)


def test_a_gate_without_reasons_shows_no_empty_brackets() -> None:
    error = GateError("select kept none of 0 regions", {}, "Look at the source.")
    assert str(error) == "select kept none of 0 regions. Look at the source."
