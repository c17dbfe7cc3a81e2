import dataclasses
import json
import math
import shutil
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from components.core.digests import RECEIPT_NAME
from components.core.errors import InputError
from components.core.run import run_step
from components.evaluation.evaluate.settings import EvaluateSettings
from components.evaluation.evaluate.step import evaluate
from pixclip.checkpoint import save_checkpoint
from pixclip.checksums import sha256_of, weights_digest
from pixclip.evaluation.compare import compare
from pixclip.evaluation.metrics import METRICS
from pixclip.evaluation.protocol import LONGGRIT_REGIONS
from pixclip.text.embeddings import tower_digest, write_tower_digest
from tests.pixclip.evaluation.models import VISION, tiny_model
from tests.pixclip.evaluation.scenes import SUBSETS, scenes, write_longgrit
from tests.pixclip.evaluation.texts import captions, write_cache

SETTINGS = {
    "num_resamples": 100,
    "num_examples": 3,
    "num_mistakes": 2,
    "num_maps": 2,
    "device": "cpu",
}
SAMPLES = scenes(16)
VOID = {"meta", "img", "br"}
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}{% raw %}",
    "' onmouseover='alert(3)",
)


class Page(HTMLParser):
    """Tags, attributes and text as a browser sees them; tags must nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def inputs_of(folder, samples, checkpoint_seed=1, split="benchmark"):
    """All inputs of the step in a folder."""
    torch.set_num_threads(1)
    names = ("dataset", "text_embeddings", "parent", "checkpoint")
    inputs = {name: folder / name for name in names}
    write_longgrit(inputs["dataset"], samples, split)
    (inputs["dataset"] / "version.json").write_text('{"commit": "abc"}')
    write_cache(inputs["text_embeddings"], captions(samples))
    save_checkpoint(inputs["parent"], tiny_model(0))
    save_checkpoint(inputs["checkpoint"], tiny_model(checkpoint_seed))
    return inputs


def run(inputs, output, **settings):
    metrics = evaluate.function(
        **inputs, evaluation=output, settings=EvaluateSettings(**{**SETTINGS, **settings})
    )
    return metrics, json.loads((output / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Inputs, output folder, metrics and content of an evaluation."""
    folder = tmp_path_factory.mktemp("evaluate")
    inputs = inputs_of(folder, SAMPLES)
    return inputs, folder / "evaluation", *run(inputs, folder / "evaluation")


def test_the_evaluation_says_what_was_measured_and_how(done):
    inputs, _, metrics, content = done
    num_regions = sum(len(sample.regions) for sample in SAMPLES)
    assert content["protocol"] == "longgrit-regions/1"
    assert content["protocol_digest"] == LONGGRIT_REGIONS.digest
    assert content["checkpoint"] == weights_digest(inputs["checkpoint"])
    assert content["data"] == {
        "dataset": content["data"]["dataset"],
        "manifest": sha256_of(inputs["dataset"] / "manifest.parquet"),
        "split": "benchmark",
        "num_regions": num_regions,
        "num_images": len(SAMPLES),
        "version": {"commit": "abc"},
    }
    assert (metrics["num_regions"], metrics["num_images"]) == (num_regions, len(SAMPLES))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "dataset/version.json",
            b"[" * 5000 + b"]" * 5000,
            r"version\.json: it is nested more than 64 deep",
        ),
        ("dataset/manifest.parquet", b"PAR1PAR1", r"manifest\.parquet cannot be read"),
        ("dataset/benchmark/00000.tar", b"", r"shard benchmark/00000\.tar .*it is empty"),
        ("checkpoint/model.safetensors", b"", r"model\.safetensors is damaged or was altered"),
        ("parent/config.json", b"{}", r"config\.json is damaged or was altered"),
        ("text_embeddings/00000.safetensors", b"", r"00000\.safetensors cannot be read"),
        ("text_embeddings/index.parquet", b"PAR1", r"index\.parquet cannot be read"),
    ],
)
def test_a_damaged_file_of_any_input_is_told_by_its_name(done, tmp_path, name, content, message):
    inputs = {key: tmp_path / key for key in done[0]}
    for key, folder in done[0].items():
        shutil.copytree(folder, inputs[key])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        run(inputs, tmp_path / "evaluation")


