"""SAM (arXiv:2304.02643) and SAM 2 (arXiv:2408.00714) through transformers.

The image encoder sees several images at once, each of them once; the decoder answers all boxes of
an image together. What transformers' processors do is done here, because the one of SAM 2 needs
torchvision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from components.core.errors import SettingsError
from components.data.segment.segmenter import MaskResult, Prompt
from components.data.segment.settings import SamSettings
from pixclip.masks import Box, Mask

if TYPE_CHECKING:
    from torch import Tensor

# Of the images both models were trained on, in the order of the channels.
MEAN_RGB, DEVIATION_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Frame:
    """Where an image lies in a model's square input: at its top left, in this size."""

    side_px: int
    width_px: int
    height_px: int

    def place(self, box: Box, image: Image.Image) -> list[float]:
        """A box of the image in the input's coordinates."""
        scale_x, scale_y = self.width_px / image.width, self.height_px / image.height
        return [box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y]


class SamSegmenter:
    """Asks a SAM or SAM 2 model for the object in each box."""

    num_threads = 1  # the device is the bottleneck

    def __init__(self, settings: SamSettings) -> None:
        import torch

        # A folder's path would make the same masks differ from machine to machine.
        is_folder = Path(settings.model).is_dir()
        self.source = f"sam:{Path(settings.model).name if is_folder else settings.model}"
        self.images_per_batch = settings.images_per_batch
        self._settings = settings
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(auto if settings.device == "auto" else settings.device)
        self._model, self._keeps_ratio = load_sam(settings)
        self._model.eval().to(self._device)
        vision = self._model.config.vision_config
        side = getattr(vision, "image_size", None) or vision.backbone_config.image_size
        self._side_px: int = side if isinstance(side, int) else side[0]

    def segment(self, prompts: Sequence[Prompt]) -> list[list[MaskResult]]:
        """Encode all images together, then decode each image's boxes."""
        import torch

        frames = [self._frame(prompt.image) for prompt in prompts]
        pixels = [to_input(p.image, frame) for p, frame in zip(prompts, frames, strict=True)]
        precision = getattr(torch, self._settings.precision)
        with (
            torch.inference_mode(),
            torch.autocast(
                self._device.type, precision, enabled=self._settings.precision != "float32"
            ),
        ):
            batch = torch.stack(pixels).to(self._device)
            encoded = self._model.get_image_embeddings(batch)
        # SAM gives one map of features, SAM 2 three of different sizes.
        maps = encoded if isinstance(encoded, (list, tuple)) else [encoded]
        return [
            self._decode(prompt, frame, [features[i : i + 1].float() for features in maps])
            for i, (prompt, frame) in enumerate(zip(prompts, frames, strict=True))
        ]

    def _frame(self, image: Image.Image) -> Frame:
        side = self._side_px
        if not self._keeps_ratio:
            return Frame(side, side, side)
        scale = side / max(image.size)
        return Frame(side, int(image.width * scale + 0.5), int(image.height * scale + 0.5))

    def _decode(self, prompt: Prompt, frame: Frame, maps: list["Tensor"]) -> list[MaskResult]:
        import torch

        results: list[MaskResult] = []
        step = self._settings.boxes_per_pass
        for start in range(0, len(prompt.boxes), step):
            boxes = [frame.place(box, prompt.image) for box in prompt.boxes[start : start + step]]
            with torch.inference_mode():
                answer = self._model(
                    image_embeddings=maps if len(maps) > 1 else maps[0],
                    input_boxes=torch.tensor([boxes], dtype=torch.float32, device=self._device),
                    multimask_output=self._settings.num_candidates > 1,
                )
            for logits, scores in zip(answer.pred_masks[0], answer.iou_scores[0], strict=True):
                best = int(scores.argmax())
                mask = self._to_image(logits[best], frame, prompt.image)
                results.append(MaskResult(mask, round(float(scores[best]), 6)))
        return results

    def _to_image(self, logits: "Tensor", frame: Frame, image: Image.Image) -> Mask:
        """Logits [h, w] of the model's input as a mask [H, W] of the image."""
        if self._keeps_ratio:
            whole = resize(logits, frame.side_px, frame.side_px)
            logits = whole[: frame.height_px, : frame.width_px]
        mask: Mask = (resize(logits, image.height, image.width) > 0).cpu().numpy()
        return mask


def load_sam(settings: SamSettings) -> tuple[Any, bool]:
    """A SAM or SAM 2 model, and whether its input keeps the image's ratio of sides.

    Raises:
        SettingsError: no such model, another kind of model, or one whose weights are incomplete.
    """
    from transformers import PretrainedConfig, Sam2Model, SamModel

    # A SAM 2 model is published as a model of videos; its image part is loaded.
    kinds = {"sam": (SamModel, True), "sam2": (Sam2Model, False), "sam2_video": (Sam2Model, False)}
    options = {"revision": settings.revision}
    try:
        config, _ = PretrainedConfig.get_config_dict(settings.model, **options)
        if config.get("model_type") not in kinds:
            raise SettingsError(
                f"segment.sam.model must be a SAM or SAM 2 model, {settings.model} is of type "
                f"{config.get('model_type')!r}"
            )
        kind, keeps_ratio = kinds[config["model_type"]]
        model, report = kind.from_pretrained(
            settings.model, **options, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        raise SettingsError(
            f"segment.sam.model: cannot load {settings.model} at revision {settings.revision} "
            f"with safetensors: {error}"
        ) from error
    if report["missing_keys"]:  # they would be random numbers
        raise SettingsError(
            f"segment.sam.model: the weights of {settings.model} lack "
            f"{len(report['missing_keys'])} parameters, e.g. {min(report['missing_keys'])}"
        )
    return model, keeps_ratio


def to_input(image: Image.Image, frame: Frame) -> "Tensor":
    """An image as the model's input [3, side, side], normalised, the rest filled with zeros."""
    import torch

    resized = image.resize((frame.width_px, frame.height_px), Image.Resampling.BILINEAR)
    pixels = (np.asarray(resized, dtype=np.float32) / 255 - MEAN_RGB) / DEVIATION_RGB
    padded = torch.zeros(3, frame.side_px, frame.side_px)
    padded[:, : frame.height_px, : frame.width_px] = torch.from_numpy(pixels).permute(2, 0, 1)
    return padded


def resize(logits: "Tensor", height_px: int, width_px: int) -> "Tensor":
    """Logits [h, w] in another size."""
    from torch.nn.functional import interpolate

    scaled: Tensor = interpolate(
        logits[None, None], (height_px, width_px), mode="bilinear", align_corners=False
    )
    return scaled[0, 0]
