"""Answers cost money: what was answered once is not asked again, whatever changed meanwhile."""

import json

import pytest
from describe_world import settings_for
from llm_server import Asked, LlmServer, Reply

from components.core.errors import GateError
from components.core.run import run_step
from components.core.step import load_step
from components.data.describe.step import require_accepted_share


def run(world, server: LlmServer, **changes: object) -> dict[str, int | float]:
    """Run the step as the command line does; gives the metrics."""
    settings = settings_for(server.url, **changes).model_dump(mode="json")
    return run_step(load_step("describe"), world.inputs, world.outputs(), settings).metrics


def ask(world, server: LlmServer, **changes: object) -> dict[str, int | float]:
    """Run the step's function alone, which is much faster."""
    return world.run(settings_for(server.url, **changes)).metrics


def half_are_wrong(asked: Asked) -> Reply | None:
    verdict = {"consistent": False, "only_visible": True, "valid_english": True, "reason": "No."}
    is_wrong = asked.stage == "verify" and int(asked.key, 16) % 2
    return Reply(json.dumps(verdict)) if is_wrong else None


def test_following_the_advice_of_the_gate_asks_nothing_again(world, server):
    server.fault = half_are_wrong
    with pytest.raises(GateError, match=r"rejected_inconsistent \d.*lower describe\.min_accepted"):
        run(world, server, min_accepted_share=1.0)
    num_asked = len(server.asked)
    metrics = run(world, server, min_accepted_share=0.0)
    assert 0 < metrics["regions_out"] < 4
    assert len(server.asked) == num_asked


def test_a_published_result_is_judged_again_by_a_higher_share(world, server):
    server.fault = half_are_wrong
    run(world, server)
    num_asked = len(server.asked)
    with pytest.raises(GateError, match="regions were accepted"):
        run(world, server, min_accepted_share=1.0)
    assert world.outputs()["captions"].exists()
    assert len(server.asked) == num_asked


def test_the_gate_tells_the_reasons_from_the_metrics_alone():
    metrics = {"regions_in": 10, "regions_out": 1, "quarantined.markup": 2, "quarantined.x": 7}
    settings = settings_for("http://a/v1", min_accepted_share=0.2)
    with pytest.raises(GateError, match=r"only 1 of 10 regions.*\(x 7, markup 2\)"):
        require_accepted_share(metrics, settings)
    require_accepted_share({**metrics, "regions_out": 2}, settings)


def test_a_published_runs_answers_are_found_by_a_run_with_other_settings(world, server):
    run(world, server)
    server.forget()
    metrics = ask(world, server, merge={"temperature": 0.1})
    assert set(server.stages()) == {"merge"}
    assert metrics["num_requests"] == 20
    server.forget()
    ask(world, server, min_long_words=19)  # a word limit is in the prompt of the merge alone
    assert set(server.stages()) == {"merge"}
    server.forget()
    ask(world, server, max_short_words=19, verify={"prompt_usd_per_million": 3.0})
    assert set(server.stages()) == {"merge"}


def test_regions_that_come_later_are_asked_alone(world, server):
    rows = world.rows
    world.rewrite_regions(rows[:3])
    ask(world, server)
    server.forget()
    world.rewrite_regions(rows)
    assert ask(world, server)["regions_out"] == 4
    assert len(server.asked) == 5


def test_a_step_that_stopped_keeps_its_answers_for_other_settings(world, server):
    server.fault = lambda asked: Reply(status=402) if asked.stage == "merge" else None
    with pytest.raises(Exception, match="402"):
        ask(world, server)
    server.fault = None
    answered = {asked.key for asked in server.asked if asked.answered_at}
    assert ask(world, server, check={"temperature": 0.3})["regions_out"] == 4
    assert all(asked.nth == 1 for asked in server.asked if asked.key in answered)


def test_the_answers_lie_beside_the_ledger_or_where_they_are_told_to(
    world, server, tmp_path, monkeypatch
):
    run(world, server)
    assert (world.folder / "out" / "answers" / "00000.jsonl").is_file()
    world.run(settings_for(server.url, cache_folder=str(tmp_path / "cache")), "second")
    assert (tmp_path / "cache" / "00000.jsonl").is_file()
    monkeypatch.setenv("PIXCLIP_STATE_FOLDER", str(tmp_path / "state"))
    world.run(settings_for(server.url), "third")
    assert (tmp_path / "state" / "describe" / "answers" / "00000.jsonl").is_file()
    assert not list(world.folder.glob("*/captions/_work"))


def test_a_damaged_answer_is_asked_again_and_told(world, server, caplog):
    ask(world, server)
    path = world.folder / "out" / "answers" / "00000.jsonl"
    content = path.read_bytes()
    middle = content.index(b"caption", len(content) // 2)
    path.write_bytes(content[:middle] + b"C" + content[middle + 1 :])
    server.forget()
    assert ask(world, server, check={"temperature": 0.3})["regions_out"] == 4
    assert len([asked for asked in server.asked if asked.stage != "check"]) == 1
    assert "asked again" in caplog.text


def test_nothing_of_a_runs_speed_gets_into_captions_or_quarantine(tmp_path, world):
    results = []
    for latency_s in (0.0, 0.03):
        with LlmServer(half_are_wrong, latency_s=latency_s) as server:
            results.append(world.run(settings_for(server.url), f"run {latency_s}"))
    assert results[0].digests() == results[1].digests()
    assert results[0].metrics == results[1].metrics
