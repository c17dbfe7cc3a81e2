"""What counts as done: the code's version, the content of what was read, what is still there."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.digests import RECEIPT_NAME
from components.core.errors import GateError, InputError, SettingsError
from components.core.receipts import read_receipt, require_intact
from components.core.run import is_published, run_step
from components.core.step import In, Metrics, Out, Step, StepSettings, source, step, threshold
from tests.receipts import write_receipt

CALLS: Counter[str] = Counter()


class Settings(StepSettings):
    """What is made, and when it is good enough."""

    text: str = "hello"
    min_share: float = threshold(0.0, "lowest share", ge=0, le=1)


def require_share(metrics: Mapping[str, int | float], settings: Settings) -> None:
    if metrics["share"] < settings.min_share:
        raise GateError("train: too little", {"lost": 1}, "Lower train.min_share.")


@step(image="train", gate=require_share)
def train(parent: In, checkpoint: Out, curves: Out, settings: Settings) -> Metrics:
    """Copy what is in the parent."""
    CALLS["train"] += 1
    (checkpoint / "deep").mkdir(parents=True, exist_ok=True)
    (checkpoint / "deep" / "model").write_text((parent / "weights").read_text() + settings.text)
    curves.write_text("step,loss\n")
    return {"share": 0.5, "per_s": CALLS["train"]}  # a number of this very run


@step(image="train")
def evaluate(checkpoint: In, evaluation: Out, settings: StepSettings) -> Metrics:
    """Count letters."""
    CALLS["evaluate"] += 1
    evaluation.mkdir(exist_ok=True)
    (evaluation / "size").write_text(str(len((checkpoint / "deep" / "model").read_text())))
    return {}


class ImportSettings(StepSettings):
    """Where it comes from."""

    uri: str = source("", "folder, file or s3:// prefix")
    endpoint_url: str = ""


@step(image="data")
def import_grit(exports: Out, settings: ImportSettings) -> Metrics:
    """Say that the source was looked at."""
    CALLS["import"] += 1
    exports.mkdir(exist_ok=True)
    (exports / "seen").write_text("seen")
    return {}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def make(run: Path, used: Step = train, **settings: object) -> None:
    outputs = {"checkpoint": run / "checkpoint", "curves": run / "curves.csv"}
    run_step(used, {"parent": run / "parent"}, outputs, settings)


def measure(run: Path) -> None:
    run_step(evaluate, {"checkpoint": run / "checkpoint"}, {"evaluation": run / "evaluation"}, {})


def test_another_version_of_the_code_is_other_work(run):
    make(run)
    make(run, replace(train, version=2))
    assert CALLS["train"] == 2
    assert read_receipt(run / "checkpoint").version == 2


def test_equal_bytes_made_again_are_the_same_input_whatever_the_metrics_say(run):
    make(run)
    measure(run)
    before = read_receipt(run / "checkpoint").metrics["per_s"]
    (run / "curves.csv").unlink()
    make(run)  # made again, with another speed
    assert read_receipt(run / "checkpoint").metrics["per_s"] != before
    measure(run)
    assert CALLS == {"train": 2, "evaluate": 1}


def test_an_artifact_counts_the_same_with_and_without_its_receipt(run):
    make(run)
    measure(run)
    (run / "checkpoint" / RECEIPT_NAME).unlink()
    measure(run)
    assert CALLS["evaluate"] == 1


def test_a_refused_result_is_published_when_the_threshold_is_lowered_without_starting_anew(run):
    with pytest.raises(GateError, match="too little"):
        make(run, min_share=0.9)
    (draft,) = run.glob(".checkpoint.draft-*")
    assert not (run / "checkpoint").exists()
    make(run, min_share=0.4)
    assert not draft.exists(), "the same draft was published"


def test_a_published_result_is_judged_again_by_other_thresholds_and_not_made_again(run):
    make(run, min_share=0.1)
    with pytest.raises(GateError, match="too little"):
        make(run, min_share=0.9)
    make(run, min_share=0.3)
    assert CALLS["train"] == 1
    receipt = read_receipt(run / "checkpoint")
    assert receipt.thresholds == {"min_share": 0.3}
    assert "min_share" not in receipt.settings


def test_a_runner_asks_a_step_again_whose_thresholds_changed(run):
    make(run, min_share=0.1)
    outputs = {"checkpoint": run / "checkpoint", "curves": run / "curves.csv"}
    asked = [
        is_published(train, {"parent": run / "parent"}, outputs, {"min_share": share})
        for share in (0.1, 0.2)
    ]
    assert asked == [True, False]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": lambda folder: flip(folder / "deep" / "model"),
    "a file cut short": lambda folder: os.truncate(folder / "deep" / "model", 1),
    "an empty file": lambda folder: (folder / "deep" / "model").write_bytes(b""),
    "a missing file": lambda folder: (folder / "deep" / "model").unlink(),
    "a folder in its place": lambda folder: (
        (folder / "deep" / "model").unlink(),
        (folder / "deep" / "model").mkdir(),
    ),
    "a table more": lambda folder: (folder / "more.parquet").write_bytes(b"PAR1"),
    "a shard more": lambda folder: (folder / "deep" / "00001.tar").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_input_is_not_read_and_the_message_names_file_and_step(run, damage):
    make(run)
    DAMAGES[damage](run / "checkpoint")
    with pytest.raises(InputError, match=r"checkpoint/(deep/)?(model|more|00001).*step train"):
        measure(run)
    assert not CALLS["evaluate"]
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize("damage", list(DAMAGES)[:5])
def test_a_damaged_output_is_made_again(run, damage, caplog):
    make(run)
    DAMAGES[damage](run / "checkpoint")
    make(run)
    assert CALLS["train"] == 2
    assert "model" in caplog.text
    assert (run / "checkpoint" / "deep" / "model").read_text() == "whello"


@pytest.mark.parametrize("damage", list(DAMAGES)[5:])
def test_an_output_with_data_that_nobody_vouches_for_is_not_up_to_date(run, damage):
    make(run)
    DAMAGES[damage](run / "checkpoint")
    with pytest.raises(InputError, match=r"(more|00001).*; move them away"):
        make(run)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_damaged_file_that_was_published_beside_a_folder_is_not_read(run, is_alone):
    make(run)
    inputs = curves = run / "curves.csv"
    if not is_alone:  # in a folder of such files, and the other folder is elsewhere
        inputs = run / "all"
        inputs.mkdir()
        curves, _ = (Path(shutil.copy(path, inputs)) for path in run.glob("*curves.csv*"))
    require_intact("quarantines", inputs)
    flip(curves)
    maker = "step train" if is_alone else "the step that wrote checkpoint"
    with pytest.raises(InputError, match=rf"curves\.csv holds other bytes.*{maker} wrote"):
        require_intact("quarantines", inputs)


def test_a_damaged_note_accuses_no_file(run):
    make(run)
    note = run / ".owner-of-curves.csv.note"
    note.write_text(note.read_text().replace('"sha256": "', '"sha256": "0'))
    require_intact("quarantines", run / "curves.csv")


def test_what_a_person_puts_beside_the_data_does_no_harm(run):
    make(run)
    (run / "checkpoint" / "notes.txt").write_text("mine")
    (run / "checkpoint" / ".DS_Store").write_text("")
    measure(run)
    assert CALLS["evaluate"] == 1


def test_only_so_much_of_a_very_large_artifact_is_read(run, monkeypatch):
    make(run)
    flip(run / "checkpoint" / "deep" / "model")
    monkeypatch.setenv("PIXCLIP_VERIFY_GIB", "0")
    measure(run)
    monkeypatch.setenv("PIXCLIP_VERIFY_GIB", "much")
    (run / "evaluation" / "size").unlink()
    with pytest.raises(SettingsError, match="PIXCLIP_VERIFY_GIB must be a number"):
        measure(run)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_receipt_with_any_flipped_bit_is_not_trusted(tmp_path_factory, position, bit):
    folder = tmp_path_factory.mktemp("published")
    write_receipt(folder, "train", "checkpoint", metrics={"loss": 0.25}, files={"a": "b"})
    content = bytearray((folder / RECEIPT_NAME).read_bytes())
    content[position % len(content)] ^= 1 << bit
    (folder / RECEIPT_NAME).write_bytes(content)
    receipt = read_receipt(folder)
    # White space around values may change without a change of meaning.
    assert receipt is None or receipt.metrics == {"loss": 0.25}


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "null", "[]", "{}", '{"checksum": 1}', '"text"', "\x00", '{"files": null}'],
)
def test_what_is_no_receipt_is_not_trusted(tmp_path, content, caplog):
    (tmp_path / RECEIPT_NAME).write_text(content)
    assert read_receipt(tmp_path) is None
    assert "is damaged" in caplog.text


def test_an_altered_receipt_is_not_trusted(run):
    make(run)
    path = run / "checkpoint" / RECEIPT_NAME
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"metrics": {"share": 1.0}}))
    assert read_receipt(run / "checkpoint") is None


def bring(run: Path, uri: Path | str, endpoint_url: str = "") -> None:
    settings = {"uri": str(uri), "endpoint_url": endpoint_url}
    run_step(import_grit, {}, {"exports": run / "exports"}, settings)


CHANGES = {
    "the content of a file": lambda folder: (folder / "a.parquet").write_text("B"),
    "a file more": lambda folder: (folder / "b.parquet").write_text("b"),
    "a file less": lambda folder: (folder / "sub" / "c.parquet").unlink(),
    "a name": lambda folder: (folder / "a.parquet").rename(folder / "z.parquet"),
    "what a link leads to": lambda folder: (folder.parent / "disk" / "d").write_text("D"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_is_imported_anew_even_with_equal_sizes_and_times(run, change):
    folder = run / "source"
    (folder / "sub").mkdir(parents=True)
    (run / "disk").mkdir()
    for path in (folder / "a.parquet", folder / "sub" / "c.parquet", run / "disk" / "d"):
        path.write_text("a")
    (folder / "link").symlink_to(run / "disk")
    bring(run, folder)
    bring(run, folder)
    assert CALLS["import"] == 1
    CHANGES[change](folder)
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    bring(run, folder)
    assert CALLS["import"] == 2


def test_unfinished_files_of_a_source_do_not_count(run):
    (run / "source").mkdir()
    bring(run, run / "source")
    (run / "source" / ".part.parquet.crdownload").write_text("half")
    bring(run, run / "source")
    assert CALLS["import"] == 1


def test_a_link_that_leads_back_is_told_and_ends(run, caplog):
    folder = run / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "nowhere").symlink_to(run / "gone")
    bring(run, folder)
    assert "up leads back to a folder above it" in caplog.text
    assert "nowhere is a link that leads nowhere" in caplog.text


def test_a_changed_object_of_an_s3_store_is_imported_anew(run, s3_endpoint):
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="up-to-date")
    for body, count in ((b"one", 1), (b"one", 1), (b"two", 2)):
        client.put_object(Bucket="up-to-date", Key="set/part.parquet", Body=body)
        bring(run, "s3://up-to-date/set", s3_endpoint)
        assert CALLS["import"] == count
    bring(run, "s3://up-to-date/set/part.parquet", s3_endpoint)  # a single object
    with pytest.raises(InputError, match="cannot read s3://not-there/none"):
        bring(run, "s3://not-there/none", s3_endpoint)
