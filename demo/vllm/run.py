"""Describe a few regions with real vLLM servers on this machine's CPU.

    make demo-vllm                       # or, where everything is installed:
    .venv/bin/python demo/vllm/run.py

It proves the way of the requests: pictures as data URLs, structured output, validation, repair,
the cache and the ledger against vLLM itself. It proves nothing about captions: the vision model
has a random vision tower, so whatever it says of a picture is made up, and regions that its
answers get accepted are as meaningless as those they get rejected.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from drill import ask_every_stage
from models import TEXT_MODEL, VISION_MODEL
from report import Report, StepReport
from rich.console import Console
from scenes import prepare_regions
from serve import PROJECT, read_counters, serve, stop_on_sigterm

from components.core.run import run_step
from components.data.describe.scenes import read_scenes
from components.data.describe.settings import DescribeSettings
from components.data.describe.step import describe

VISION_STAGES, TEXT_STAGES = ("object", "verify", "context"), ("merge", "check")
# A model of this size does not stop by itself; what is cut off is asked for once more and dropped.
MAX_TOKENS = 96
CONCURRENCY = 8


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=PROJECT / "runs" / "vllm")
    parser.add_argument("--photographs", type=Path, default=PROJECT / ".cache" / "photographs")
    parser.add_argument("--num-scenes", type=int, default=2, help="scenes of three regions")
    arguments = parser.parse_args()
    stop_on_sigterm()
    started, console = time.monotonic(), Console()
    console.width = max(console.width, 140)  # a log has no width of its own
    # Kept from an earlier run, answers would be found and nothing would be asked.
    shutil.rmtree(arguments.work / "described", ignore_errors=True)
    inputs = prepare_regions(arguments.work, arguments.photographs, arguments.num_scenes)
    console.print("starting two vLLM servers …")
    began = time.monotonic()
    with serve((TEXT_MODEL, VISION_MODEL), arguments.work / "logs") as urls:
        start_seconds = time.monotonic() - began
        report = _run(inputs, urls, arguments.work / "described", start_seconds, started)
    report.write(arguments.work / "report.json")
    report.show(console)
    console.print(
        "[bold]The vision tower is random: what the answers say of a picture means nothing.[/] "
        "What counts: requests answered, JSON valid, nothing asked twice, no region lost."
    )


def _run(
    inputs: tuple[Path, Path],
    urls: Mapping[str, str],
    work: Path,
    start_seconds: float,
    started: float,
) -> Report:
    cache = work / "cache"
    first = _describe(inputs, urls, work / "first", cache)
    second = _describe(inputs, urls, work / "second", cache)
    settings = DescribeSettings.model_validate(describe_settings(urls, cache))
    scene = next(read_scenes(*inputs))
    stages = ask_every_stage([scene], settings, work / "stages.jsonl")
    total = time.monotonic() - started
    return Report(dict(urls), start_seconds, {**stages}, first, second, total)


def describe_settings(urls: Mapping[str, str], cache: Path) -> dict[str, object]:
    """Settings of `describe` for these servers (model -> base URL)."""
    stages: dict[str, object] = {
        name: {"endpoints": [urls[model]], "model": model, "max_tokens": MAX_TOKENS}
        for names, model in ((VISION_STAGES, VISION_MODEL), (TEXT_STAGES, TEXT_MODEL))
        for name in names
    }
    return {
        **stages,
        "describer": "endpoints",
        "cache_folder": str(cache),
        "concurrency": CONCURRENCY,
        "min_accepted_share": 0.0,
    }


def _describe(
    inputs: tuple[Path, Path], urls: Mapping[str, str], folder: Path, cache: Path
) -> StepReport:
    before = read_counters(urls.values())
    outputs = {
        "captions": folder / "captions",
        "quarantine": folder / "quarantine.parquet",
        "ledger": folder / "ledger.json",
    }
    regions, images = inputs
    settings = describe_settings(urls, cache)
    run_step(describe, {"regions": regions, "images": images}, outputs, settings)
    counted = read_counters(urls.values())
    counted.subtract(before)
    ledger = json.loads(outputs["ledger"].read_text(encoding="utf-8"))
    stages = ledger["stages"].values()
    return StepReport(
        regions=ledger["regions_in"],
        accepted=ledger["accepted"],
        reasons=ledger["rejected_by_reason"],
        answers=sum(stage["requests"] for stage in stages),
        cached=sum(stage["cached"] for stage in stages),
        served=counted["request_success"],
        pictures=counted["mm_cache_queries"],
        prefix_hit_share=counted["prefix_cache_hits"] / max(counted["prefix_cache_queries"], 1),
        seconds=ledger["wall_seconds"],
    )


if __name__ == "__main__":
    main()
