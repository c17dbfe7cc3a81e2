"""No image that an evaluation set tests with stays in FineHARD: `decontaminate` stands between."""

import shutil

import pyarrow.parquet as pq

from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import read_rows
from data_contracts.engine.tables import list_tables
from tests.finehard_source import write_finehard


def test_rows_of_a_test_image_go_and_the_others_keep_all_their_texts(tmp_path, run):
    annotations, images = write_finehard(tmp_path, 24)
    made = run(annotations, images)
    tests = tmp_path / "urban1k"
    tests.mkdir()
    shutil.copy(images / "coyo_image_0/00001/000010008.jpg", tests / "a.jpg")
    outputs = {"uncontaminated": tmp_path / "run/uncontaminated"}
    outputs["quarantine"] = tmp_path / "run/quarantine/decontaminate.parquet"
    receipt = run_step(
        load_step("decontaminate"),
        {"candidates": made.outputs["captions"], "images": made.outputs["images"]},
        outputs,
        {"evaluation_images": str(tests)},
    )
    assert receipt.metrics["quarantined.leaked_image"] == 4
    url = "file:///coyo_image_0/00001/000010008.jpg"
    kept = [row for row in made.rows if row["url"] != url]
    assert list(read_rows(outputs["uncontaminated"])) == kept
    assert len(kept) == 23 * 4
    before, after = (
        pq.read_schema(list_tables(folder)[0])
        for folder in (made.outputs["captions"], outputs["uncontaminated"])
    )
    assert after == before
    packed = run_step(
        load_step("pack"),
        {
            "captions": outputs["uncontaminated"],
            "images": made.outputs["images"],
            "quarantines": tmp_path / "run/quarantine",
        },
        {"longgrit": tmp_path / "run/finehard"},
        {"dataset": "finehard", "source": "finehard", "benchmark_regions": 0},
    )
    assert packed.metrics["regions_out"] == 23 * 4
    card = (tmp_path / "run/finehard/README.md").read_text()
    assert "| decontaminate | 96 | 92 | 4 |" in card