def test_there_are_numbers_for_every_subset_and_baseline(done):
    _, _, metrics, content = done
    assert set(content["metrics"]) == {"all", *SUBSETS}
    for subset, values in content["metrics"].items():
        assert set(values) == set(METRICS) == set(content["chance"][subset])
        for name, (low, high) in content["intervals"][subset].items():
            assert 0 <= low <= values[name] <= high <= 1
    assert set(content["baselines"]) == {"whole_image", "masked_crop", "mask_conv_only"}
    for baseline, subsets in content["baselines"].items():
        for subset, values in subsets.items():
            for name, value in values.items():
                difference, low, high = content["leads"][baseline][subset][name]
                own = content["metrics"][subset][name]
                assert difference == pytest.approx(own - value, abs=2e-6)
                assert low <= difference + 1e-6
                assert difference <= high + 1e-6
    assert metrics["scene_accuracy"] == content["metrics"]["all"]["scene_accuracy"]
    baseline = content["baselines"]["whole_image"]["all"]
    assert metrics["whole_image.scene_accuracy"] == baseline["scene_accuracy"]
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_flat_metrics_are_those_the_step_returns(done):
    _, output, metrics, _ = done
    flat = json.loads((output / "metrics.json").read_text())
    assert flat == {name: value for name, value in metrics.items() if not name.startswith("num_")}
    assert flat["held_out_objects.mask_to_text_r5"] >= 0


def test_the_samples_give_the_metrics_again(done):
    _, output, metrics, content = done
    rows = pq.read_table(output / "samples.parquet").to_pylist()
    assert [row["region_id"] for row in rows] == sorted(row["region_id"] for row in rows)
    assert len(rows) == metrics["num_regions"]
    asked = [row["scene_correct"] for row in rows if row["scene_correct"] is not None]
    assert sum(asked) / len(asked) == pytest.approx(metrics["scene_accuracy"], abs=1e-6)
    held_out = [row for row in rows if row["subset"] == "held_out_objects"]
    hits = [row["text_to_mask_rank_in_subset"] <= 5 for row in held_out]
    wanted = content["metrics"]["held_out_objects"]["text_to_mask_r5"]
    assert sum(hits) / len(hits) == pytest.approx(wanted, abs=1e-6)


def test_the_same_again_is_the_same_bytes_whatever_the_batch(done, tmp_path):
    inputs, output, *_ = done
    run(inputs, tmp_path / "again", batch_size=3)
    for name in ("evaluation.json", "samples.parquet", "images.parquet", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (output / name).read_bytes(), name


def test_two_checkpoints_compare_on_the_same_data_only(done, tmp_path):
    inputs, output, metrics, _ = done
    save_checkpoint(tmp_path / "other", tiny_model(7))
    other, _ = run({**inputs, "checkpoint": tmp_path / "other"}, tmp_path / "b")
    found = compare(output, tmp_path / "b", "mask_to_text_r5")
    expected = other["mask_to_text_r5"] - metrics["mask_to_text_r5"]
    assert found.difference == pytest.approx(expected, abs=1e-5)
    assert found.low <= found.difference <= found.high
    fewer = inputs_of(tmp_path / "fewer", SAMPLES[:-1])
    run(fewer, tmp_path / "c")
    with pytest.raises(ValueError, match="data sets differ"):
        compare(output, tmp_path / "c", "mask_to_text_r5")


def test_another_split_is_another_protocol(tmp_path):
    inputs = inputs_of(tmp_path, SAMPLES[:4], split="val")
    _, content = run(inputs, tmp_path / "evaluation", split="val")
    assert (
        content["protocol_digest"]
        == LONGGRIT_REGIONS.of_split("val").digest
        != LONGGRIT_REGIONS.digest
    )


def test_the_page_shows_numbers_examples_maps_and_mistakes(done):
    _, output, *_ = done
    page = Page((output / "evaluation.html").read_text())
    text = " ".join("".join(page.text).split())
    for said in ("longgrit-regions/1", "Held out objects", "whole image", "chance", "rectangle"):
        assert said in text
    pictures = sorted(path.name for path in (output / "pictures").iterdir())
    assert sum(name.endswith("-attention-region.jpg") for name in pictures) == 2
    assert any(name.startswith("region-") for name in pictures)
    for name in pictures:
        Image.open(output / "pictures" / name).verify()


def test_the_page_runs_nothing_and_loads_nothing(tmp_path):
    samples = [
        dataclasses.replace(
            sample,
            caption=PAYLOADS[0] + str(number),
            regions=tuple(
                dataclasses.replace(region, long_caption=f"{payload} {region.region_id}")
                for region, payload in zip(sample.regions, PAYLOADS[number % 4 :] * 3, strict=False)
            ),
        )
        for number, sample in enumerate(scenes(8))
    ]
    inputs = inputs_of(tmp_path, samples)
    run(inputs, tmp_path / "evaluation", num_examples=8, num_maps=8, num_mistakes=8)
    page = Page((tmp_path / "evaluation" / "evaluation.html").read_text())
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value for name, value in page.attributes if name == "src"]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert "{{ 7 * 7 }}" in "".join(page.text)


