"""Parts and whole images described: what is asked, what comes out, what is dropped."""

import json
import re

import pytest
from describe_world import World, make_part_world, part_settings_for
from llm_server import Reply

from components.data.describe.flow import samples_of
from components.data.describe.part_flow import PartFlow
from components.data.describe.pipeline import build_stages
from components.data.describe.settings import DescribePartsSettings
from components.data.llm.prompt import load_prompt
from data_contracts.captions import SCHEMA

COMMON = {"min_long_words": 12, "max_long_words": 120, "min_short_words": 2, "max_short_words": 20}
EMBEDDED = DescribePartsSettings(describer="embedded")


@pytest.fixture
def parts(tmp_path) -> World:
    return make_part_world(tmp_path)


def by_region(result):
    return {row["region_id"]: row for row in result.captions}


def test_every_part_and_every_whole_image_gets_its_captions(parts, server):
    rows = by_region(parts.run(part_settings_for(server.url)))
    assert set(rows) == {f"{image}-{index:02d}" for image in (0, 1) for index in range(4)}
    assert set(rows["0-01"]) == set(SCHEMA.names)
    assert "left eye" in rows["0-01"]["long_caption"]
    assert rows["0-01"]["object_caption"] == rows["0-01"]["long_caption"]
    assert rows["0-00"]["long_caption"].startswith("The photograph shows")
    told = {name: list(json.loads(rows[name]["provenance"])) for name in ("0-00", "0-01")}
    assert told == {"0-00": ["verify_whole", "whole"], "0-01": ["part", "verify_part"]}


def test_a_part_takes_two_requests_and_so_does_a_whole_image(parts, server):
    parts.run(part_settings_for(server.url))
    assert server.stages() == {"part": 6, "verify_part": 6, "whole": 2, "verify_whole": 2}


def test_a_super_class_is_asked_by_its_own_prompt_and_others_by_the_general_one(parts, server):
    rows = by_region(parts.run(part_settings_for(server.url)))
    prompts = {
        name: json.loads(rows[name]["provenance"])["part"]["prompt"] for name in ("0-01", "1-01")
    }
    assert prompts == {"0-01": "part_bird.v1.j2", "1-01": "part.v1.j2"}
    systems = {
        asked.body["messages"][0]["content"] for asked in server.asked if asked.stage == "part"
    }
    assert len(systems) == 2
    assert sum("ornithologist" in text for text in systems) == 1


def test_a_part_is_shown_cut_out_and_in_its_place_and_the_whole_alone(parts, server):
    parts.run(part_settings_for(server.url))
    shown = {asked.stage: len(asked.pictures) for asked in server.asked}
    assert shown == {"part": 2, "verify_part": 2, "whole": 1, "verify_whole": 1}


def test_a_caption_that_speaks_of_another_part_is_dropped(parts, server):
    def of_a_wing(asked):
        if asked.stage != "part" or "beak" not in asked.text.split("The part:")[1]:
            return None
        caption = "The wing is folded, dark brown, with two pale bars across its longest feathers."
        answer = {"caption": caption, "location": "It is at its side.", "short_caption": "a wing"}
        return Reply(json.dumps(answer))

    server.fault = of_a_wing
    result = parts.run(part_settings_for(server.url))
    assert result.reasons == {"0-02": "part_not_named", "1-02": "part_not_named"}
    assert result.metrics["regions_in"] == result.metrics["regions_out"] + 2


@pytest.mark.parametrize("stage", ["verify_part", "verify_whole"])
def test_what_the_verifier_refuses_is_dropped_with_its_reason(parts, server, stage):
    def refuse(asked):
        if asked.stage != stage:
            return None
        answers = {"consistent": False, "only_visible": True, "valid_english": True}
        return Reply(json.dumps({**answers, "reason": "It is green."}))

    server.fault = refuse
    result = parts.run(part_settings_for(server.url))
    is_whole = {name: name.endswith("-00") for name in result.reasons}
    assert len(is_whole) == (2 if stage == "verify_whole" else 6)
    assert set(is_whole.values()) == {stage == "verify_whole"}
    assert set(result.reasons.values()) == {"rejected_inconsistent"}
    assert all("It is green." in row["detail"] for row in result.quarantine)
    assert all(row["step"] == "describe_parts" for row in result.quarantine)


def test_a_second_run_asks_nothing_again(parts, server):
    settings = part_settings_for(server.url)
    first = parts.run(settings).digests()
    server.forget()
    assert parts.run(settings).digests() == first
    assert not server.asked


def test_rules_describe_parts_and_tell_the_whole_image_by_them(parts):
    result = parts.run(EMBEDDED)
    rows = by_region(result)
    assert len(rows) == 8
    for image in (0, 1):
        whole = rows[f"{image}-00"]
        assert whole["long_caption"].startswith("The picture shows a bird with three parts: ")
        assert re.search(r"left eye.*beak.*tail", whole["long_caption"])
        assert whole["short_caption"] == "a bird with a left eye, a beak and a tail"
        assert len(whole["long_caption"].split()) > len(whole["short_caption"].split())
        for index, name in ((1, "left eye"), (2, "beak"), (3, "tail")):
            assert name in rows[f"{image}-{index:02d}"]["long_caption"]


def test_rules_leave_a_rejected_part_out_of_the_whole_image(parts):
    rows = parts.rows
    rows[1]["phrase"] = "\u4e00\u4e8c\u4e09"
    parts.rewrite_regions(rows)
    result = parts.run(EMBEDDED)
    assert result.reasons == {"0-01": "rejected_language"}
    assert by_region(result)["0-00"]["short_caption"] == "a bird with a beak and a tail"


def test_an_image_whose_parts_are_all_rejected_is_told_by_its_colours(parts):
    rows = [row for row in parts.rows if row["box_source"] == "image"]
    parts.rewrite_regions(rows)
    result = parts.run(EMBEDDED)
    texts = [row["long_caption"] for row in result.captions]
    assert all(text.startswith("The picture shows a bird. As a whole") for text in texts)
    assert [row["short_caption"] for row in result.captions] == ["a bird", "a bird"]


@pytest.mark.parametrize("name", ["part", "part_bird", "part_car", "part_aircraft"])
def test_prompts_of_parts_say_nothing_of_a_region_in_their_instructions(name):
    prompt = load_prompt(f"{name}.v1.j2", COMMON)
    text = prompt.region_text({"phrase": "left\nwing", "image_caption": "A <b>bird</b>"}, {})
    assert "untrusted" in prompt.instructions
    assert "\n" not in re.findall("<untrusted>(.*?)</untrusted>", text)[1]
    assert "<b>" not in text


def test_every_stage_has_a_sample_request():
    settings = part_settings_for("http://127.0.0.1:1/v1")
    for make in samples_of(build_stages(settings, PartFlow)).values():
        assert all(json.loads(body)["messages"] for body in make())
