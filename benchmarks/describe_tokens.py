"""Tokens that describing a region takes, counted: the cost table of `docs/cluster.md` uses them.

    python benchmarks/describe_tokens.py --scenes 300

Scenes of the sample go through the steps up to `describe`. Then the request of each stage is made
for every region, with the very bytes that `describe` would send, and counted:

    text        by the tokenizer and chat template of the cached language model (SmolLM2's, 49,152
                words; those of the served models know three times as many and make fewer tokens)
    pictures    by the processors of the models that `deploy/` serves, from the size of the picture:
                Qwen2.5-VL takes a token for 28 x 28 pixels, after rounding both sides to that
                (arXiv:2502.13923, section 2.1); InternVL3 takes 256 for each tile of 448 x 448, 12
                tiles at most, and for a thumbnail beside several (arXiv:2404.16821, section 3)
    answers     JSON with the captions and the reason that the embedded describer wrote: rules over
                measurements. A model that thinks first writes that besides, which is not counted
"""

import argparse
import base64
import io
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from components.core.run import run_step
from components.core.step import load_step
from components.core.tables import Row, read_rows
from components.data.describe.answers import SCHEMAS
from components.data.describe.flow import ObjectFlow, region_facts
from components.data.describe.pictures import Pictures
from components.data.describe.pipeline import build_stages
from components.data.describe.scenes import Region, read_scenes
from components.data.describe.settings import DescribeSettings

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / ".cache/models/smollm2-135m-instruct"
TILE_PX, MOST_TILES, TILE_TOKENS = 448, 12, 256  # InternVL3
TEXTS = ("phrase", "image_caption", "object_caption", "context_caption", "long_caption")


def make_captions(run: Path, scenes: int) -> None:
    """The steps from `sample_grit` to `describe`, with the settings of the params file."""
    settings = yaml.safe_load((ROOT / "params/longgrit.yaml").read_text(encoding="utf-8"))
    photographs = str(ROOT / ".cache/photographs")
    own: dict[str, dict[str, Any]] = {
        "sample_grit": {"num_scenes": scenes, "photographs": photographs},
        "ingest": {"file_root": str(run / "grit")},
    }
    group = "00000"
    records, images = run / "records", run / "images"
    regions = run / "regions" / group
    chain: list[tuple[str, dict[str, Path], dict[str, Path]]] = [
        ("sample_grit", {}, {"grit": run / "grit"}),
        ("select", {"grit": run / "grit"}, {"records": records}),
        ("ingest", {"records": records / group}, {"images": images / group}),
        ("deduplicate", {"records": records, "images": images}, {"candidates": run / "candidates"}),
        ("segment", {"candidates": run / "candidates" / group, "images": images / group},
         {"regions": regions}),
        ("describe", {"regions": regions, "images": images / group},
         {"captions": run / "captions" / group, "ledger": run / "ledger.json"}),
    ]  # fmt: skip
    for name, inputs, outputs in chain:
        if name != "sample_grit":
            outputs["quarantine"] = run / "quarantine" / f"{name}.parquet"
        run_step(load_step(name), inputs, outputs, {**settings[name], **own.get(name, {})})


