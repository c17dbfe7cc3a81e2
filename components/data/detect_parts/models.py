"""Grounding DINO (arXiv:2303.05499) and OWLv2 (arXiv:2306.09683) through transformers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from components.core.errors import SettingsError
from components.data.detect_parts.detector import Detection, Floats, Scores, detections_of
from components.data.detect_parts.settings import DetectPartsSettings

if TYPE_CHECKING:
    from torch import Tensor


class TransformersDetector(ABC):
    """A detector of transformers; B images, Q boxes, P queries, W words of all queries."""

    processor: str  # transformers' class, of those that need no torchvision
    model: str
    has_text_threshold: bool

    def __init__(self, settings: DetectPartsSettings) -> None:
        import torch

        self._settings = settings
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(auto if settings.device == "auto" else settings.device)
        self._processor, self._tokenizer, self._model = load(settings, self.processor, self.model)
        self._model.eval().to(self._device)
        self._text_threshold = settings.text_threshold if self.has_text_threshold else 0.0
        self.source = f"detector:{self._named()}>={self._thresholds()}"

    def _named(self) -> str:
        """Model and commit; of a folder its name, as its path differs from machine to machine."""
        name = self._settings.model
        if Path(name).is_dir():
            return f"{Path(name).name}@{self._settings.revision}"
        return f"{name}@{self._model.config._commit_hash or self._settings.revision}"

    def _thresholds(self) -> str:
        text = f",{self._settings.text_threshold:g}" if self.has_text_threshold else ""
        return f"{self._settings.box_threshold:g}{text}"

    def detect(
        self, images: Sequence[Image.Image], queries: Sequence[str]
    ) -> list[list[Detection]]:
        """See all images together."""
        import torch

        pixels = self._processor(images=list(images), return_tensors="pt").to(self._device)
        precision = getattr(torch, self._settings.precision)
        with (
            torch.inference_mode(),
            torch.autocast(
                self._device.type, precision, enabled=self._settings.precision != "float32"
            ),
        ):
            best_BQP, mean_BQP, box_BQ4 = self._see(pixels, queries)
        numbers = (best_BQP, mean_BQP, box_BQ4)
        best, mean, boxes = (tensor.float().cpu().numpy() for tensor in numbers)
        return [
            detections_of(
                Scores(best[at], mean[at], self._in_pixels(boxes[at], image)),
                self._settings.box_threshold,
                self._text_threshold,
            )
            for at, image in enumerate(images)
        ]

    def _in_pixels(self, box_Q4: Floats, image: Image.Image) -> Floats:
        """Corners in pixels of centres and sizes that are shares of the model's input."""
        centre, half = box_Q4[:, :2], box_Q4[:, 2:] / 2
        corners = np.concatenate([centre - half, centre + half], axis=1)
        span, size = (np.array(sides * 2, np.float32) for sides in (self._span(image), image.size))
        return np.clip(corners * span, 0, size)

    @abstractmethod
    def _see(self, pixels: Any, queries: Sequence[str]) -> tuple["Tensor", "Tensor", "Tensor"]:
        """Best and mean score of each query's words [B, Q, P], and boxes [B, Q, 4]."""

    @abstractmethod
    def _span(self, image: Image.Image) -> tuple[int, int]:
        """Width and height in the image's pixels that a share of 1 stands for."""


