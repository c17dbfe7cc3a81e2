"""Rows that nobody would write by hand: what `pack` and its pages make of them."""

import json
import math

import pytest

from components.core.counts import quarantine_row, write_quarantine
from components.core.errors import InputError
from components.core.shards import write_shard
from components.core.step import load_step
from components.core.tables import read_rows, storable, write_rows
from components.data.export import read_samples
from components.data.pack.settings import PackSettings
from components.orchestration.summary import read_cost
from data_contracts.captions import SCHEMA

PACK = load_step("pack")
ODD = "a\x00b\x1b[31m\u202ec\ufeff\u2028d\ud800e<b>&amp;\ufffe"


def rewritten(run, **changes):
    """The captions of a run with changes in their first row."""
    rows = list(read_rows(run.inputs["captions"]))
    for path in run.inputs["captions"].rglob("*.parquet"):
        path.unlink()
    rows[0] |= changes
    write_rows(run.inputs["captions"] / "00000" / "part-00000.parquet", rows, SCHEMA)


def packed(run, **settings):
    longgrit = run.folder / "longgrit"
    longgrit.mkdir()
    PACK.function(**run.inputs, longgrit=longgrit, settings=PackSettings(**settings))
    return longgrit


def test_odd_characters_come_through_and_every_reader_takes_them(make_run):
    run = make_run()
    url = f"https://a.example/{ODD}"
    rewritten(run, phrase=ODD, image_caption=ODD, url=url, mask_score=math.nan)
    longgrit = packed(run, licence_note=ODD)
    phrases = {
        region["phrase"]
        for split in ("train", "val", "benchmark")
        for sample in read_samples(longgrit, split)
        for region in sample.content["regions"]
    }
    assert str(storable(ODD)) in phrases
    for name in ("report.html", "README.md"):
        text = (longgrit / name).read_bytes().decode()
        assert "d\ufffd<b>" not in text
        assert not set(text) & set("\x00\x1b\ufffe")


def test_a_provenance_that_is_no_object_names_its_region(make_run):
    for provenance in ('{"merge": 7}', "{broken}", '{"a":' * 5000 + "}" * 5000, "{" * 100 + "}"):
        run = make_run()
        rewritten(run, provenance=provenance)
        region = next(iter(read_rows(run.inputs["captions"])))["region_id"]
        with pytest.raises(InputError, match=f"provenance of region {region} is damaged"):
            packed(run)
        (run.folder / "longgrit").rename(run.folder / f"longgrit-{abs(hash(provenance))}")


@pytest.mark.parametrize(
    "row",
    [
        "{broken}",
        "{" + '"a":{' * 3000 + "}" * 3001,
        json.dumps({"box_xyxy": [1, 2], "long_caption": {"no": "text"}}),
        json.dumps({"box_norm": [None, "x", {}, []], "object_caption": 7}),
        json.dumps({"box_xyxy": [1e308, -1e308, 1e308, 10**400]}),
    ],
)
def test_a_dropped_row_that_cannot_be_read_any_more_is_shown_without_its_box(make_run, row):
    run = make_run()
    first = next(iter(read_rows(run.inputs["captions"])))
    dropped = quarantine_row("describe", first, "markup", ODD) | {"row": row, "reason": "odd_row"}
    write_quarantine(run.inputs["quarantines"] / "odd.parquet", [dropped])
    assert "odd_row" in (packed(run) / "report.html").read_text()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"total": 7}', '{"accepted": 1, "total": {"requests": "x"}}']
)
def test_a_damaged_ledger_is_named(tmp_path, content):
    (tmp_path / "00000.json").write_text(content)
    with pytest.raises(InputError, match=r"ledger .*00000\.json.*run describe again"):
        read_cost(tmp_path)


def test_a_shard_of_images_that_is_damaged_is_named(make_run):
    run = make_run()
    tar = next(run.inputs["images"].rglob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(InputError, match=rf"{tar.name} is no tar or is damaged"):
        packed(run)


def test_lone_surrogates_in_a_sample_become_the_mark_for_them(tmp_path):
    write_shard(tmp_path / "0.tar", [{"__key__": "a", "json": {"text": "x\ud800y"}}])
    assert b"\\ud" not in (tmp_path / "0.tar").read_bytes()
    assert "x\ufffd".encode() in (tmp_path / "0.tar").read_bytes()