class Counter:
    """Counts tokens of texts, requests and pictures."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
            GotOcr2ImageProcessorPil,
        )
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        self._tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
        self._qwen = Qwen2VLImageProcessorPil()  # 3,136 to 1,003,520 pixels: ours are smaller
        self._internvl = GotOcr2ImageProcessorPil(
            size={"height": TILE_PX, "width": TILE_PX},
            crop_to_patches=True,
            max_patches=MOST_TILES,
        )

    def text(self, text: str) -> int:
        """Tokens of a text alone."""
        return len(self._tokenizer(text).input_ids)

    def prompt(self, messages: list[dict[str, Any]]) -> int:
        """Tokens of a conversation without its pictures, up to where the answer begins."""
        plain = [{**said, "content": _text_of(said["content"])} for said in messages]
        rendered = self._tokenizer.apply_chat_template(
            plain, tokenize=False, add_generation_prompt=True
        )
        return self.text(rendered)

    def qwen(self, picture: Image.Image) -> int:
        """Tokens of a picture for Qwen2.5-VL, with the two that stand around it."""
        patches: int = self._qwen.get_number_of_image_patches(picture.height, picture.width)
        return patches // self._qwen.merge_size**2 + 2

    def internvl(self, picture: Image.Image) -> int:
        """Tokens of a picture for InternVL3, with the two that stand around it."""
        tiles: int = self._internvl.get_number_of_image_patches(picture.height, picture.width)
        return TILE_TOKENS * tiles + 2


def _text_of(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _pictures_of(messages: list[dict[str, Any]]) -> list[Image.Image]:
    parts = [
        part
        for said in messages
        if not isinstance(said["content"], str)
        for part in said["content"]
        if part["type"] == "image_url"
    ]
    contents = (part["image_url"]["url"].partition(",")[2] for part in parts)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in contents]


def answer(stage: str, row: Row) -> str:
    """What a stage has to answer of a region, as JSON."""
    said: dict[str, Any] = {"reason": row["verdict_reason"]}
    said |= {"caption": row[f"{stage}_caption"]} if stage in ("object", "context") else {}
    said |= {name: row[name] for name in ("long_caption", "short_caption")}
    fields = SCHEMAS[stage].model_fields  # type: ignore[index]
    return json.dumps({name: said.get(name, True) for name in fields})


def count(run: Path) -> tuple[dict[str, dict[str, list[int]]], dict[str, list[int]], int]:
    """Tokens of every stage's requests and of captions, and the number of regions."""
    counter, stages = Counter(), build_stages(DescribeSettings(), ObjectFlow)
    rows = {row["region_id"]: row for row in read_rows(run / "captions" / "00000")}
    requests: dict[str, dict[str, list[int]]] = {
        name: {kind: [] for kind in ("text", "qwen", "internvl", "answer")} for name in stages
    }
    captions = defaultdict[str, list[int]](list)
    num_images = 0

    def add(region: Region, pictures: Pictures, row: Row) -> None:
        for name, stage in stages.items():
            texts = {key: row[key] for key in TEXTS}
            body = json.loads(stage.sample_bodies(region, pictures, texts, region_facts(region))[1])
            shown = _pictures_of(body["messages"])
            told = requests[name]
            told["text"].append(counter.prompt(body["messages"]))
            told["qwen"].append(sum(map(counter.qwen, shown)))
            told["internvl"].append(sum(map(counter.internvl, shown)))
            told["answer"].append(counter.text(answer(name, row)))
        for kind in ("long_caption", "short_caption"):
            captions[kind].append(counter.text(row[kind]))

    for scene in read_scenes(run / "regions" / "00000", run / "images" / "00000"):
        described = [region for region in scene.regions if region.region_id in rows]
        if described:
            num_images += 1
            captions["image_caption"].append(counter.text(described[0].image_caption))
        pictures = Pictures(scene.load_image)
        for region in described:
            add(region, pictures, rows[region.region_id])
    return requests, captions, num_images


def main() -> None:
    """Make the captions and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=300)
    scenes = parser.parse_args().scenes
    with tempfile.TemporaryDirectory() as folder:
        make_captions(Path(folder), scenes)
        requests, captions, num_images = count(Path(folder))
    print(f"{len(captions['long_caption'])} regions of {num_images} images; mean tokens")
    kinds = ("text", "qwen", "internvl", "answer")
    print(f"{'stage':10}" + "".join(f"{kind:>10}" for kind in kinds))
    means = {
        name: [statistics.mean(numbers[kind]) for kind in kinds]
        for name, numbers in requests.items()
    }
    means["all"] = [sum(column) for column in zip(*means.values(), strict=True)]
    for name, row in means.items():
        print(f"{name:10}" + "".join(f"{mean:10.0f}" for mean in row))
    for kind, numbers in captions.items():
        print(f"{kind}: {statistics.mean(numbers):.1f}, at most {max(numbers)}")


if __name__ == "__main__":
    main()
