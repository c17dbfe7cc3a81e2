import pytest
import yaml

from components.core.step import load_step
from components.data.pack.report import markdown_cell
from components.data.pack.settings import PackSettings
from tests.receipts import write_receipt

PACK = load_step("pack")


def card_of(run, **settings):
    longgrit = run.folder / "longgrit"
    longgrit.mkdir()
    options = {"val_share": 0.3, "benchmark_max_share": 0.3} | settings
    PACK.function(**run.inputs, longgrit=longgrit, settings=PackSettings(**options))
    return (longgrit / "README.md").read_text()


def test_the_front_matter_tells_the_hub_the_files_of_every_split(make_run):
    _, front, _ = card_of(make_run()).split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["license"] == "other"
    assert fields["size_categories"] == ["n<1K"]
    files = {item["split"]: item["path"] for item in fields["configs"][0]["data_files"]}
    assert files == {split: f"{split}/*.tar" for split in ("train", "val", "benchmark")}


def test_an_empty_split_is_not_named_in_the_front_matter(make_run):
    _, front, _ = card_of(make_run(), val_share=0).split("---\n", 2)
    files = yaml.safe_load(front)["configs"][0]["data_files"]
    assert [item["split"] for item in files] == ["train", "benchmark"]


def test_datasets_opens_the_data_set_by_its_card(make_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    run = make_run()
    card_of(run)
    loaded = datasets.load_dataset(str(run.folder / "longgrit"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "val", "benchmark"}
    assert sum(len(sample["json"]["regions"]) for sample in loaded["train"]) == 3 * len(
        loaded["train"]
    )
    assert loaded["train"][0]["jpg"].size == (96, 72)


def test_the_card_counts_splits_reasons_words_and_who_described(make_run):
    card = card_of(make_run())
    assert "36 regions of 12 composed scenes" in card
    assert "| ingest | 40 | 38 | 2 |" in card
    assert r"| ingest | http\_404 | 2 |" in card
    assert "| merge | embedded | rules |  | 1 | 36 |" in card
    assert "| mask | record | | | | 36 |" in card
    assert "| long | 30 | 30.0 | 30 |" in card
    assert "tuxpaint-stamps-default" in card


def test_the_cost_comes_from_the_receipts_of_all_groups(make_run):
    run = make_run()
    for group in ("00000", "00001"):
        metrics = {
            "num_requests": 900,
            "prompt_tokens": 6000,
            "completion_tokens": 500,
            "cost_usd": 0.09,
        }
        write_receipt(run.inputs["captions"] / group, "describe", "captions", metrics=metrics)
    card = card_of(run)
    assert "1,800 requests, 12,000 tokens read, 1,000 tokens written, 0.18 US dollars" in card
    assert "(0.00500 per region kept)" in card


def test_the_licence_follows_the_source(make_run):
    card = card_of(make_run(), source="grit", licence_note="Made for research only.")
    assert "MS-PL" in card
    assert "Made for research only." in card
    assert "pasted" not in card


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("two\nlines", "two lines"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("`code`", r"\`code\`"),
    ],
)
def test_a_cell_cannot_leave_its_table(text, cell):
    assert markdown_cell(text) == cell
