"""The step over HTTP: what comes out, what is asked, what the ledger says."""

import json
import random

import pytest
from describe_world import make_world, settings_for
from llm_server import Asked, LlmServer, Reply

from components.core.errors import GateError, SettingsError
from components.core.receipts import fingerprint
from components.core.run import run_step
from components.core.settings import parse_settings
from components.core.step import load_step
from data_contracts.captions import SCHEMA


def test_every_region_gets_its_captions_with_provenance_and_cost(world, server):
    result = world.run(settings_for(server.url))
    row = result.captions[0]
    assert [r["region_id"] for r in result.captions] == ["0-00", "0-01", "1-00", "1-01"]
    assert set(row) == set(SCHEMA.names)
    assert row["long_caption"].startswith(row["object_caption"])
    assert row["verdict"] == "accepted"
    assert row["verdict_reason"]
    provenance = json.loads(row["provenance"])
    assert list(provenance) == sorted(["object", "verify", "context", "merge", "check"])
    assert provenance["verify"]["model"] == "verify-model"
    assert provenance["verify"]["prompt"] == "verify.v1.j2"
    assert len(provenance["verify"]["request_hash"]) == 64
    assert row["prompt_tokens"] == 500
    assert row["cost_usd"] == pytest.approx((500 * 1 + 100 * 10) / 1e6)


def test_the_ledger_and_the_metrics_agree(world, server):
    server.fault = lambda asked: verdict(asked, consistent=is_even(asked))
    result = world.run(settings_for(server.url))
    ledger, metrics = result.ledger, result.metrics
    assert metrics["regions_in"] == 4 == ledger["regions_in"]
    assert ledger["total"]["requests"] == metrics["num_requests"] == len(server.asked)
    assert ledger["total"]["cost_usd"] == pytest.approx(metrics["cost_usd"])
    assert ledger["per_accepted_region"]["cost_usd"] == pytest.approx(
        metrics["cost_usd"] / metrics["regions_out"]
    )
    assert sum(s["requests"] for s in ledger["stages"].values()) == len(server.asked)
    assert sum(s["rejected"] for s in ledger["stages"].values()) == ledger["rejected"]


def is_even(asked: Asked) -> bool:
    return int(asked.key, 16) % 2 == 0


def verdict(
    asked: Asked, reason: str = "It names another object.", **changes: bool
) -> Reply | None:
    """A verdict of the verifier with some answers changed."""
    if asked.stage != "verify":
        return None
    answers = {"consistent": True, "only_visible": True, "valid_english": True, **changes}
    return Reply(json.dumps({**answers, "reason": reason}))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("consistent", "rejected_inconsistent"),
        ("only_visible", "rejected_invisible"),
        ("valid_english", "rejected_language"),
    ],
)
def test_a_rejected_region_is_quarantined_with_the_verifiers_reason(world, server, answer, reason):
    server.fault = lambda asked: verdict(asked, "The kettle is blue, not red.", **{answer: False})
    result = world.run(settings_for(server.url))
    assert set(result.reasons.values()) == {reason}
    assert all("The kettle is blue, not red." in row["detail"] for row in result.quarantine)
    assert result.captions == []
    assert set(server.stages()) == {"object", "verify"}, "nothing more is paid for"


@pytest.mark.parametrize("lost", ["object", "location"])
def test_a_merge_that_loses_object_or_location_is_dropped_by_the_judge(world, server, lost):
    kept = {"keeps_object": True, "keeps_location": True, f"keeps_{lost}": False, "reason": "Lost."}
    server.fault = lambda asked: Reply(json.dumps(kept)) if asked.stage == "check" else None
    assert set(world.run(settings_for(server.url)).reasons.values()) == {f"merge_lost_{lost}"}


