"""The DAG on what a real data set is made of: GRIT's files and images in S3 and on the web, models
behind HTTP, versions in S3. Every task's own step run, in this process."""

import json
import os
import subprocess
import sys
import tarfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from airflow.sdk import TriggerRule
from airflow.sdk.exceptions import AirflowSkipException

from components.core.run import run_step
from components.core.step import load_step
from components.orchestration.airflow import operators as step_module
from components.orchestration.airflow.operators import StepOperator
from components.orchestration.local import StepRun
from tests.data.describe.llm_server import LlmServer
from tests.orchestration.airflow.published_grit import FIRST_ID, WebServer, parquet, picture

pytestmark = pytest.mark.slow

STAGES = ("object", "verify", "context", "merge", "check")
PRICES = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 2.0}
NUM_WEB, NUM_S3 = 3, 2
GROUPS = ("00000", "00001")


class ThisProcess:
    """A backend that starts no process for a step."""

    def run(self, run: StepRun) -> dict[str, int | float]:
        return run_step(load_step(run.step), run.inputs, run.outputs, run.settings).metrics


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    files = {f"/{n}.jpg": picture(n) for n in range(NUM_WEB)}
    with WebServer({**files, "/copy.jpg": files["/0.jpg"]}) as server:
        yield server


@pytest.fixture(scope="module")
def llm() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


@pytest.fixture(scope="module")
def buckets(s3_endpoint: str, web: WebServer) -> dict[str, str]:
    """Buckets with GRIT's files in two parts and with images, and one for the versions."""
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    names = {kind: f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("grit", "images", "versions")}
    for name in names.values():
        client.create_bucket(Bucket=name)
    urls = [f"{web.url}/{name}.jpg" for name in (*range(NUM_WEB), "copy", "gone")]
    for n in range(NUM_S3):
        client.put_object(Bucket=names["images"], Key=f"a b/{n}.jpg", Body=picture(100 + n))
        urls.append(f"s3://{names['images']}/a b/{n}.jpg")
    urls.append(f"s3://{names['grit']}/not-an-image-bucket.jpg")
    for part, start in enumerate(range(0, len(urls), 4)):
        key = f"grit-20m/coyo_{part}_snappy.parquet"
        body = parquet(start, urls[start : start + 4])
        client.put_object(Bucket=names["grit"], Key=key, Body=body)
    return names


@pytest.fixture(scope="module")
def conf(tmp_path_factory, s3_endpoint, buckets, llm) -> dict[str, Any]:
    """What the run is triggered with."""
    run = tmp_path_factory.mktemp("run")
    stages = {name: {"endpoints": [llm.url], "model": f"{name}-model", **PRICES} for name in STAGES}
    overrides = {
        "import_grit": {"endpoint_url": s3_endpoint},
        "select": {"records_per_group": 4},
        "ingest": {
            "allowed_hosts": ["127.0.0.1"],
            "s3_buckets": [buckets["images"]],
            "s3_endpoint": s3_endpoint,
            "retries": 0,
        },
        "segment": {"fallback": "grabcut"},
        "describe": {"describer": "endpoints", **stages},
        "publish": {
            "repository": str(run / "repository"),
            "remote": f"s3://{buckets['versions']}/longgrit",
            "endpoint_url": s3_endpoint,
        },
    }
    uri = f"s3://{buckets['grit']}/grit-20m"
    return {
        "source": "import_grit",
        "source_uri": uri,
        "run_folder": str(run),
        "overrides": overrides,
    }


def run_dag(dag: Any, served_dag: Any, conf: dict[str, Any]) -> SimpleNamespace:
    """Run every task that is a step, in the DAG's order; gives the event of its asset."""
    params = served_dag.params.deep_merge(conf)
    params.validate()
    event, skipped = SimpleNamespace(extra={}), set()
    for node in dag.topological_sort():
        if node.trigger_rule == TriggerRule.ALL_SUCCESS and skipped & node.upstream_task_ids:
            skipped.add(node.node_id)
            continue
        kind = node.operator_class if node.is_mapped else type(node)
        if issubclass(kind, StepOperator):
            is_grouped = node.is_mapped or node.get_closest_mapped_task_group() is not None
            for group in GROUPS if is_grouped else ("",):
                try:
                    run_task(node, group, params.dump(), event)
                except AirflowSkipException:
                    skipped.add(node.node_id)
    return event


