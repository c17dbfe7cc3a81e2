"""The text tower: a language model that gives every caption one vector.

    encoder = TextEncoder.open("text_tower")
    pooled_nE = encoder.encode(["a red car", "a very long description …"])

A caption's vector is the mean of the last hidden states over the caption's own tokens: neither
markers (prefix, suffix, start and end of text) nor padding count, unless `text.pooling` is
caption_and_end, which counts what follows the caption too, as LLM2CLIP does. It is whitened if the
tower says so. It does not depend on the other captions of a call, their number or their order: see
`TextEncoder.encode`.
"""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from pixclip.config import TextConfig, from_dict, to_dict
from pixclip.json_files import read_json_object, shown
from pixclip.text.language_model import (
    damage_told,
    open_language_model,
    read_both_ways,
    without_bars,
)
from pixclip.text.tokens import Caption, CaptionTokenizer

log = logging.getLogger(__name__)

# n = texts of a call, R = rows of a pass, N = padded length, E = width of the language model
CONFIG_NAME, ADAPTER_NAME = "text_tower.json", "adapter_config.json"


def usual_dtype(device: str) -> torch.dtype:
    """The number format of a tower's weights: bfloat16 on a GPU and float32 on a CPU."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


# n = captions, E = width of the language model


# Whitening: what all captions have in common is taken out of their vectors.
#
# The pooled states of a language model point in almost one direction: in SmolLM2's fourth layer, 90
# % of their length is the mean of all captions, and a few directions hold most of the rest.
# Whitening (Su et al., arXiv:2103.15316) takes the mean out and evens the directions out, here to a
# share:
#
#     y = (x/|x| - mean) U diag((λ / max λ)^(-share/2)) Uᵀ
#
# with the eigenvectors U and eigenvalues λ of the covariance of the unit vectors x/|x|.


class Whitening:
    """A linear map of pooled states, float32."""

    def __init__(self, mean_E: Tensor, map_EE: Tensor) -> None:
        self._mean_E, self._map_EE = mean_E, map_EE

    @classmethod
    def fit(cls, pooled_nE: Tensor, share: float) -> "Whitening":
        """The map that evens out pooled states like these; share 0 takes out the mean alone.

        Raises:
            ValueError: there are fewer than two states, or the share is not in [0, 1].
        """
        if len(pooled_nE) < 2:
            raise ValueError(f"whitening needs at least two captions, got {len(pooled_nE)}")
        if not 0 <= share <= 1:
            raise ValueError(f"the share of whitening must be in [0, 1], got {share}")
        unit_nE = F.normalize(pooled_nE.double(), dim=-1)
        variance_E, directions_EE = torch.linalg.eigh(unit_nE.T.cov())
        largest = variance_E.max().clamp(min=torch.finfo(torch.float32).tiny)
        gain_E = (variance_E / largest).clamp(min=LEAST_VARIANCE) ** (-share / 2)
        map_EE = directions_EE @ torch.diag(gain_E) @ directions_EE.T
        return cls(unit_nE.mean(dim=0).float(), map_EE.float().contiguous())

    @classmethod
    def open(cls, folder: Path, embed_dim: int) -> "Whitening":
        """The map in the folder of a text tower.

        Raises:
            ValueError: there is none, or it is not of this width.
        """
        path = folder / WHITENING_NAME
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}), and the text tower's settings say whitened: "
                "bring the whole folder"
            ) from None
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {"mean": (embed_dim,), "map": (embed_dim, embed_dim)}
        if found != wanted:
            raise ValueError(f"{path} must hold the tensors {wanted}, holds {found}")
        return cls(tensors["mean"].float(), tensors["map"].float())

    def save(self, folder: Path) -> None:
        """Write the map into the folder of a text tower."""
        save_file({"mean": self._mean_E, "map": self._map_EE}, folder / WHITENING_NAME)

    def __call__(self, pooled_BE: Tensor) -> Tensor:
        """Pooled states [B, E], evened out, in float32 on their device."""
        mean_E, map_EE = self._mean_E.to(pooled_BE.device), self._map_EE.to(pooled_BE.device)
        whitened_BE: Tensor = (F.normalize(pooled_BE.float(), dim=-1) - mean_E) @ map_EE
        return whitened_BE


class TextEncoder:
    """A language model that gives every caption one vector of width `config.embed_dim`."""

    def __init__(
        self,
        body: Any,
        tokenizer: Any,
        config: TextConfig,
        whitening: Whitening | None = None,
    ) -> None:
        if body.config.hidden_size != config.embed_dim:
            raise ValueError(
                f"text.embed_dim must be the language model's width {body.config.hidden_size}, "
                f"got {config.embed_dim}"
            )
        if config.whitened != (whitening is not None):
            raise ValueError(
                f"text.whitened is {config.whitened}, but the whitening given is {whitening}"
            )
        self.config = config
        self._whitening = whitening
        self.tokenize = CaptionTokenizer(tokenizer, config)
        self._body = body
        self._tokenizer = tokenizer

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], device: str = "cpu", dtype: torch.dtype | None = None
    ) -> "TextEncoder":
        """The text tower in a folder; `dtype` None means the usual one of the device.

        Raises:
            ValueError: the folder is no text tower, or its weights are not complete.
        """
        try:
            return cls._open(folder, device, dtype)
        except ValueError as error:
            if str(folder) in str(error):
                raise
            raise ValueError(f"the text tower {folder} is damaged: {error}") from error

    @classmethod
    def _open(
        cls, folder: str | os.PathLike[str], device: str, dtype: torch.dtype | None
    ) -> "TextEncoder":
        from transformers import AutoTokenizer

        config, _ = read_text_tower(Path(folder))
        if (Path(folder) / ADAPTER_NAME).exists():
            # transformers would follow it to another model, elsewhere, and load that one.
            raise ValueError(f"{folder} holds {ADAPTER_NAME}; a text tower has no adapters: merge")
        dtype = dtype or usual_dtype(device)
        if not Path(folder).is_dir():  # else transformers would ask the Hub for it
            raise ValueError(f"{folder} is no folder")
        body = open_language_model(Path(folder), with_head=False, dtype=dtype).to(device)
        with damage_told(f"the tokenizer of {folder}"):
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        whitening = Whitening.open(Path(folder), config.embed_dim) if config.whitened else None
        return cls(body, tokenizer, config, whitening)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vectors [n, E] of texts in float32 on the CPU: bfloat16 values, as caches store them.

        Rounding in a matrix product depends on the product's shape. So a caption is padded to a
        length that it alone decides, and every pass over that length has the same number of rows.
        A text of more than `config.max_tokens` is read so far, and a warning is logged.

        Raises:
            ValueError: a text is empty or no Unicode.
        """
        captions = self.tokenize(texts)
        num_cut = sum(caption.is_truncated for caption in captions)
        if num_cut:
            log.warning(
                "%d of %d texts are longer than the %d tokens that the text tower takes; "
                "what comes after them is not read",
                num_cut,
                len(captions),
                self.config.max_tokens,
            )
        return self.encode_tokens(captions)

    @torch.no_grad()  # not inference mode: its tensors could not train an adaptor
    def encode_tokens(
        self, captions: Sequence[Caption], on_pass: Callable[[int], object] | None = None
    ) -> Tensor:
        """The vectors [n, E] of tokenized captions; tells `on_pass` how many each pass finished."""
        pooled_nE = torch.empty(len(captions), self.config.embed_dim)
        was_training = self._body.training
        self._body.eval()
        for length, places in self._passes(captions):
            rows = [captions[place] for place in places]
            pooled_nE[torch.tensor(places)] = self._run_pass(rows, length)
            if on_pass is not None:
                on_pass(len(places))
        self._body.train(was_training)
        return pooled_nE

    def _passes(self, captions: Sequence[Caption]) -> Iterator[tuple[int, list[int]]]:
        """Places of captions that go through the model together, longest first."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for place, caption in enumerate(captions):
            by_length[caption.padded_length].append(place)
        for length in sorted(by_length, reverse=True):
            places, num_rows = by_length[length], self._num_rows(length)
            for start in range(0, len(places), num_rows):
                yield length, places[start : start + num_rows]

    def _num_rows(self, length: int) -> int:
        return max(1, self.config.tokens_per_pass // length)

    def _run_pass(self, captions: list[Caption], length: int) -> Tensor:
        # Missing rows are filled with the first one: the shape must not depend on their number.
        num_rows = self._num_rows(length)
        filled = captions + captions[:1] * (num_rows - len(captions))
        device = self._body.device
        ids_RN = torch.zeros(num_rows, length, dtype=torch.long)
        for row, caption in enumerate(filled):
            ids_RN[row, : len(caption.ids)] = torch.tensor(caption.ids)
        is_token_RN = _between(0, [len(caption.ids) for caption in filled], length)
        counts_end = self.config.pooling == "caption_and_end"
        is_pooled_RN = is_token_RN & _between(
            [caption.start for caption in filled],
            [len(caption.ids) if counts_end else caption.stop for caption in filled],
            length,
        )
        hidden_RNE = read_both_ways(self._body, ids_RN.to(device), is_token_RN.to(device))
        pooled_RE = mean_over(hidden_RNE, is_pooled_RN.to(device))
        if self._whitening is not None:
            pooled_RE = self._whitening(pooled_RE)
        return pooled_RE[: len(captions)].bfloat16().float().cpu()


def mean_over(hidden_BNE: Tensor, is_pooled_BN: Tensor) -> Tensor:
    """The mean [B, E] of hidden states over chosen tokens, in float32."""
    weights_BN1 = is_pooled_BN.unsqueeze(-1).float()
    total_BE = torch.where(is_pooled_BN.unsqueeze(-1), hidden_BNE.float(), 0.0).sum(dim=1)
    return total_BE / weights_BN1.sum(dim=1)


def _between(starts: int | list[int], stops: list[int], length: int) -> Tensor:
    places_1N = torch.arange(length)[None]
    return (places_1N >= torch.tensor(starts).reshape(-1, 1)) & (
        places_1N < torch.tensor(stops).reshape(-1, 1)
    )


def save_text_tower(
    folder: Path,
    body: Any,
    tokenizer: Any,
    config: TextConfig,
    provenance: Mapping[str, Any],
    whitening: Whitening | None = None,
) -> None:
    """Write a self-contained text tower: weights (safetensors), tokenizer, `text_tower.json`."""
    with without_bars():
        body.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if whitening is not None:
        whitening.save(folder)
    described = {"config": to_dict(config), "provenance": dict(provenance)}
    (folder / CONFIG_NAME).write_text(
        json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def read_text_tower(folder: Path) -> tuple[TextConfig, dict[str, Any]]:
    """Configuration and provenance of the text tower in a folder.

    Raises:
        ValueError: the folder is none.
    """
    path = folder / CONFIG_NAME
    try:
        content = read_json_object(path)
        config, provenance = dict(content["config"]), dict(content["provenance"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is no text tower: {CONFIG_NAME} cannot be read ({shown(error)}); "
            "`pixclip adapt-text` makes one of a causal language model"
        ) from None
    try:
        return from_dict(TextConfig, config, "text"), provenance
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


WHITENING_NAME = "whitening.safetensors"
LEAST_VARIANCE = 1e-4  # of the largest; what varies less is raised no further