class GroundingDino(TransformersDetector):
    """All queries are one text; every box has a score for every word of it.

    A query's score is that of its best word, as the original takes it; which query a box answers
    is decided by the mean over the words, as a word may stand in two queries.
    """

    processor, model = "GroundingDinoImageProcessorPil", "GroundingDinoForObjectDetection"
    has_text_threshold = True

    def _see(self, pixels: Any, queries: Sequence[str]) -> tuple["Tensor", "Tensor", "Tensor"]:
        import torch

        ids, spans = self._read(queries)
        text = torch.tensor([ids] * len(pixels["pixel_values"]), device=self._device)
        answer = self._model(**pixels, input_ids=text, token_type_ids=torch.zeros_like(text))
        word_BQW = answer.logits.float().sigmoid()
        best = torch.stack([word_BQW[..., span].amax(-1) for span in spans], dim=-1)
        mean = torch.stack([word_BQW[..., span].mean(-1) for span in spans], dim=-1)
        return best, mean, answer.pred_boxes

    def _read(self, queries: Sequence[str]) -> tuple[list[int], list[slice]]:
        """The tokens of `query. query. …`, and where each query's words are.

        Raises:
            SettingsError: the text is longer than the model takes.
        """
        tokenizer, limit = self._tokenizer, self._model.config.max_text_len
        (stop,) = tokenizer.encode(".", add_special_tokens=False)
        ids, spans = [tokenizer.cls_token_id], []
        for query in queries:
            words = tokenizer.encode(query.lower(), add_special_tokens=False)
            spans.append(slice(len(ids), len(ids) + len(words)))
            ids += [*words, stop]
        ids.append(tokenizer.sep_token_id)
        if len(ids) > limit:
            raise SettingsError(
                f"detect_parts.parts: {len(queries)} parts are {len(ids)} tokens in one text, and "
                f"the model takes {limit}; name fewer, or use OWLv2"
            )
        return ids, spans

    def _span(self, image: Image.Image) -> tuple[int, int]:
        return image.size


class Owlv2(TransformersDetector):
    """Every query is a text of its own, with one score a box."""

    processor, model = "Owlv2ImageProcessorPil", "Owlv2ForObjectDetection"
    has_text_threshold = False

    def _see(self, pixels: Any, queries: Sequence[str]) -> tuple["Tensor", "Tensor", "Tensor"]:
        text = {
            name: values.repeat(len(pixels["pixel_values"]), 1)
            for name, values in self._read(queries).items()
        }
        answer = self._model(**pixels, **text)
        score = answer.logits.float().sigmoid()
        return score, score, answer.pred_boxes

    def _read(self, queries: Sequence[str]) -> Any:
        """Tokens and their mask [P, W].

        Raises:
            SettingsError: a query is longer than the model takes.
        """
        limit = self._model.config.text_config.max_position_embeddings
        lengths = [len(ids) for ids in self._tokenizer(list(queries))["input_ids"]]
        if max(lengths) > limit:
            longest = queries[lengths.index(max(lengths))]
            raise SettingsError(
                f"detect_parts: {longest!r} is {max(lengths)} tokens, and the model takes {limit}; "
                "shorten detect_parts.query or the part's name"
            )
        return self._tokenizer(
            list(queries), padding="max_length", max_length=limit, return_tensors="pt"
        ).to(self._device)

    def _span(self, image: Image.Image) -> tuple[int, int]:
        side = max(image.size)  # the image is padded to a square
        return side, side


KINDS = {"grounding-dino": GroundingDino, "owlv2": Owlv2}


def build_detector(settings: DetectPartsSettings) -> TransformersDetector:
    """The detector of the model that the settings name.

    Raises:
        SettingsError: no such model, another kind of model, or one whose weights are incomplete.
    """
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(settings.model, revision=settings.revision)
    except OSError as error:
        raise _unusable(settings, error) from error
    kind = KINDS.get(config.get("model_type", ""))
    if kind is None:
        raise SettingsError(
            f"detect_parts.model must be a Grounding DINO or OWLv2 model, {settings.model} is of "
            f"type {config.get('model_type')!r}"
        )
    return kind(settings)


def load(settings: DetectPartsSettings, processor: str, model: str) -> tuple[Any, Any, Any]:
    """Image processor, tokenizer and model, of safetensors and JSON alone.

    Raises:
        SettingsError: something is missing.
    """
    import transformers

    options = {"revision": settings.revision, "trust_remote_code": False}
    try:
        reader = getattr(transformers, processor).from_pretrained(settings.model, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(settings.model, **options)
        found, report = getattr(transformers, model).from_pretrained(
            settings.model, **options, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        raise _unusable(settings, error) from error
    if report["missing_keys"]:  # they would be random numbers
        raise SettingsError(
            f"detect_parts.model: the weights of {settings.model} lack "
            f"{len(report['missing_keys'])} parameters, e.g. {min(report['missing_keys'])}"
        )
    return reader, tokenizer, found


def _unusable(settings: DetectPartsSettings, error: OSError) -> SettingsError:
    return SettingsError(
        f"detect_parts.model: cannot load {settings.model} at revision {settings.revision} with "
        f"safetensors: {error}"
    )