def run_task(node: Any, group: str, params: dict[str, Any], event: SimpleNamespace) -> None:
    """Fill in the templates as Airflow does, and execute."""
    task = node.unmap({"group": group}) if node.is_mapped else node.prepare_for_execution()
    task.group = group
    context = {"params": params, "task": task, "outlet_events": dict.fromkeys(task.outlets, event)}
    task.render_template_fields(context)
    task.execute(context)


@pytest.fixture(scope="module")
def built(dag, served_dag, conf) -> SimpleNamespace:
    """A run of the DAG: its folder and the event of its asset."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "open_backend", lambda name: ThisProcess())
        event = run_dag(dag, served_dag, conf)
    return SimpleNamespace(folder=Path(conf["run_folder"]), event=event)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def packed_regions(longgrit: Path) -> list[dict[str, Any]]:
    """The regions in the data set's shards."""
    regions = []
    for path in sorted(longgrit.glob("*/*.tar")):
        with tarfile.open(path) as shard:
            texts = [shard.extractfile(m).read() for m in shard if m.name.endswith(".json")]
        regions += [region for text in texts for region in json.loads(text)["regions"]]
    return regions


def test_every_region_of_the_source_is_in_the_data_set_or_in_quarantine(built):
    kept = [region["region_id"] for region in packed_regions(built.folder / "longgrit")]
    lost = pq.read_table(built.folder / "quarantine").to_pylist()
    num_records = NUM_WEB + 2 + NUM_S3 + 1
    every = {f"{FIRST_ID + n}-{index:02d}" for n in range(num_records) for index in range(2)}
    assert sorted([*kept, *(row["region_id"] for row in lost)]) == sorted(every)
    assert len(kept) == 2 * (NUM_WEB + NUM_S3)
    reasons = Counter((row["step"], row["reason"]) for row in lost)
    assert reasons == {
        ("ingest", "http_404"): 2,
        ("ingest", "s3_not_allowed"): 2,
        ("deduplicate", "duplicate_image"): 2,
    }


def test_captions_say_which_models_made_them_and_masks_which_source(built):
    for region in packed_regions(built.folder / "longgrit"):
        told = json.dumps(region["provenance"])
        assert all(f"{stage}-model" in told for stage in STAGES)
        assert "grabcut" in told
        assert len(region["long_caption"].split()) >= 30


def test_the_ledger_counts_what_the_models_were_asked(built, llm):
    ledgers = [json.loads(path.read_text()) for path in (built.folder / "ledger").glob("*.json")]
    totals = Counter()
    for ledger in ledgers:
        totals.update(ledger["total"])
    num_answers = len(STAGES) * 2 * (NUM_WEB + NUM_S3)
    assert totals["requests"] == num_answers
    assert totals["prompt_tokens"] == 100 * num_answers
    assert totals["cost_usd"] == pytest.approx(140e-6 * num_answers)
    assert llm.stages()["object"] == 2 * (NUM_WEB + NUM_S3)


def test_the_asset_says_what_was_published(built):
    tracked = (built.folder / "repository" / "longgrit.dvc").read_text()
    assert built.event.extra["dvc_md5"] in tracked
    assert built.event.extra["counts"]["regions_out"] == 2 * (NUM_WEB + NUM_S3)
    assert built.event.extra["contracts_met"] == ["longgrit"]


def test_another_machine_pulls_the_same_bytes_from_s3(built, tmp_path):
    clone = tmp_path / "clone"
    command = ["git", "clone", "--quiet", str(built.folder / "repository"), str(clone)]
    subprocess.run(command, check=True)
    command = [sys.executable, "-m", "dvc", "pull", "--quiet"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    subprocess.run(command, cwd=clone, env=environment, check=True)
    assert files_of(clone / "longgrit") == files_of(built.folder / "longgrit")


def test_a_second_run_asks_and_downloads_nothing_even_where_captions_were_lost(
    built, dag, served_dag, conf, web, llm, monkeypatch
):
    monkeypatch.setattr(step_module, "open_backend", lambda name: ThisProcess())
    before = files_of(built.folder / "longgrit")
    num_asked, fetched = len(llm.asked), Counter(web.asked)
    assert set(fetched.values()) == {1}
    (built.folder / "captions" / "00000").rename(built.folder / "lost")
    assert run_dag(dag, served_dag, conf).extra == built.event.extra
    assert (len(llm.asked), web.asked) == (num_asked, fetched)
    assert files_of(built.folder / "longgrit") == before
