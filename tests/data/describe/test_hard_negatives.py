"""Wrong captions of described regions: what is asked and kept, and that no row is lost."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from describe_world import World, make_part_world, part_settings_for
from llm_server import RIGHT_CAPTIONS, LlmServer, Reply, honest_answer
from PIL import Image

from components.core.errors import GateError
from components.core.step import load_step
from components.core.tables import read_rows, write_rows
from components.data.describe.flow import samples_of
from components.data.describe.hard_negatives.embedded import EmbeddedContraster
from components.data.describe.hard_negatives.flow import ContrastFlow
from components.data.describe.hard_negatives.settings import HardNegativeSettings
from components.data.describe.pipeline import build_stages
from components.data.describe.scenes import Region, Scene
from components.data.describe.settings import DescribePartsSettings
from data_contracts.captions import SCHEMA as CAPTIONS
from data_contracts.contrasted import SCHEMA
from pixclip.masks import encode_mask
from tests.receipts import write_receipt

STEP = load_step("make_hard_negatives")
PARTS = {f"{image}-{index:02d}" for image in (0, 1) for index in (1, 2, 3)}


@dataclass(frozen=True)
class Contrasting:
    """Captions of two images with three parts each, and where runs over them write."""

    folder: Path
    images: Path

    def run(self, settings: HardNegativeSettings, name: str = "out") -> "Contrasted":
        base = self.folder / name
        outputs = {"contrasted": base / "contrasted", "ledger": base / "ledger.json"}
        metrics = STEP.function(
            captions=self.captions, images=self.images, **outputs, settings=settings
        )
        STEP.judge(metrics, settings)
        return Contrasted(base, metrics)

    @property
    def captions(self) -> Path:
        return self.folder / "captions" / "00000"

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(read_rows(self.captions))

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_rows(self.captions / "part-00000.parquet", rows, CAPTIONS)


@dataclass(frozen=True)
class Contrasted:
    """What a run wrote."""

    folder: Path
    metrics: dict[str, int | float]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["region_id"]: row for row in read_rows(self.folder / "contrasted")}

    @property
    def left_out(self) -> list[dict[str, str]]:
        lines = (self.folder / "contrasted" / "_left_out.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def reasons(self) -> dict[str, int]:
        return {
            name.removeprefix("negatives.left_out."): int(count)
            for name, count in self.metrics.items()
            if name.startswith("negatives.left_out.")
        }


@pytest.fixture
def described(tmp_path) -> Contrasting:
    """Parts with the captions of a server's models."""
    world = make_part_world(tmp_path / "described")
    with LlmServer() as models:
        result = world.run(part_settings_for(models.url))
    made = Contrasting(tmp_path, world.inputs["images"])
    rows = result.captions
    made.rewrite(rows)
    RIGHT_CAPTIONS.clear()
    for row in rows:
        RIGHT_CAPTIONS.setdefault(row["phrase"], set()).add(row["short_caption"])
    return made


@pytest.fixture
def measured(tmp_path) -> Contrasting:
    """Parts with captions by rules."""
    world: World = make_part_world(tmp_path / "described")
    made = Contrasting(tmp_path, world.inputs["images"])
    made.rewrite(world.run(DescribePartsSettings()).captions)
    return made


def asking(url: str, **changes: Any) -> HardNegativeSettings:
    stages = {
        name: {
            "endpoints": (url,),
            "model": f"{name}-model",
            "prompt_usd_per_million": 1.0,
        }
        for name in ("change", "verify_change")
    }
    patience = {"request_timeout_s": 5.0, "probe_interval_s": 0.1, "give_up_after_s": 20.0}
    usual = {"describer": "endpoints", "min_contrasted_share": 0.0}
    return HardNegativeSettings(**{**usual, **stages, **patience, **changes})


def answering(stage: str, change):
    """A fault that changes the honest answers of a stage."""

    def fault(asked):
        if asked.stage != stage:
            return None
        return Reply(json.dumps(change(honest_answer(asked))))

    return fault


def test_every_row_stays_as_it_is_and_every_part_gets_wrong_captions(described, server):
    result = described.run(asking(server.url))
    before = {row["region_id"]: row for row in described.rows}
    assert list(result.rows) == list(before)
    assert set(result.rows["0-01"]) == set(SCHEMA.names)
    for name, row in result.rows.items():
        untouched = set(CAPTIONS.names) - {"provenance", "prompt_tokens", "cost_usd"}
        untouched -= {"completion_tokens"}
        assert {n: row[n] for n in untouched} == {n: before[name][n] for n in untouched}
        assert len(row["hard_negatives"]) == (3 if name in PARTS else 0)
        assert row["short_caption"] not in row["hard_negatives"]


