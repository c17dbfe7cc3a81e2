"""SAM and SAM 2 of tiny random weights, through the same code path as the published ones."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.models.sam.processing_sam import SamProcessor

from components.core.errors import SettingsError
from components.data.segment.sam import DEVIATION_RGB, MEAN_RGB, Frame, SamSegmenter
from components.data.segment.segmenter import Prompt
from components.data.segment.settings import SamSettings

SIDE_PX, HIDDEN = 64, 16
DECODER = {
    "hidden_size": HIDDEN,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower with more, and with any on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sam_model() -> SamModel:
    vision = SamVisionConfig(
        hidden_size=HIDDEN,
        output_channels=HIDDEN,
        num_pos_feats=HIDDEN // 2,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE_PX,
        patch_size=16,
        window_size=2,
        global_attn_indexes=[0],
        mlp_dim=16,
    )
    prompt = SamPromptEncoderConfig(
        hidden_size=HIDDEN, image_size=SIDE_PX, patch_size=16, mask_input_channels=4
    )
    decoder = SamMaskDecoderConfig(**DECODER)
    return SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )


def sam2_model() -> Sam2Model:
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE_PX, SIDE_PX],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 2, 4, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=HIDDEN,
    )
    prompt = Sam2PromptEncoderConfig(
        hidden_size=HIDDEN, image_size=SIDE_PX, patch_size=16, mask_input_channels=4
    )
    decoder = Sam2MaskDecoderConfig(**DECODER)
    return Sam2Model(
        Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )


@pytest.fixture(scope="module", params=[sam_model, sam2_model], ids=["sam", "sam2"])
def model_folder(request, tmp_path_factory):
    """A saved model whose masks vary over the image (random weights alone give flat ones)."""
    torch.manual_seed(1)
    model = request.param()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("models") / request.node.name.split("[")[-1].strip("]")
    model.save_pretrained(folder)
    return folder


def segmenter_of(folder, **settings):
    return SamSegmenter(SamSettings(model=str(folder), precision="float32", **settings))


def prompts() -> list[Prompt]:
    """Images of different shapes, sizes and numbers of boxes."""
    rng = np.random.default_rng(0)
    made = []
    for width_px, height_px, num_boxes in ((100, 80, 3), (48, 96, 1), (64, 64, 2)):
        noise = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
        corners = rng.random((num_boxes, 2)) * [width_px / 2, height_px / 2]
        sides = rng.random((num_boxes, 2)) * [width_px / 2, height_px / 2] + 4
        boxes = np.concatenate([corners, corners + sides], axis=1)
        made.append(Prompt(noise.resize((width_px, height_px)), tuple(map(tuple, boxes.tolist()))))
    return made


def agreement(first, second) -> float:
    """The share of equal pixels; interpolation on borders may round differently."""
    assert first.mask.shape == second.mask.shape
    return float((first.mask == second.mask).mean())


def test_masks_have_the_images_size_and_vary(model_folder):
    results = segmenter_of(model_folder).segment(prompts())
    masks = [result.mask for found in results for result in found]
    assert [m.shape for m in masks] == [(80, 100)] * 3 + [(96, 48)] + [(64, 64)] * 2
    assert any(0.02 < mask.mean() < 0.98 for mask in masks), "the test's model says nothing"


def test_all_boxes_and_images_together_give_what_each_gives_alone(model_folder):
    together = segmenter_of(model_folder).segment(prompts())
    single = segmenter_of(model_folder, boxes_per_pass=1, images_per_batch=1)
    for prompt, found in zip(prompts(), together, strict=True):
        for box, result in zip(prompt.boxes, found, strict=True):
            ((alone,),) = single.segment([Prompt(prompt.image, (box,))])
            assert agreement(alone, result) > 0.999
            assert alone.score == pytest.approx(result.score, abs=1e-4)


def test_the_mask_depends_on_the_box(model_folder):
    image = prompts()[0].image
    corner, other = segmenter_of(model_folder).segment(
        [Prompt(image, ((0.0, 0.0, 20.0, 20.0), (70.0, 50.0, 99.0, 79.0)))]
    )[0]
    assert corner.score != other.score


def test_each_image_is_encoded_once_for_all_its_boxes(model_folder, monkeypatch):
    segmenter = segmenter_of(model_folder, boxes_per_pass=1)
    sizes = []
    encode = segmenter._model.get_image_embeddings

    def counted(pixels):
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(segmenter._model, "get_image_embeddings", counted)
    segmenter.segment(prompts())
    assert sizes == [3]


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("models") / "direct"
    sam_model().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("num_candidates", [1, 3])
def test_sam_gives_what_transformers_own_processor_gives_for_one_box(sam_folder, num_candidates):
    processor = SamProcessor(
        SamImageProcessorPil(
            size={"longest_edge": SIDE_PX}, pad_size={"height": SIDE_PX, "width": SIDE_PX}
        )
    )
    model = SamModel.from_pretrained(sam_folder).eval()
    ours = segmenter_of(sam_folder, num_candidates=num_candidates).segment(prompts())
    for prompt, found in zip(prompts(), ours, strict=True):
        for box, result in zip(prompt.boxes, found, strict=True):
            inputs = processor(prompt.image, input_boxes=[[list(box)]], return_tensors="pt")
            inputs["input_boxes"] = inputs["input_boxes"].float()
            sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
            with torch.no_grad():
                answer = model(**inputs, multimask_output=num_candidates > 1)
            masks = processor.post_process_masks(answer.pred_masks, *sizes)[0][0]
            best = int(answer.iou_scores[0, 0].argmax())
            assert result.score == pytest.approx(float(answer.iou_scores[0, 0, best]), abs=1e-4)
            assert (masks[best].numpy() == result.mask).mean() > 0.999


def test_sam2_gives_what_a_direct_call_gives_for_one_box(tmp_path):
    torch.manual_seed(3)
    sam2_model().save_pretrained(tmp_path)
    model = Sam2Model.from_pretrained(tmp_path).eval()
    prompt = prompts()[0]
    (result, *_) = segmenter_of(tmp_path).segment([prompt])[0]
    # SAM 2 squeezes the image into the square, and the box with it.
    squeezed = np.asarray(prompt.image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))
    pixels = (squeezed / 255 - np.array(MEAN_RGB)) / np.array(DEVIATION_RGB)
    box = np.array(prompt.boxes[0]) * ([SIDE_PX / 100, SIDE_PX / 80] * 2)
    with torch.no_grad():
        answer = model(
            pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None].float(),
            input_boxes=torch.from_numpy(box)[None, None].float(),
        )
    best = int(answer.iou_scores[0, 0].argmax())
    logits = torch.nn.functional.interpolate(
        answer.pred_masks[0, :, best][None], (80, 100), mode="bilinear", align_corners=False
    )
    assert ((logits[0, 0] > 0).numpy() == result.mask).mean() > 0.999
    assert result.score == pytest.approx(float(answer.iou_scores[0, 0, best]), abs=1e-4)


def test_boxes_are_scaled_with_the_image():
    image = Image.new("RGB", (100, 80))
    assert Frame(64, 64, 51).place((50, 40, 100, 80), image) == [32, 25.5, 64, 51]
    assert Frame(64, 64, 64).place((50, 40, 100, 80), image) == [32, 32, 64, 64]


def test_lower_precision_is_close_to_full(model_folder):
    full = segmenter_of(model_folder).segment(prompts())
    settings = SamSettings(model=str(model_folder), precision="bfloat16")
    low = SamSegmenter(settings).segment(prompts())
    shares = [
        agreement(a, b)
        for fs, ls in zip(full, low, strict=True)
        for a, b in zip(fs, ls, strict=True)
    ]
    assert np.mean(shares) > 0.8


def test_the_source_names_the_model_and_no_path_of_this_machine(model_folder):
    assert segmenter_of(model_folder).source == f"sam:{model_folder.name}"


def test_another_kind_of_model_is_refused(tmp_path):
    config = CLIPVisionConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="must be a SAM or SAM 2 model"):
        segmenter_of(tmp_path)


def test_a_pickled_model_is_refused(tmp_path):
    model = sam_model()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="safetensors"):
        segmenter_of(tmp_path)


def test_incomplete_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    sam_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["mask_decoder.mask_tokens.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsError, match=r"lack 1 parameters.*mask_tokens"):
        segmenter_of(tmp_path)


def test_a_model_that_is_not_there_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match=r"segment\.sam\.model"):
        segmenter_of(tmp_path / "missing")
