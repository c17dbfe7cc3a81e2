"""Answers that mean "nobody is served": the step stops and says why, and no region pays for it."""

import json
import threading

import pytest
from describe_world import settings_for
from llm_server import Asked, LlmServer, Reply, honest_answer

from components.core.run import run_step
from components.core.step import load_step
from components.data.llm.client import EndpointError

PAGE = b"<!DOCTYPE html><html><body><h1>We will be back in a minute</h1></body></html>"


def error(status: int, message: str = "no", **fields: object) -> Reply:
    """An error as OpenAI's servers write it."""
    body = {"error": {"message": message, **fields}}
    return Reply(status=status, body=json.dumps(body).encode())


UNSERVED = {
    "402": error(402, "Insufficient Balance", code="invalid_request_error"),
    "402 without JSON": Reply(status=402, body=b"pay first"),
    "402 inside 200": error(200, "insufficient credits", code=402),
    "quota at 429": error(429, "You exceeded your current quota", code="insufficient_quota"),
    "billing at 400": error(400, "Billing hard limit reached", code="billing_hard_limit_reached"),
    "credit at 400": error(400, "Your credit balance is too low to access the API."),
    "deactivated at 401": error(401, "The account was deactivated", code="account_deactivated"),
    "suspended at 403": error(403, "Your account org-1 is suspended, recharge it."),
    "key at 400": error(400, "API key not valid. Please pass a valid API key."),
    "key behind a proxy's 500": error(500, "litellm.AuthenticationError: Incorrect API key given"),
    "model at 400": error(400, "The model `object-model` does not exist.", type="NotFoundError"),
    "model by vLLM": Reply(
        status=404, body=b'{"object":"error","message":"The model `x` does not exist.","code":404}'
    ),
    "arrears by code": error(200, "Access denied, see the account", code="Arrearage"),
    "410": error(410, "This model was retired"),
    "413": Reply(status=413, body=b"<html><h1>413 Request Entity Too Large</h1></html>"),
    "451": error(451, "unavailable for legal reasons"),
    "501": error(501, "not implemented"),
    "captive portal": Reply(status=511, body=b"<html>Log in to the network</html>"),
    "budget of a proxy at 400": error(400, "Budget has been exceeded! Current cost: 10.5"),
    "credit limit at 429": error(429, "Credit limit exceeded, go to billing", type="credit_limit"),
    "credits used up at 429": error(429, "Your prepayment credits are depleted."),
    "spend limit at 400": error(400, "Your organization has reached its spend limit"),
    "usage limit at 400": error(400, "You have reached your specified API usage limits."),
    "no money in Chinese": error(429, "您的账户已欠费，请充值后重试。", code="1113"),
    "list of errors": Reply(status=403, body=b'{"errors": [{"message": "no access"}]}'),
}


@pytest.mark.parametrize("reply", UNSERVED.values(), ids=UNSERVED)
def test_when_nobody_is_served_any_more_the_step_stops_and_a_rerun_goes_on(world, server, reply):
    server.fault = lambda asked: reply if asked.stage == "merge" else None
    settings = settings_for(server.url, concurrency=2)
    with pytest.raises(EndpointError, match=r"describe\.merge: http.* serves nobody: status \d+"):
        world.run(settings)
    answered = {asked.key for asked in server.asked if asked.answered_at and asked.stage != "merge"}
    assert answered
    server.fault = None
    assert len(world.run(settings).captions) == 4
    assert all(asked.nth == 1 for asked in server.asked if asked.key in answered)


def test_nothing_is_published_when_nobody_is_served(world, server):
    server.fault = lambda asked: UNSERVED["402"] if asked.stage == "check" else None
    outputs, settings = world.outputs(), settings_for(server.url)
    run = (load_step("describe"), world.inputs, outputs, settings.model_dump(mode="json"))
    with pytest.raises(EndpointError, match="402"):
        run_step(*run)
    assert not any(path.exists() for path in outputs.values())
    server.fault = None
    assert run_step(*run).metrics["regions_out"] == 4
    assert all(asked.nth == 1 for asked in server.asked if asked.stage != "check")


def test_answers_that_are_on_their_way_when_the_step_stops_are_kept(world, server):
    slow = {"hang_s": 0.3}
    server.fault = lambda asked: (
        UNSERVED["402"]
        if world.rows[0]["phrase"] in asked.text
        else Reply(json.dumps(honest_answer(asked)), **slow)
    )
    with pytest.raises(EndpointError):
        world.run(settings_for(server.url))
    server.fault = None
    assert len(world.run(settings_for(server.url)).captions) == 4
    others = [a for a in server.asked if a.stage == "object" and "thing 0 0" not in a.text]
    assert [asked.nth for asked in others] == [1, 1, 1]