def test_a_page_without_examples_is_still_a_page(done, tmp_path):
    inputs = done[0]
    run(inputs, tmp_path / "evaluation", num_examples=0, num_maps=0, num_mistakes=0)
    assert "without examples" in (tmp_path / "evaluation" / "evaluation.html").read_text()


def test_the_step_runs_as_every_runner_runs_it(done, tmp_path):
    inputs = done[0]
    receipt = run_step(evaluate, inputs, {"evaluation": tmp_path / "evaluation"}, SETTINGS)
    assert receipt.metrics == done[2]
    assert "evaluation/samples.parquet" in receipt.files


def refused(inputs, tmp_path, message):
    with pytest.raises(InputError, match=message):
        run(inputs, tmp_path / "refused")


def test_a_data_set_without_benchmark_is_refused(tmp_path):
    refused(inputs_of(tmp_path, SAMPLES[:2], split="train"), tmp_path, "no region of split 'benchm")


def test_texts_of_another_width_are_refused(done, tmp_path):
    write_cache(tmp_path / "wide", captions(SAMPLES), width=20)
    refused({**done[0], "text_embeddings": tmp_path / "wide"}, tmp_path, "have 20 numbers")


def test_a_missing_text_is_refused(done, tmp_path):
    write_cache(tmp_path / "few", captions(SAMPLES[:3]))
    refused({**done[0], "text_embeddings": tmp_path / "few"}, tmp_path, "has no embedding for")


def test_a_parent_of_another_architecture_is_refused(done, tmp_path):
    deeper = VISION.changed(num_layers=3)
    save_checkpoint(tmp_path / "parent", tiny_model(0, deeper))
    refused({**done[0], "parent": tmp_path / "parent"}, tmp_path, "is no parent of")


def test_a_damaged_checkpoint_is_refused(done, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    refused({**done[0], "checkpoint": tmp_path / "checkpoint"}, tmp_path, "is no checkpoint")


def test_a_model_that_gives_no_numbers_is_refused(done, tmp_path):
    model = tiny_model(1)
    with torch.no_grad():
        model.vision.projection.weight[0, 0] = float("nan")
    save_checkpoint(tmp_path / "checkpoint", model)
    refused({**done[0], "checkpoint": tmp_path / "checkpoint"}, tmp_path, "NaN or infinity")


@pytest.mark.parametrize("made_by", ["another tower", ""])
@pytest.mark.parametrize("name", ["parent", "checkpoint"])
def test_texts_of_another_text_tower_are_refused(tmp_path, name, made_by):
    inputs = inputs_of(tmp_path, SAMPLES[:4])
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text("{}")
    save_checkpoint(inputs[name], tiny_model(1), text_tower=tmp_path / "tower")
    if made_by:
        write_tower_digest(inputs["text_embeddings"], made_by)
    refused(inputs, tmp_path, "by another text tower" if made_by else "does not say by which")


def test_texts_of_the_models_own_text_tower_are_taken(tmp_path):
    inputs = inputs_of(tmp_path, SAMPLES[:4])
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "config.json").write_text("{}")
    (tmp_path / "tower" / RECEIPT_NAME).write_text("a pipeline's")
    for name in ("parent", "checkpoint"):
        save_checkpoint(inputs[name], tiny_model(1), text_tower=tmp_path / "tower")
    write_tower_digest(inputs["text_embeddings"], tower_digest(tmp_path / "tower"))
    run(inputs, tmp_path / "evaluation")
