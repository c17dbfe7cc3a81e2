"""Data sets become one: shards as they were, each image once, no split leaking into another."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.core.errors import GateError, InputError
from components.core.receipts import read_receipt
from components.core.run import run_step
from components.core.shards import members_of, read_member
from components.core.step import load_step
from components.core.tables import read_rows
from components.data.merge_data.overlap import find_left_out
from components.data.merge_data.sets import open_sets
from tests.data.pack.conftest import build_run
from tests.pixclip.data.world import open_longgrit

Change = Callable[[dict[str, Any], int], None]
FAR = {"max_left_out_share": 1.0}  # these small sets overlap more than any that one merges


def packed(
    datasets: Path,
    name: str,
    change: Change = lambda row, number: None,
    num_images: int = 8,
    size: tuple[int, int] = (96, 72),
) -> Path:
    """A set of drawn scenes; those of one size are the same images in every set."""
    run = build_run(
        datasets.parent / f"run-{name}", num_images=num_images, size=size, change=change
    )
    folder = datasets / name
    run_step(load_step("pack"), run.inputs, {"longgrit": folder}, {"images_per_shard": 3})
    return folder


def marked(first: int, mark: str = "", *, benchmark: tuple[int, ...] = (0,)) -> Change:
    """Ids of regions that begin at `first`; the split of every image, benchmark of some."""

    def change(row: dict[str, Any], number: int) -> None:
        row["region_id"] = f"{mark}{first + number}-{row['region_id'][-2:]}"
        row["record_id"] = f"{mark}{first + number}"
        row["split"] = "benchmark" if number in benchmark else "train"

    return change


def merge(root: Path, **settings: Any) -> dict[str, int | float]:
    outputs = {"dataset": root / "merged", "quarantine": root / "quarantine.parquet"}
    step = load_step("merge_data")
    return run_step(step, {"datasets": root / "datasets"}, outputs, settings).metrics


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_rows(folder / "manifest.parquet"))


def samples_of(folder: Path) -> dict[str, tuple[dict[str, Any], bytes]]:
    """Description and picture of every sample, by its name, and none comes twice."""
    found: dict[str, tuple[dict[str, Any], bytes]] = {}
    for shard in sorted(folder.glob("*/*.tar")):
        for member in members_of(shard):
            if member.name.endswith(".json"):
                key = member.name.removesuffix(".json")
                assert key not in found
                picture = read_member(shard, f"{key}.jpg")
                found[key] = json.loads(read_member(shard, member.name)), picture
    return found


@pytest.fixture
def apart(tmp_path) -> Path:
    """Two sets without a common image or region."""
    packed(tmp_path / "datasets", "birds", marked(0, "b"))
    packed(tmp_path / "datasets", "scenes", marked(0, "s"), size=(104, 72))
    return tmp_path


@pytest.fixture
def crossed(tmp_path) -> Path:
    """The same eight images twice; what is in the benchmark of one is for training in the other."""
    packed(tmp_path / "datasets", "birds", marked(0, "b", benchmark=(0, 1)))
    packed(tmp_path / "datasets", "scenes", marked(0, "s", benchmark=(1, 2)))
    return tmp_path


def test_shards_without_overlap_are_links_and_keep_their_digests(apart):
    metrics = merge(apart)
    merged = read_receipt(apart / "merged").files
    assert metrics["regions_quarantined"] == 0
    for name in ("birds", "scenes"):
        own = read_receipt(apart / "datasets" / name).files
        shards = [file for file in own if file.endswith(".tar")]
        assert shards
        for shard in shards:
            split, file = shard.removeprefix("longgrit/").split("/")
            ours = f"{split}/{name}-{file}"
            assert (apart / "merged" / ours).samefile(apart / "datasets" / name / split / file)
            assert merged[f"dataset/{ours}"] == own[shard]


def test_the_manifests_become_one_whose_rows_name_their_shards(apart):
    merge(apart)
    merged = {row["region_id"]: row for row in rows_of(apart / "merged")}
    for name in ("birds", "scenes"):
        for row in rows_of(apart / "datasets" / name):
            found = merged.pop(row["region_id"])
            assert found.pop("shard") == row.pop("shard").replace("/", f"/{name}-")
            assert found == row
    assert not merged


def test_the_loader_checks_publication_and_a_version_take_what_is_merged(apart):
    merge(apart)
    merged, repository = apart / "merged", str(apart / "repository")
    docs = {"data_docs": apart / "docs"}
    checked = run_step(load_step("check"), {"checked": merged}, docs, {"artifact": "longgrit"})
    assert checked.metrics["num_rules_broken"] == 0
    where = {"repository": repository, "name": "both"}
    publication = {"publication": apart / "publication"}
    run_step(load_step("publish"), {"dataset": merged}, publication, where)
    brought = apart / "brought"
    run_step(load_step("resolve_data"), {}, {"dataset": brought}, where)
    wanted = [row["region_id"] for row in rows_of(merged) if row["split"] == "train"]
    data = open_longgrit(brought, batch_size=1)
    seen = [batch.region_ids[0] for batch in data.batches(epoch=0)]
    assert sorted(seen) == sorted(wanted)
    assert {region[0] for region in seen} == {"b", "s"}


def test_ids_that_clash_get_the_name_of_their_set_and_nothing_else_changes(tmp_path):
    packed(tmp_path / "datasets", "birds", marked(0))
    packed(tmp_path / "datasets", "scenes", marked(7), size=(104, 72))
    merge(tmp_path)
    ids = [row["region_id"] for row in rows_of(tmp_path / "merged")]
    assert Counter(ids).most_common(1)[0][1] == 1
    assert sum(name.startswith("scenes/") for name in ids) == 24
    before = samples_of(tmp_path / "datasets" / "scenes")
    after = samples_of(tmp_path / "merged")
    for key, (description, picture) in before.items():
        renamed, same_picture = after[key]
        assert same_picture == picture
        for region in description["regions"]:
            region["region_id"] = f"scenes/{region['region_id']}"
        assert renamed == description


def test_an_image_of_another_sets_benchmark_is_not_trained_on(crossed):
    metrics = merge(crossed, **FAR)
    splits: dict[str, set[str]] = {}
    for row in rows_of(crossed / "merged"):
        splits.setdefault(row["image_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert sum(found == {"benchmark"} for found in splits.values()) == 3
    # Images 0 and 2 for the benchmark's sake; 1 and the five for training are kept once.
    assert metrics["quarantined.leaked_image"] == 2 * 3
    assert metrics["quarantined.repeated_image"] == 6 * 3
    assert metrics["regions_in"] == metrics["regions_out"] + metrics["regions_quarantined"] == 48


def test_what_is_left_out_is_in_no_shard_and_stands_in_the_quarantine(crossed):
    merge(crossed, **FAR)
    named = {row["region_id"] for row in rows_of(crossed / "merged")}
    samples = samples_of(crossed / "merged")
    packed_ids = {r["region_id"] for one, _ in samples.values() for r in one["regions"]}
    assert packed_ids == named
    gone = pq.read_table(crossed / "quarantine.parquet").to_pylist()
    leaked = {row["region_id"]: row for row in gone if row["reason"] == "leaked_image"}
    assert set(leaked) == {f"{name}-0{n}" for name in ("b2", "s0") for n in range(3)}
    assert leaked["s0-00"]["detail"] == "the same bytes are in the split benchmark of birds"
    assert leaked["s0-00"]["url"] == "https://pictures.example/000000.jpg"
    assert json.loads(leaked["s0-00"]["row"])["set"] == "scenes"
    before = [
        row["region_id"] for n in ("birds", "scenes") for row in rows_of(crossed / "datasets" / n)
    ]
    assert sorted([*named, *(row["region_id"] for row in gone)]) == sorted(before)


def alike(bits: int) -> Change:
    """Ids of `scenes`; the third image looks like the first of `birds` but for some bits."""

    def change(row: dict[str, Any], number: int) -> None:
        marked(0, "s")(row, number)
        if number == 3:
            row["image_phash"] = f"{(1 << bits) - 1:016x}"

    return change


def first_is_zero(row: dict[str, Any], number: int) -> None:
    marked(0, "b")(row, number)
    if number == 0:
        row["image_phash"] = "0" * 16


@pytest.mark.parametrize(("bits", "num_left_out"), [(6, 3), (7, 0)])
def test_a_look_alike_of_another_sets_benchmark_is_not_trained_on(tmp_path, bits, num_left_out):
    packed(tmp_path / "datasets", "birds", first_is_zero)
    packed(tmp_path / "datasets", "scenes", alike(bits), size=(104, 72))
    metrics = merge(tmp_path)
    assert metrics.get("quarantined.leaked_look_alike", 0) == num_left_out
    details = {row["detail"] for row in read_rows(tmp_path / "quarantine.parquet")}
    told = f"{bits} of 64 hash bits from {'0' * 16} in the split benchmark of birds"
    assert details == ({told} if num_left_out else set())


def test_validation_is_stricter_than_training(tmp_path):
    for name, share in (("birds", 0.999), ("scenes", 0.0)):
        run = build_run(tmp_path / f"run-{name}", num_images=6, change=marked(0, name[0]))
        settings = {"val_share": share}
        for path in (tmp_path / f"run-{name}" / "captions").rglob("*.parquet"):
            table = pq.read_table(path)
            column = table.column_names.index("split")
            undecided = ["" if s == "train" else s for s in table["split"].to_pylist()]
            pq.write_table(table.set_column(column, table.schema.field("split"), [undecided]), path)
        longgrit = {"longgrit": tmp_path / "datasets" / name}
        run_step(load_step("pack"), run.inputs, longgrit, settings)
    sets = open_sets(tmp_path / "datasets")
    reasons = [
        Counter(why.reason.value for why in found.values()) for found in find_left_out(sets, 6)
    ]
    assert reasons == [Counter(), Counter(leaked_image=5, repeated_image=1)]


def test_card_and_report_say_what_each_set_is_and_what_was_left_out(crossed):
    merge(crossed, **FAR)
    card = (crossed / "merged" / "README.md").read_text()
    assert "| birds | benchmark | 2 | 6 | 66.7 % |" in card
    assert "| scenes | benchmark | 1 | 3 | 33.3 % |" in card
    assert "| scenes | 24 | 3 | 21, of 7 images |" in card
    assert "| scenes | train | leaked\\_image | 3 |" in card
    page = (crossed / "merged" / "report.html").read_text()
    assert 'href="sets/birds/report.html"' in page
    for name in ("birds", "scenes"):
        own = (crossed / "datasets" / name / "README.md").read_text()
        assert (crossed / "merged" / "sets" / name / "README.md").read_text() == own


def test_sets_of_the_same_images_are_refused_unless_that_is_wanted(crossed):
    with pytest.raises(GateError, match="24 of 48 regions"):
        merge(crossed)
    assert not (crossed / "merged").exists()


def test_another_process_merges_to_the_same_bytes(crossed):
    merge(crossed, **FAR)
    again = {name: crossed / f"again-{name}" for name in ("dataset", "quarantine")}
    again["quarantine"] = again["quarantine"].with_suffix(".parquet")
    arguments = [f"--{name}={path}" for name, path in again.items()]
    command = [
        "-m",
        "components.cli",
        "merge-data",
        f"--datasets={crossed / 'datasets'}",
        *arguments,
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run(
        [sys.executable, *command, "--set", "max_left_out_share=1"],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    assert (crossed / "again-quarantine.parquet").read_bytes() == (
        crossed / "quarantine.parquet"
    ).read_bytes()
    assert read_receipt(again["dataset"]).files == read_receipt(crossed / "merged").files


def test_a_killed_merge_goes_on_and_ends_in_the_same_bytes(crossed, monkeypatch):
    from components.data.merge_data import card

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(card, "write_pages", kill)
        with pytest.raises(KeyboardInterrupt):
            merge(crossed, **FAR)
    (draft,) = crossed.glob(".merged.draft-*")
    kept, half = sorted(draft.glob("train/*.tar"))[:2]
    half.unlink()  # a link of the set's own file, which is not to be written through
    half.with_name(f".{half.name}.partial").write_bytes(b"half")
    before = kept.stat().st_ino
    merge(crossed, **FAR)
    assert (crossed / "merged" / "train" / kept.name).stat().st_ino == before
    files = read_receipt(crossed / "merged").files
    (crossed / "merged").rename(crossed / "first")
    merge(crossed, **FAR)
    assert read_receipt(crossed / "merged").files == files


def test_a_set_whose_shard_was_changed_is_refused(apart):
    shard = next((apart / "datasets" / "birds").glob("train/*.tar"))
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="holds other bytes"):
        merge(apart)


def test_what_is_no_set_of_sets_is_refused_with_advice(apart):
    (apart / "datasets" / "scenes").rename(apart / "scenes")
    with pytest.raises(InputError, match=r"holds 1 data set.*resolve-data"):
        merge(apart)
    (apart / "scenes").rename(apart / "datasets" / "My Scenes")
    with pytest.raises(InputError, match="small letters"):
        merge(apart)
    (apart / "datasets" / "My Scenes").rename(apart / "datasets" / "scenes")
    (apart / "datasets" / "scenes" / "_receipt.json").unlink()
    with pytest.raises(InputError, match=r"no receipt.*--set uri="):
        merge(apart)