def test_a_part_takes_two_requests_and_a_whole_image_none(described, server):
    result = described.run(asking(server.url))
    captions = {row["short_caption"] for row in described.rows if row["region_id"] in PARTS}
    assert server.stages() == {"change": len(captions), "verify_change": 6}  # equal ones ask once
    shown = {asked.stage: len(asked.pictures) for asked in server.asked}
    assert shown == {"change": 0, "verify_change": 2}
    assert result.metrics["regions_without_negatives.whole_image"] == 2


def test_wrong_captions_made_kept_and_left_out_add_up(described, server):
    result = described.run(asking(server.url))
    assert result.metrics["negatives"] == 6 * 3
    assert result.reasons() == {"spare": 6 * 2}
    assert len(result.left_out) == 12
    assert result.metrics["regions_in"] == result.metrics["regions_out"] == 8


def test_the_verifier_judges_the_right_caption_among_the_wrong_ones(described, server):
    described.run(asking(server.url))
    right = {row["short_caption"] for row in described.rows}
    places = []
    for asked in server.asked:
        if asked.stage == "verify_change":
            quoted = re.findall('[0-9][.] <untrusted>(".*?")</untrusted>', asked.text)
            captions = list(map(json.loads, quoted))
            assert len(captions) == 6
            places += [number for number, text in enumerate(captions) if text in right]
    assert len(places) == 6
    assert len(set(places)) > 1, "its place would tell which one is right"


def test_a_wrong_caption_that_fits_the_region_is_left_out(described, server):
    def all_but_one_fit(answer):
        for said in answer["captions"][1:]:
            said["fits"] = True
        return {"captions": [said | {"fits": True} for said in answer["captions"]]}

    server.fault = answering("verify_change", all_but_one_fit)
    result = described.run(asking(server.url))
    assert result.reasons() == {"not_wrong": 6 * 5}
    assert result.metrics["regions_without_negatives.none_left"] == 6
    assert {one["detail"] for one in result.left_out} == {"As seen."}


def test_a_verifier_that_finds_fault_with_everything_is_not_believed(described, server):
    def none_fits(answer):
        return {"captions": [said | {"fits": False} for said in answer["captions"]]}

    server.fault = answering("verify_change", none_fits)
    result = described.run(asking(server.url))
    assert result.metrics["negatives"] == 0
    assert result.reasons() == {"right_refused": 6 * 5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"same_thing": False}, "other_thing"),
        ({"valid_english": False}, "poor_english"),
    ],
)
def test_what_is_of_something_else_or_no_english_is_left_out(described, server, change, reason):
    server.fault = answering(
        "verify_change",
        lambda answer: {"captions": [said | change for said in answer["captions"]]},
    )
    assert set(described.run(asking(server.url)).reasons()) == {reason}


def test_an_answer_that_does_not_judge_every_caption_costs_the_region_its_wrong_captions(
    described, server
):
    server.fault = answering("verify_change", lambda answer: {"captions": answer["captions"][:-1]})
    result = described.run(asking(server.url))
    assert result.metrics["regions_without_negatives.invalid_answer"] == 6
    assert result.metrics["regions_out"] == 8


def test_changes_that_break_the_rules_are_not_shown_to_the_verifier(described, server):
    def paraphrased(answer):
        first, *others = answer["changes"]
        return {"changes": [first | {"caption": f"here is {first['caption']}"}, *others]}

    server.fault = answering("change", paraphrased)
    result = described.run(asking(server.url))
    assert result.reasons() == {"not_one_change": 6, "spare": 6}


def test_an_attribute_that_is_not_wanted_is_left_out(described, server):
    result = described.run(asking(server.url, attributes=("shape",)))
    assert result.reasons() == {"other_attribute": 6 * 5}


def test_a_second_run_asks_nothing_again(described, server):
    first = described.run(asking(server.url)).rows
    server.forget()
    assert described.run(asking(server.url)).rows == first
    assert not server.asked