def test_the_reason_is_told_in_the_servers_words(world, server):
    server.fault = lambda _: UNSERVED["402"]
    with pytest.raises(EndpointError, match=r"status 402: Insufficient Balance\. Every answer"):
        world.run(settings_for(server.url))


OUTAGES = {
    "page": Reply(body=PAGE),
    "page in UTF-16": Reply(body=PAGE.decode().encode("utf-16")),
    "error object": error(200, "Provider temporarily unavailable", code=502),
    "error without a code": error(200, "Something went wrong"),
    "error as text": Reply(body=b'{"error": "upstream timed out"}'),
    "error in a choice": Reply(
        body=b'{"choices": [{"error": {"message": "x", "code": 502}, "finish_reason": "error",'
        b' "message": {"content": "A red"}}]}'
    ),
    "overload object": error(200, "slow down", type="overloaded_error"),
    "throttling at 400": Reply(status=400, body=b'{"__type": "ThrottlingException"}'),
    "too many requests at 400": error(400, "Too many requests, please wait before trying again."),
    "crash at 400": error(400, "The model has crashed without additional information."),
    "no memory at 424": error(424, "Request failed: CUDA out of memory"),
    "client gone at 460": Reply(status=460, body=b""),
    "nothing": Reply(body=b""),
    "blank": Reply(body=b" \n"),
    "204": Reply(status=204, body=b""),
    "text": Reply(body=b"upstream connect error or disconnect/reset before headers"),
    "null": Reply(body=b"null"),
    "no choices": Reply(body=b'{"choices": []}'),
    "choices null": Reply(body=b'{"choices": null}'),
    "message null": Reply(body=b'{"choices": [{"message": null}]}'),
    "cut off": Reply(body=b'{"choices": [{"message": {"content": "{\\"caption\\": \\"A r'),
    "finish_reason error": Reply('{"caption": "A red kettle', finish_reason="error"),
    "aborted": Reply('{"caption": "A red kettle"}', finish_reason="abort"),
    "chat answer of a page": Reply(PAGE.decode()),
    "chat answer of a notice": Reply("We are under maintenance, please try again later."),
    "chat answer about money": Reply("You have run out of credits. Add some to go on."),
    "chat answer of an error": Reply('{"error": {"message": "Provider returned 502"}}'),
    "chat answer of an error in a fence": Reply("```html\n<html><body>502</body></html>\n```"),
    "chat answer of a status": Reply('{"code": 503, "message": "no healthy upstream"}'),
    "deep JSON": Reply(body=b"[" * 100_000),
    "huge number": Reply(body=b'{"choices": ' + b"9" * 100_000 + b"}"),
    "compressed and cut off": Reply(
        headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01"
    ),
    "unknown compression": Reply(headers={"Content-Encoding": "br"}, body=b"\x8b\x05\x80\x03\x00"),
    "stream cut off": Reply(body=b'data: {"choices": [{"delta": {"content": "{"}}]}\n\n'),
    "stream with an error": Reply(
        body=b'data: {"error": {"message": "overloaded", "code": 529}}\n\ndata: [DONE]\n\n'
    ),
}


@pytest.mark.parametrize("reply", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_costs_no_region_whatever_status_it_has(world, server, reply):
    clean = world.run(settings_for(server.url), "clean")
    server.fault = lambda asked: reply if asked.stage == "object" and asked.nth <= 2 else None
    world.forget_answers()
    result = world.run(settings_for(server.url, probe_interval_s=0.01), "out")
    assert result.digests() == clean.digests()
    assert result.metrics["num_requests"] == 20, "nothing had to be repaired"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (OUTAGES["page"], "We will be back in a minute"),
        (OUTAGES["error object"], "Provider temporarily unavailable"),
        (OUTAGES["chat answer of a notice"], "under maintenance"),
        (OUTAGES["unknown compression"], "encoding 'br'"),
        (error(429, "Rate limit reached for requests per day"), "requests per day"),
        (Reply("Nous revenons bientôt, merci."), "the same text whatever it is asked: Nous"),
        (Reply('{"info": "down"}'), 'the same text whatever it is asked: .*"down"'),
    ],
)
def test_when_endpoints_are_given_up_the_last_cause_is_told(world, server, reply, said):
    server.fault = lambda _: reply
    server.probe = reply
    settings = settings_for(server.url, request_timeout_s=0.5, give_up_after_s=1.2)
    with pytest.raises(EndpointError, match=rf"no answer from .*\(the last: http.*{said}"):
        world.run(settings)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/v1", "Cannot connect to host 127.0.0.1:9"),
        ("http://no-such-host.invalid/v1", "no-such-host.invalid"),
        ("https://127.0.0.1:{port}/v1", "SSL"),
    ],
)
def test_why_a_server_cannot_be_reached_is_told(world, server, url, said):
    settings = settings_for(
        url.format(port=server.port), request_timeout_s=0.5, give_up_after_s=0.8
    )
    with pytest.raises(EndpointError, match=rf"no answer from .*\(the last: http.*{said}"):
        world.run(settings)


