"""What a contract's digest covers: its own source and what it reaches, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.engine import contract as contracts
from data_contracts.engine.contract import contract_digest, sources_of

ARTIFACTS = (
    "grit", "records", "images", "candidates", "regions", "captions", "contrasted", "quarantine",
    "longgrit", "text_embeddings",
)  # fmt: skip
Changed = Callable[[str, str], set[str]]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the contracts, of which digests are made."""
    folder = tmp_path / "data_contracts"
    shutil.copytree(contracts.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(contracts, "PACKAGE", folder)
    return folder


@pytest.fixture
def changed(copy: Path) -> Changed:
    """The artifacts whose digest is another one after a line was added to a file."""

    def change(name: str, line: str = "# another rule\n") -> set[str]:
        before = {artifact: contract_digest(artifact) for artifact in ARTIFACTS}
        path = copy / name
        path.write_text(path.read_text() + line)
        return {name for name in ARTIFACTS if contract_digest(name) != before[name]}

    return change


def test_every_artifact_has_a_digest_of_its_own(copy: Path) -> None:
    assert len({contract_digest(artifact) for artifact in ARTIFACTS}) == len(ARTIFACTS)


@pytest.mark.parametrize(
    ("contract", "artifacts"),
    [
        ("images.py", {"images"}),
        ("quarantine.py", {"quarantine"}),
        ("records.py", {"records"}),
        ("grit.py", {"grit"}),
        ("contrasted.py", {"contrasted"}),
        ("captions.py", {"captions", "contrasted", "longgrit"}),  # which has captions too
        ("regions.py", {"regions", "captions", "contrasted", "longgrit"}),
    ],
)
def test_a_changed_contract_leaves_the_receipts_of_others_met(
    contract: str, artifacts: set[str], changed: Changed
) -> None:
    assert changed(contract, "# another rule\n") == artifacts


@pytest.mark.parametrize("module", ["check", "rules", "reading", "footers", "tables"])
def test_a_change_of_the_engine_concerns_every_contract(module: str, changed: Changed) -> None:
    assert changed(f"engine/{module}.py", "# another rule\n") == set(ARTIFACTS)


def test_how_results_are_rendered_concerns_none(changed: Changed) -> None:
    assert changed("engine/data_docs.py", "# another page\n") == set()


def test_what_only_some_contracts_reach_concerns_only_those(changed: Changed) -> None:
    with_masks = {"records", "regions", "captions", "contrasted", "longgrit"}
    assert changed("engine/mask_counts.py", "# another reader\n") == with_masks


def test_a_module_counts_in_whatever_folder_it_is(copy: Path, changed: Changed) -> None:
    (copy / "engine" / "deep").mkdir()
    (copy / "engine" / "deep" / "phrases.py").write_text("LONGEST = 60\n")
    inner = "\n\ndef longest():\n    from data_contracts.engine.deep import phrases\n"
    assert changed("images.py", inner) == {"images"}
    assert changed("engine/deep/phrases.py", "# 61\n") == {"images"}


def test_the_library_s_modules_count_that_a_contract_uses() -> None:
    assert "pixclip.near_duplicates" in sources_of(["data_contracts.longgrit"])
    assert "pixclip.near_duplicates" not in sources_of(["data_contracts.records"])
