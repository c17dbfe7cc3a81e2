"""A data set comes out of a real Git and DVC repository, in the version that was asked for."""

import json
import subprocess
import uuid
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from components.core.errors import ContractViolation, InputError, SettingsError
from components.core.receipts import read_receipt
from components.core.run import is_published, run_step
from components.core.step import load_step
from components.data.resolve_data.step import resolve_data
from components.data.resolve_data.versions import find_commit
from tests.packed import make_longgrit


def bring(target: Path, **settings: object) -> dict[str, str]:
    """Run the step as every runner does; what it says of the version."""
    run_step(resolve_data, {}, {"dataset": target}, settings)
    version: dict[str, str] = json.loads((target / "version.json").read_text())
    return version


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> SimpleNamespace:
    """A repository with two versions of a data set, and those versions as they were packed."""
    root = tmp_path_factory.mktemp("published")
    repository, commits, folders = root / "repository", [], []
    for number in (12, 9):
        folder = make_longgrit(root / f"longgrit{number}", num_images=number)
        outputs = {"publication": root / f"publication{number}"}
        settings = {"repository": str(repository), "name": "longgrit"}
        run_step(load_step("publish"), {"dataset": folder}, outputs, settings)
        told = json.loads((outputs["publication"] / "publication.json").read_text())
        commits.append(told["git_commit"])
        folders.append(folder)
    subprocess.run(["git", "tag", "v1", commits[0]], cwd=repository, check=True)
    return SimpleNamespace(repository=str(repository), commits=commits, folders=folders)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but those that a step adds."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("_receipt.json", "version.json")
    }


def test_a_branch_a_tag_and_a_commit_bring_their_version(published, tmp_path):
    newest = bring(tmp_path / "newest", repository=published.repository, revision="main")
    assert newest["git_commit"] == published.commits[1]
    assert newest["dvc_md5"].endswith(".dir")
    assert content(tmp_path / "newest") == content(published.folders[1])
    tagged = bring(tmp_path / "tagged", repository=published.repository, revision="v1")
    assert tagged["git_commit"] == published.commits[0]
    assert content(tmp_path / "tagged") == content(published.folders[0])
    assert find_commit(published.repository, published.commits[0]) == published.commits[0]


def test_the_contract_was_checked_and_a_branch_is_looked_at_every_time(published, tmp_path):
    settings = {"repository": published.repository, "revision": published.commits[1]}
    bring(tmp_path / "data", **settings)
    receipt = read_receipt(tmp_path / "data")
    assert receipt.step == "resolve_data"
    assert "dataset" in receipt.contracts
    branch = {**settings, "revision": "HEAD"}
    assert is_published(resolve_data, {}, {"dataset": tmp_path / "data"}, settings)
    bring(tmp_path / "data", **branch)
    assert not is_published(resolve_data, {}, {"dataset": tmp_path / "data"}, branch)


def test_what_is_not_there_is_told_plainly(published, tmp_path):
    where = {"repository": published.repository}
    with pytest.raises(InputError, match=r"repository has no branch or tag 'v9'"):
        bring(tmp_path / "a", **where, revision="v9")
    with pytest.raises(InputError, match=r"data set 'parts' .* at HEAD"):
        bring(tmp_path / "a", **where, name="parts")
    with pytest.raises(InputError, match=r"cannot be brought: .*nowhere"):
        bring(tmp_path / "a", repository=str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"resolve_data\.revision"):
        bring(tmp_path / "a", **where, revision="--upload-pack=touch")
    assert not (tmp_path / "a").exists()


def test_an_address_that_names_a_program_is_refused(tmp_path):
    with pytest.raises(InputError, match="not allowed"):
        bring(tmp_path / "a", repository=f"ext::touch {tmp_path}/made")
    assert not (tmp_path / "made").exists()


def test_a_folder_is_copied_and_its_files_stay_as_they_are(published, tmp_path):
    source = published.folders[0]
    before = content(source)
    assert bring(tmp_path / "data", uri=str(source)) == {"uri": str(source)}
    assert content(tmp_path / "data") == content(source) == before
    manifest = tmp_path / "data" / "manifest.parquet"
    assert not manifest.samefile(source / "manifest.parquet")
    assert not (source / "version.json").exists()


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"manifest\.parquet is missing"):
        bring(tmp_path / "data", uri=str(tmp_path / "other"))


def test_a_data_set_that_breaks_its_contract_is_not_published(published, tmp_path):
    import pyarrow.parquet as pq

    source = tmp_path / "broken"
    source.mkdir()
    table = pq.read_table(published.folders[0] / "manifest.parquet")
    pq.write_table(
        table.set_column(table.column_names.index("split"), "split", [["x"] * len(table)]),
        source / "manifest.parquet",
    )
    with pytest.raises(ContractViolation, match="split_known"):
        bring(tmp_path / "data", uri=str(source))


@pytest.mark.slow
def test_an_s3_prefix_is_fetched(published, s3_endpoint, tmp_path):
    client, bucket = boto3.client("s3", endpoint_url=s3_endpoint), f"data-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    for name, body in content(published.folders[0]).items():
        client.put_object(Bucket=bucket, Key=f"sets/longgrit/{name}", Body=body)
    # What other tools leave: an object for an empty folder, and a mark without content.
    for key in ("sets/longgrit/", "sets/longgrit/train/", "sets/longgrit/_SUCCESS"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    uri = f"s3://{bucket}/sets/longgrit"
    bring(tmp_path / "data", uri=uri, endpoint_url=s3_endpoint)
    assert content(tmp_path / "data") == {**content(published.folders[0]), "_SUCCESS": b""}


def test_a_password_in_an_address_is_refused_and_not_told(tmp_path):
    address = "https://ada:hunter2@git.example/data.git"
    with pytest.raises(SettingsError, match=r"^resolve_data\.repository: .*") as refused:
        bring(tmp_path / "data", repository=address)
    assert "hunter2" not in str(refused.value)