def test_cost_and_provenance_are_added_to_those_of_describing(described, server):
    before = {row["region_id"]: row for row in described.rows}
    told = {"num_requests": 1000}
    write_receipt(described.captions, "describe_parts", "captions", metrics=told)
    result = described.run(asking(server.url))
    row = result.rows["0-01"]
    assert row["prompt_tokens"] == before["0-01"]["prompt_tokens"] + 2 * 100
    stages = set(json.loads(row["provenance"]))
    assert stages == {"part", "verify_part", "change", "verify_change"}
    assert result.metrics["num_requests"] == 1000 + 6 * 2
    ledger = json.loads((result.folder / "ledger.json").read_text())
    assert ledger["negatives"] == 18
    assert ledger["stages"]["verify_change"]["requests"] == 6


def test_a_result_without_wrong_captions_is_not_published(described, server):
    server.fault = answering("change", lambda _: {"changes": []})
    with pytest.raises(GateError, match="only 0 of 6 regions have a wrong caption"):
        described.run(asking(server.url, min_contrasted_share=0.1))


def test_rules_change_a_colour_or_the_part_and_keep_every_row(measured):
    result = measured.run(HardNegativeSettings())
    assert len(result.rows) == 8
    for name in PARTS:
        row = result.rows[name]
        assert row["hard_negatives"], row["short_caption"]
        assert row["short_caption"] not in row["hard_negatives"]
        assert json.loads(row["provenance"])["change"]["describer"] == "embedded-rules"


@pytest.mark.parametrize(
    ("phrase", "caption", "changed"),
    [
        ("a mandarin orange", "a mandarin orange, mostly {colour}, in a bowl", {"mandarin orange"}),
        ("an orange", "an orange, mostly {colour}", {"orange"}),
        ("a {colour} vase", "a {colour} vase", {"vase"}),
        ("a {colour} vase", "a {colour} vase, mostly {colour}", None),
        ("a Red Fox", "a Red Fox", None),
    ],
)
def test_only_words_that_are_colours_of_the_thing_are_changed(measured, phrase, caption, changed):
    rows = [row for row in measured.rows if row["region_id"] == "0-01"]
    for row in rows:
        row |= {
            "phrase": phrase.format(colour="red"),
            "short_caption": caption.format(colour="red"),
        }
    measured.rewrite(rows)
    settings = HardNegativeSettings(attributes=("colour",), min_contrasted_share=0.0)
    (row,) = measured.run(settings).rows.values()
    assert bool(row["hard_negatives"]) == bool(changed)
    assert all(name in text for text in row["hard_negatives"] for name in changed or ())


def test_a_colour_that_a_few_pixels_come_near_is_no_wrong_one():
    image = np.full((50, 50, 3), (200, 20, 20), dtype=np.uint8)
    image[:4] = (20, 160, 20)  # 8 % of the mask: too few to be named, too many to be denied
    mask = encode_mask(np.ones((50, 50), dtype=bool))
    texts = {"phrase": "a vase", "image_caption": "", "short_caption": "a vase, mostly red"}
    region = Region("1-00", "", 50, 50, (0.0, 0.0, 50.0, 50.0), rle=mask, **texts)
    contraster = EmbeddedContraster(HardNegativeSettings(num_negatives=10, num_asked=10))
    (contrast,) = contraster.describe(Scene("", Image.fromarray(image), (region,)))
    assert "a vase, mostly blue" in contrast.negatives
    assert "a vase, mostly green" not in contrast.negatives


def test_places_are_changed_only_if_wanted(measured):
    def places(attribute):
        settings = HardNegativeSettings(attributes=(attribute,), min_contrasted_share=0.0)
        result = measured.run(settings, attribute)
        found = result.rows.values()
        ends = [(row["short_caption"].split()[-6:], row["hard_negatives"]) for row in found]
        return sum(text.split()[-6:] != end for end, texts in ends for text in texts)

    assert places("place") > 0
    assert places("colour") == 0


def test_rows_of_an_image_that_cannot_be_used_stay_without_wrong_captions(measured):
    rows = measured.rows
    for row in rows:
        if row["region_id"].startswith("1-"):
            row["image_width_px"] += 1
            row["mask_size"] = [row["mask_size"][0], row["mask_size"][1] + 1]
    measured.rewrite(rows)
    result = measured.run(HardNegativeSettings())
    assert len(result.rows) == 8
    assert result.metrics["regions_without_negatives.invalid_mask"] == 4


def test_every_stage_has_a_sample_request():
    settings = asking("http://127.0.0.1:1/v1")
    for make in samples_of(build_stages(settings, ContrastFlow)).values():
        assert all(json.loads(body)["messages"] for body in make())


def test_a_run_cannot_keep_more_than_it_asks_for():
    with pytest.raises(ValueError, match="num_asked must not be below num_negatives"):
        HardNegativeSettings(num_negatives=4, num_asked=3)
