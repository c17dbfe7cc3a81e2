"""Grounding DINO and OWLv2 of tiny random weights, on the code path of the published ones."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
)

from components.core.errors import SettingsError
from components.data.detect_parts.models import build_detector
from components.data.detect_parts.settings import DetectPartsSettings
from tests.data.detect_parts.tiny_detectors import SAVE

QUERIES = ["wheel hub", "winglet", "nose"]
ALL = {"box_threshold": 1e-30, "text_threshold": 0}  # every box of the model


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp("models") / name for name in SAVE}
    for name, folder in made.items():
        SAVE[name](folder)
    return made


@pytest.fixture(params=SAVE)
def folder(request, folders):
    return folders[request.param]


def detector_of(folder, **settings):
    return build_detector(DetectPartsSettings(model=str(folder), **settings))


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (9, 11, 3), dtype=np.uint8) for _ in range(2)]
    sizes = (90, 60), (50, 100)
    return [Image.fromarray(a).resize(size) for a, size in zip(small, sizes, strict=True)]


def test_boxes_lie_in_their_images_and_answer_different_queries(folder):
    found = detector_of(folder, **ALL).detect(images(), QUERIES)
    assert [len(one) > 5 for one in found] == [True, True]
    for image, detections in zip(images(), found, strict=True):
        for one in detections:
            x1, y1, x2, y2 = one.box
            assert 0 <= x1 <= x2 <= image.width
            assert 0 <= y1 <= y2 <= image.height
            assert 0 <= one.score <= 1
    assert len({one.query for detections in found for one in detections}) > 1


def test_grounding_dino_gives_what_transformers_own_processor_gives(folders):
    folder, image = folders["gdino"], images()[0]
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    inputs = processor(images=image, text=[QUERIES], return_tensors="pt")
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    with torch.no_grad():
        answer = model(**inputs)
    (own,) = processor.post_process_grounded_object_detection(
        answer, threshold=0, target_sizes=[(image.height, image.width)]
    )
    detector = detector_of(folder, **ALL)
    ids, spans = detector._read(QUERIES)
    assert inputs["input_ids"][0].tolist() == ids
    texts = [processor.tokenizer.decode(ids[span]) for span in spans]
    assert texts == QUERIES
    (found,) = detector.detect([image], QUERIES)
    corners = own["boxes"].clamp(min=0).numpy().clip(max=[90, 60, 90, 60])
    assert np.allclose([one.box for one in found], corners, atol=1e-3)
    words = answer.logits[0].sigmoid().numpy()
    for place, one in enumerate(found):
        means = [words[place, span].mean() for span in spans]
        assert one.query == np.argmax(means)
        assert one.score == pytest.approx(words[place, spans[one.query]].max(), abs=1e-5)


def test_owlv2_gives_what_transformers_own_processor_gives(folders):
    folder, image = folders["owlv2"], images()[0]
    processor = Owlv2Processor(
        Owlv2ImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    inputs = processor(images=image, text=[QUERIES], return_tensors="pt")
    model = Owlv2ForObjectDetection.from_pretrained(folder).eval()
    with torch.no_grad():
        answer = model(**inputs)
    (own,) = processor.post_process_grounded_object_detection(
        answer, threshold=0, target_sizes=[(image.height, image.width)]
    )
    (found,) = detector_of(folder, **ALL).detect([image], QUERIES)
    assert [one.query for one in found] == own["labels"].tolist()
    assert np.allclose([one.score for one in found], own["scores"], atol=1e-5)
    corners = own["boxes"].clamp(min=0).numpy().clip(max=[90, 60, 90, 60])
    assert np.allclose([one.box for one in found], corners, atol=1e-3)


def test_images_together_give_nearly_what_each_gives_alone(folder):
    detector = detector_of(folder, **ALL)
    together = detector.detect(images(), QUERIES)
    for image, found in zip(images(), together, strict=True):
        (alone,) = detector.detect([image], QUERIES)
        assert len(alone) == len(found)
        best = [max(one.score for one in some) for some in (alone, found)]
        assert best[0] == pytest.approx(best[1], abs=0.1)


def test_thresholds_leave_out_what_scores_lower(folder):
    (every,) = detector_of(folder, **ALL).detect(images()[:1], QUERIES)
    scores = sorted({one.score for one in every})
    middle = sum(scores[len(scores) // 2 - 1 : len(scores) // 2 + 1]) / 2
    detector = detector_of(folder, box_threshold=middle, text_threshold=0)
    (few,) = detector.detect(images()[:1], QUERIES)
    assert few == [one for one in every if one.score >= middle]
    assert 0 < len(few) < len(every)


def test_lower_precision_finds_nearly_the_same(folder):
    full, low = (
        detector_of(folder, precision=precision, **ALL).detect(images()[:1], QUERIES)[0]
        for precision in ("float32", "bfloat16")
    )
    assert len(low) == len(full)
    assert max(one.score for one in low) == pytest.approx(max(one.score for one in full), abs=0.05)


def test_the_source_has_model_revision_and_thresholds_and_no_path_of_this_machine(folders):
    settings = {"box_threshold": 0.35, "text_threshold": 0.25}
    sources = {name: detector_of(folder, **settings).source for name, folder in folders.items()}
    assert sources == {
        "gdino": "detector:gdino@main>=0.35,0.25",
        "owlv2": "detector:owlv2@main>=0.35",
    }


@pytest.mark.parametrize("name", SAVE)
def test_parts_that_are_too_long_for_the_model_are_refused(folders, name):
    many = ["wheel hub " * 20] * 20
    with pytest.raises(SettingsError, match=r"detect_parts.*the model takes (16|256)"):
        detector_of(folders[name]).detect(images()[:1], many)


def test_another_kind_of_model_is_refused(tmp_path):
    config = CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="must be a Grounding DINO or OWLv2 model"):
        detector_of(tmp_path)


@pytest.mark.parametrize("name", SAVE)
def test_a_pickled_model_is_refused(tmp_path, name):
    SAVE[name](tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="safetensors"):
        detector_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "lost"),
    [("gdino", "model.text_projection.weight"), ("owlv2", "box_head.dense0.weight")],
)
def test_incomplete_weights_are_refused(tmp_path, name, lost):
    from safetensors.torch import load_file, save_file

    SAVE[name](tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsError, match=rf"lack 1 parameters.*{lost}"):
        detector_of(tmp_path)


def test_a_model_that_is_not_there_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match=r"detect_parts\.model"):
        detector_of(tmp_path / "missing")