def test_a_merge_about_something_else_is_dropped_before_the_judge_is_paid(world, server):
    other = {
        "long_caption": "There is nothing much and more to say of it here because everything else "
        "was left out by the writer of this text who had no time for us today.",
        "short_caption": "nothing much",
    }
    server.fault = lambda asked: Reply(json.dumps(other)) if asked.stage == "merge" else None
    assert set(world.run(settings_for(server.url)).reasons.values()) == {"merge_lost_object"}
    assert "check" not in server.stages()


def test_the_order_of_regions_and_the_speed_of_answers_change_no_caption(tmp_path):
    world = make_world(tmp_path, num_images=4, regions_per_image=2)
    slow = random.Random(1)
    results = []
    for name, concurrency in (("a", 1), ("b", 8)):
        with LlmServer(lambda asked: _late(asked, slow)) as server:
            results.append(world.run(settings_for(server.url, concurrency=concurrency), name))
        if name == "a":
            straight = {row["region_id"]: row for row in results[0].captions}
    assert results[0].digests() == results[1].digests()
    world.rewrite_regions(list(reversed(world.rows)))
    with LlmServer() as server:
        shuffled = world.run(settings_for(server.url), "c").captions
    assert [row["region_id"] for row in shuffled] == list(reversed(straight))
    assert {row["region_id"]: row for row in shuffled} == straight


def _late(asked: Asked, slow: random.Random) -> Reply | None:
    from llm_server import honest_answer

    return Reply(json.dumps(honest_answer(asked)), hang_s=slow.uniform(0, 0.03))


def test_a_second_run_asks_nothing_and_tells_the_same_cost(tmp_path, world, server):
    settings = settings_for(server.url, cache_folder=str(tmp_path / "cache"))
    first = world.run(settings, "first")
    num_asked = len(server.asked)
    second = world.run(settings, "second")
    assert len(server.asked) == num_asked
    assert second.digests() == first.digests()
    assert second.metrics == first.metrics
    assert second.ledger["total"] == first.ledger["total"]
    assert second.ledger["stages"]["object"]["cached"] == 4


def test_another_prompt_model_or_sampling_of_a_late_stage_asks_only_from_there(
    tmp_path, world, server
):
    cache = {"cache_folder": str(tmp_path / "cache")}
    world.run(settings_for(server.url, **cache), "first")
    server.asked.clear()
    world.run(settings_for(server.url, merge={"temperature": 0.1}, **cache), "second")
    assert set(server.stages()) == {"merge"}  # its answer came out the same: check is not asked


def test_twin_regions_are_asked_once(world, server):
    rows = world.rows[:1]
    world.rewrite_regions([rows[0], {**rows[0], "region_id": "0-99"}])
    result = world.run(settings_for(server.url))
    assert len(result.captions) == 2
    assert len(server.asked) == 5


def test_an_image_that_cannot_be_used_loses_only_its_own_regions(world, server):
    rows = world.rows
    for row in rows[:2]:
        row.update(image_width_px=95, mask_size=[64, 95])
    world.rewrite_regions(rows)
    result = world.run(settings_for(server.url))
    assert result.reasons == {"0-00": "invalid_mask", "0-01": "invalid_mask"}
    for row in rows[:2]:
        row.update(mask_counts=_full_mask_counts(64, 95))
    world.rewrite_regions(rows)
    result = world.run(settings_for(server.url), "again")
    assert result.reasons == {"0-00": "too_many_pixels", "0-01": "too_many_pixels"}
    assert len(result.captions) == 2


def _full_mask_counts(height_px: int, width_px: int) -> str:
    from pixclip.masks import box_mask, encode_mask

    return encode_mask(box_mask((0, 0, width_px, height_px), height_px, width_px)).counts


def test_a_result_that_lost_nearly_everything_is_refused(world, server):
    server.fault = lambda asked: verdict(asked, consistent=False)
    with pytest.raises(GateError, match=r"only 0 of 4 regions.*rejected_inconsistent 4"):
        world.run(settings_for(server.url, min_accepted_share=0.1))


