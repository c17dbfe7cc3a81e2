"""The step `describe` against real vLLM servers on this machine's CPU."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

PROJECT = Path(__file__).parents[2]
RUN = PROJECT / "demo" / "vllm" / "run.py"
NEEDED = {
    ".venv-vllm/bin/python": "vLLM is not installed",
    ".cache/models/random-eyes-135m": "the models were not made",
    ".cache/photographs/stamps": "the photographs were not fetched",
}
MISSING = [why for path, why in NEEDED.items() if not (PROJECT / path).exists()]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{'; '.join(MISSING)}: run `make demo-vllm` first"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one demonstration over a scene of three regions measured."""
    work = tmp_path_factory.mktemp("vllm")
    process = subprocess.run(
        [sys.executable, str(RUN), "--work", str(work), "--num-scenes", "1"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return json.loads((work / "report.json").read_text(encoding="utf-8")) | {"work": str(work)}


def test_every_region_is_accepted_or_quarantined_with_a_reason(report):
    step = report["first"]
    assert step["regions"] == 3
    assert step["accepted"] + sum(step["reasons"].values()) == 3


def test_the_servers_count_the_requests_that_the_ledger_books(report):
    assert report["first"]["served"] == report["first"]["answers"] >= 3
    assert report["first"]["cached"] == 0


def test_a_second_run_asks_nothing_and_says_the_same(report):
    first, second = report["first"], report["second"]
    assert second["served"] == 0
    assert second["cached"] == second["answers"] == first["answers"]
    assert second["reasons"] == first["reasons"]
    work = Path(report["work"]) / "described"
    quarantines = [(work / run / "quarantine.parquet").read_bytes() for run in ("first", "second")]
    assert quarantines[0] == quarantines[1]


def test_all_five_stages_are_answered_in_their_schema(report):
    assert list(report["stages"]) == ["object", "verify", "context", "merge", "check"]
    for name, stage in report["stages"].items():
        assert stage["requests"] >= 3, name
        assert stage["completion_tokens"] > 0, name
        # The grammar leaves no other way to end an answer; some never end.
        assert stage["valid_json"] == stage["requests"] - stage["cut_off"], name
    assert sum(stage["valid_json"] for stage in report["stages"].values()) >= 5


def test_the_vision_model_gets_the_pictures(report):
    # `object` sends two pictures, for each of three regions, before anything can be dropped.
    assert report["first"]["pictures"] >= 6
    assert report["second"]["pictures"] == 0


def test_no_server_stays_behind(report):
    assert len(report["servers"]) == 2
    for url in report["servers"].values():
        parts = urlsplit(url)
        with socket.socket() as probe:
            assert probe.connect_ex((parts.hostname, parts.port)) != 0, url