@pytest.mark.parametrize("url", ["http://a..b/v1", f"http://{'a' * 300}/v1", "http://*/v1"])
def test_an_address_that_is_none_ends_in_an_error_that_names_it(world, url):
    with pytest.raises(EndpointError, match="http://"):
        world.run(settings_for(url, request_timeout_s=0.5, give_up_after_s=0.8))


def test_a_server_that_fails_for_all_regions_of_a_stage_costs_none_though_it_answers_pings(
    world, server
):
    """A vision tower that is out of memory: texts are answered, pictures are not."""
    server.fault = lambda asked: Reply(status=500) if asked.pictures else None
    server.is_blind = True
    settings = settings_for(
        server.url, request_timeout_s=0.5, give_up_after_s=1.5, max_attempts=1, probe_interval_s=0.1
    )
    with pytest.raises(EndpointError, match=r"the last: .*status 500"):
        world.run(settings)


def test_a_form_that_a_server_refuses_for_every_request_stops_the_step_with_the_setting(
    world, server
):
    server.fault = server_that_knows_only_the_new_name
    server.probe = error(400, "Unsupported parameter: 'max_tokens' ... 'max_completion_tokens'")
    with pytest.raises(EndpointError, match=r"refuses every request.*object\.token_limit_name"):
        world.run(settings_for(server.url))
    server.probe = None
    new = {"token_limit_name": "max_completion_tokens"}
    stages = dict.fromkeys(("object", "verify", "context", "merge", "check"), new)
    assert len(world.run(settings_for(server.url, **stages)).captions) == 4


def server_that_knows_only_the_new_name(asked: Asked) -> Reply | None:
    if "max_tokens" not in asked.body:
        return None
    return error(
        400,
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        code="unsupported_parameter",
    )


@pytest.mark.parametrize(
    ("said", "setting", "changes", "is_well"),
    [
        (
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "unsent",
            {"unsent": ["temperature", "top_p"]},
            lambda body: not {"temperature", "top_p"} & body.keys(),
        ),
        (
            "response_format of type json_schema is not supported",
            "is_structured",
            {"is_structured": False},
            lambda body: "response_format" not in body,
        ),
    ],
)
def test_a_parameter_that_a_server_refuses_is_left_out_by_a_setting(
    world, server, said, setting, changes, is_well
):
    refusal = error(400, said)
    server.fault = lambda asked: None if asked.stage != "object" or is_well(asked.body) else refusal
    server.probe = refusal
    with pytest.raises(EndpointError, match=rf"describe\.object\.{setting}"):
        world.run(settings_for(server.url))
    assert len(world.run(settings_for(server.url, object=changes)).captions) == 4


def test_a_request_that_is_flagged_is_dropped_alone(world, server):
    flagged = error(403, "Your input was flagged", code=403, metadata={"reasons": ["violence"]})
    poison = world.rows[2]["phrase"]
    server.fault = lambda asked: (
        flagged if asked.stage == "object" and poison in asked.text else None
    )
    result = world.run(settings_for(server.url))
    assert result.reasons == {"1-00": "request_refused"}


def test_a_filtered_answer_is_a_refusal(world, server):
    server.fault = lambda asked: (
        Reply("", finish_reason="content_filter") if asked.stage == "object" else None
    )
    result = world.run(settings_for(server.url))
    assert set(result.reasons.values()) == {"refusal"}
    assert server.stages() == {"object": 4}, "it is not asked for again"


def test_the_last_region_that_no_server_can_take_does_not_stop_the_step(tmp_path, world):
    """Nobody else is asked meanwhile: a sample shows that the server serves others."""
    world.rewrite_regions(world.rows[:1])
    with LlmServer(lambda asked: Reply(status=500) if asked.stage == "check" else None) as server:
        settings = settings_for(server.url, max_attempts=2, probe_interval_s=0.01)
        assert world.run(settings).reasons == {"0-00": "no_answer"}


def test_a_stage_whose_other_endpoint_fails_is_served_by_the_good_one(world, server):
    with LlmServer(lambda _: Reply(body=PAGE)) as broken:
        broken.probe = Reply(body=PAGE)
        result = world.run(settings_for(broken.url, server.url, probe_interval_s=0.05))
    assert len(result.captions) == 4


def test_an_outage_between_the_tries_of_a_request_is_not_counted_against_it(world, server):
    """It fails more often than it may, but never while anybody else is served."""
    down = Reply(status=502)
    server.fault, server.probe = lambda _: down, down

    def end_of_the_outage() -> None:
        server.fault = server.probe = None

    threading.Timer(0.8, end_of_the_outage).start()
    settings = settings_for(server.url, max_attempts=1, probe_interval_s=0.1)
    assert len(world.run(settings).captions) == 4