def test_an_api_key_goes_to_the_server_and_nowhere_else(world, server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "s3cret-value")
    result = world.run(settings_for(server.url, verify={"api_key_env": "SOME_KEY"}))
    sent = {asked.stage: asked.body["authorization"] for asked in server.asked}
    assert sent["verify"] == "Bearer s3cret-value"
    assert sent["object"] is None
    written = b"".join(p.read_bytes() for p in world.folder.rglob("*") if p.is_file())
    assert b"s3cret-value" not in written
    assert result.captions


def test_an_api_key_that_a_server_quotes_is_not_kept(world, server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "s3cret-value")
    quoting = Reply(status=400, body=b"bad request; Authorization: Bearer s3cret-value")
    server.fault = lambda asked: quoting if asked.stage == "verify" else None
    result = world.run(settings_for(server.url, verify={"api_key_env": "SOME_KEY"}))
    assert "Bearer (the key)" in result.quarantine[0]["detail"]
    assert "s3cret-value" not in str(result.quarantine)


def test_a_missing_api_key_is_told_before_anything_is_asked(world, server):
    with pytest.raises(SettingsError, match=r"describe\.check\.api_key_env.*NO_SUCH_KEY"):
        world.run(settings_for(server.url, check={"api_key_env": "NO_SUCH_KEY"}))
    assert not server.asked


def test_endpoints_and_other_runtime_settings_do_not_make_a_finished_run_stale():
    step = load_step("describe")
    first, second = (
        settings_for(url, concurrency=places)
        for url, places in (("http://a/v1", 1), ("http://b", 9))
    )
    assert fingerprint(step, first, {}) == fingerprint(step, second, {})
    third = settings_for("http://a/v1", verify={"temperature": 0.5})
    assert fingerprint(step, first, {}) != fingerprint(step, third, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"describer": "endpoints"}, "object.endpoints, verify.endpoints"),
        ({"object": {"endpoints": ["ftp://host/v1"]}}, "base URL"),
        ({"object": {"endpoints": ["http://user:word@host/v1"]}}, "object.endpoints.*api_key_env"),
        ({"object": {"endpoints": ["http://host/v1?key=word"]}}, "object.endpoints.*api_key_env"),
        ({"object": {"endpoints": ["http://host/v1?version=1"]}}, "no query.*api_key_env"),
        ({"object": {"endpoints": ["http://host:0/v1"]}}, "port"),
        ({"object": {"endpoints": ["http://host:99999/v1"]}}, "object.endpoints"),
        ({"object": {"endpoints": ["http://ho st/v1"]}}, "blanks"),
        ({"object": {"endpoints": ["http://[::1/v1"]}}, "object.endpoints"),
        ({"object": {"unsent": ["model"]}}, "object.unsent"),
        ({"object": {"token_limit_name": "tokens"}}, "token_limit_name"),
        ({"cache_folder": "s3://bucket/answers"}, "cache_folder"),
        ({"merge": {"prompt": "../../secret.v1.j2"}}, "merge.prompt"),
        ({"min_long_words": 50, "max_long_words": 40}, "min_long_words"),
        ({"verify": {"modle": "x"}}, "did you mean 'model'"),
    ],
)
def test_nonsense_in_the_settings_is_refused_with_the_name_of_the_setting(settings, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(load_step("describe"), settings)


def test_a_params_file_that_changes_one_setting_keeps_the_others_of_its_stage():
    settings = parse_settings(load_step("describe"), {"merge": {"max_tokens": 1000}})
    assert settings.merge.prompt == "merge.v1.j2"
    assert settings.merge.temperature == 0.6


def test_what_the_step_writes_is_published(world, server):
    outputs = world.outputs()
    settings = settings_for(server.url).model_dump(mode="json")
    receipt = run_step(load_step("describe"), world.inputs, outputs, settings)
    assert receipt.metrics["regions_out"] == 4
    assert not (outputs["captions"] / "_work").exists()
    run_step(load_step("describe"), world.inputs, outputs, settings)
    assert len(server.asked) == 20, "a finished run is not repeated"
