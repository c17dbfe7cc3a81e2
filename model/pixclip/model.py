"""The model: a vision tower that reads masks, a tower for texts, and a common temperature.

Legend: n, B images or regions, m texts, U distinct images, D embedding width, E width of the
language model, L tokens of a text, H = W = the side of the tower's square.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixclip.config import ClipTextConfig, ModelConfig
from pixclip.inputs import ImageLike, RegionLike, as_image, as_mask, pair_regions
from pixclip.preprocess import Preprocess
from pixclip.text.adaptor import TextAdaptor
from pixclip.text.clip_tower import ClipTextTower
from pixclip.vision import build_vision_tower

INITIAL_LOGIT_SCALE = math.log(100)  # CLIP's upper bound, at which its public weights ended
TEXTS_PER_PASS = 256
Prepared = tuple[Tensor, Tensor]  # image [3, H, W] and mask [1, H, W]
# From texts to what a text tower takes: `TextEncoder.encode` or a `ClipTokenizer`.
ReadTexts = Callable[[Sequence[str]], Tensor]


class TextTower(Protocol):
    """The module of a model that makes embeddings of texts.

    Both kinds satisfy it: `TextAdaptor` takes a language model's pooled states [B, E] (text.kind
    language_model), `ClipTextTower` token ids [B, L] (text.kind clip).
    """

    def __call__(self, inputs: Tensor, /) -> Tensor:
        """Embeddings [B, D], not normalised."""
        ...


class PixClip(nn.Module):
    """Embeds regions of images and texts in one space.

    `open_text` opens what reads texts for `encode_text` (a language model, CLIP's tokenizer) on a
    device, when it is first needed.
    """

    def __init__(
        self, config: ModelConfig, open_text: Callable[[str], ReadTexts] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.preprocess = Preprocess(config.vision.image_size_px, config.preprocess)
        self.vision = build_vision_tower(config.vision)
        embed_dim = config.vision.embed_dim
        if isinstance(config.text, ClipTextConfig):
            self.text = ClipTextTower(config.text, embed_dim)
        else:
            assert config.adaptor is not None, "see ModelConfig"
            self.adaptor = TextAdaptor(config.text.embed_dim, embed_dim, config.adaptor)
        self.logit_scale = nn.Parameter(torch.full((1,), INITIAL_LOGIT_SCALE))  # logarithm
        self._open_text = open_text
        self._read_texts: ReadTexts | None = None

    @property
    def text_tower(self) -> TextTower:
        """The module that makes embeddings of texts; see `TextTower` for what it takes."""
        return self.text if self.config.text.kind == "clip" else self.adaptor

    @property
    def reads_masks(self) -> bool:
        """Whether masks change embeddings: not while the mask convolution is zero, as it starts."""
        return bool(self.vision.mask_embed.weight.any())

    def encode_image(self, images: Any, masks: Any = None, *, batch_size: int = 32) -> Tensor:
        """L2-normalised embeddings [n, D] of regions, float32 on the CPU.

        Args:
            images: an image or a list of images: PIL, uint8 arrays [height, width, 3], paths.
            masks: `None` for whole images. For one image a mask or a list of masks; for a list
                of images one entry for each: `None`, a mask or a list of masks. A mask is an
                array [height, width], an RLE, a box (x1, y1, x2, y2) in pixels, or a polygon.
                An array may be soft: bytes from 0 to 255, or numbers from 0 to 1.
                The result follows the order of the images, then of their masks.
            batch_size: regions that go through the tower together. In float32 it changes no
                result; in bfloat16 it changes the rounding.

        Raises:
            ValueError: a mask does not fit its image, is empty or in no known form; an image
                cannot be read. The message says which.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        with self._inference():
            batches = _batched(self._prepare(images, masks), batch_size)
            embeddings = [self._embed_regions(batch) for batch in batches]
        return torch.cat(embeddings) if embeddings else torch.empty(0, self.vision.config.embed_dim)

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """L2-normalised embeddings [m, D] of texts, float32 on the CPU.

        Raises:
            ValueError: the checkpoint has no text tower, or a text is empty, no string or no
                Unicode.
        """
        texts = _as_texts(texts)
        if not texts:
            return torch.empty(0, self.vision.config.embed_dim)
        inputs = self._reader()(texts)
        with self._inference():
            passes = torch.split(inputs, TEXTS_PER_PASS)
            return torch.cat([self._embed_texts(part).cpu() for part in passes])

    def embed_pooled(self, pooled_BE: Tensor) -> Tensor:
        """L2-normalised embeddings [B, D] of what the language model made of texts, [B, E].

        In float32 at least: rounded to bfloat16, they would no longer be of length 1.

        Raises:
            ValueError: the model reads texts without a language model.
        """
        self.config.require_language_model()
        return self._embed_texts(pooled_BE)

    def _embed_texts(self, inputs: Tensor) -> Tensor:
        embeddings_BD = self.text_tower(inputs.to(self.logit_scale.device))
        dtype = torch.promote_types(embeddings_BD.dtype, torch.float32)
        return F.normalize(embeddings_BD.to(dtype), dim=-1)

    def similarity(self, images_nD: Tensor, texts_mD: Tensor) -> Tensor:
        """Cosine of every region with every text, [n, m] (paper, eq. 2).

        Raises:
            ValueError: these are no embeddings of `encode_image` and `encode_text`.
        """
        _require_embeddings(images_nD, texts_mD)
        return F.normalize(images_nD, dim=-1) @ F.normalize(texts_mD, dim=-1).T

    @contextmanager
    def _inference(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def _prepare(self, images: Any, masks: Any) -> Iterator[Prepared]:
        """Image and mask of every region; regions of one image share the image's tensor."""
        for number, (image_like, regions) in enumerate(pair_regions(images, masks)):
            if regions:
                yield from self._prepare_image(number, image_like, regions)

    def _prepare_image(
        self, number: int, image_like: ImageLike, regions: list[RegionLike | None]
    ) -> Iterator[Prepared]:
        try:
            image = as_image(image_like)
        except ValueError as error:
            raise ValueError(f"image {number}: {error}") from error
        pixels_CHW = self.preprocess.image(image)
        for place, region in enumerate(regions):
            if region is None:
                yield pixels_CHW, self.preprocess.full_mask()
                continue
            try:
                mask = as_mask(region, image.height, image.width)
                cover_1HW = self.preprocess.cover(mask)
                if not cover_1HW.any():
                    raise ValueError(
                        "the region lies outside of the middle of the image, which is all that "
                        f"this model sees (preprocess.resize={self.preprocess.config.resize})"
                    )
            except ValueError as error:
                raise ValueError(f"image {number}, mask {place}: {error}") from None
            yield pixels_CHW, self.preprocess.normalise_cover(cover_1HW)

    def _embed_regions(self, batch: list[Prepared]) -> Tensor:
        device = self.logit_scale.device
        distinct = {id(image): image for image, _ in batch}
        place = {key: index for index, key in enumerate(distinct)}
        images_UCHW = torch.stack(list(distinct.values())).to(device)
        masks_B1HW = torch.stack([mask for _, mask in batch]).to(device)
        index_B = torch.tensor([place[id(image)] for image, _ in batch], device=device)
        tokens_BNW = self.vision.tokens_of_regions(images_UCHW, masks_B1HW, index_B)
        return F.normalize(self.vision.encode(tokens_BNW)[0].float(), dim=-1).cpu()

    def _reader(self) -> ReadTexts:
        if self._read_texts is None:
            if self._open_text is None:
                raise ValueError(
                    "this model has no text tower, so it cannot read texts; load a checkpoint "
                    "folder with `text_tower/`, or give cached text embeddings to `embed_pooled`"
                )
            self._read_texts = self._open_text(str(self.logit_scale.device))
        return self._read_texts


def _require_embeddings(images_nD: Any, texts_mD: Any) -> None:
    given = (images_nD, texts_mD)
    are_tables = all(isinstance(one, Tensor) and one.ndim == 2 for one in given)
    if not are_tables or images_nD.shape[1] != texts_mD.shape[1]:
        forms = [f"{type(one).__name__} {list(getattr(one, 'shape', []))}" for one in given]
        raise ValueError(
            "similarity takes what encode_image and encode_text gave, tensors [n, D] and [m, D], "
            f"got {forms[0]} and {forms[1]}"
        )


def _as_texts(texts: Any) -> list[str]:
    is_one = isinstance(texts, str) or not isinstance(texts, Iterable)
    given: list[Any] = [texts] if is_one else list(texts)
    for number, text in enumerate(given):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is no string but {type(text).__name__}: {text!r:.80}")
    return given


def _batched(regions: Iterator[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    for region in regions:
        batch.append(region)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
