"""What an adaptation is asked to do, as a JSON file. Without torch."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pixclip.config import from_dict, to_dict

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class MaskedTokens:
    """Masked next-token prediction (LLM2Vec, section 2.1, step 2)."""

    num_steps: int = 1000
    batch_size: int = 32  # captions over all ranks
    lr: float = 5e-5
    warmup_steps: int = 0
    mask_share: float = 0.2
    hide_behind: str = "_"  # causal models have no mask token; LLM2Vec takes this one


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Contrast of a region's short and long caption, or of a caption with itself (SimCSE)."""

    kind: Literal["captions", "simcse"] = "captions"
    num_steps: int = 1000
    batch_size: int = 512  # pairs over all ranks
    lr: float = 2e-4
    warmup_steps: int = 300
    scale: float = 50.0  # factor of cosines; LLM2Vec: 50 for pairs, 20 for SimCSE
    attention_dropout: float = 0.0  # LLM2Vec: 0.3 for SimCSE, whose two views differ by it alone


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters on every linear layer but the head; merged at the end."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05


def require_two_views(contrast: Contrast, lora: Lora) -> None:
    """Refuse SimCSE without any dropout: both views of a caption would be equal.

    Raises:
        ValueError: says what to set.
    """
    dropouts = contrast.attention_dropout, lora.dropout
    if contrast.kind == "simcse" and contrast.num_steps and not any(dropouts):
        raise ValueError(
            "contrast.kind=simcse contrasts a caption with itself, and without dropout both views "
            "are equal: set contrast.attention_dropout (LLM2Vec: 0.3), or at least lora.dropout, "
            "which tells them apart from the second step on"
        )


@dataclass(frozen=True, kw_only=True)
class Whiten:
    """Evening out of the finished tower's vectors; see `pixclip.text.whitening`."""

    share: float = 0.0  # 1 makes all directions equally strong; 0 leaves the vectors alone
    num_captions: int = 8192  # that mean and directions are measured on, short and long ones


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How captions are put to the model; see `pixclip.config.TextConfig`."""

    max_tokens: int = 512
    prefix: str = ""
    suffix: str = ""
    tokens_per_pass: int = 128


@dataclass(frozen=True, kw_only=True)
class AdaptJob:
    """An adaptation; everything it makes is below `work`."""

    base_model: str  # folder or name on the Hugging Face Hub
    pairs: str  # Parquet file with the columns short_caption and long_caption
    work: str
    revision: str = "main"
    num_layers: int = 0  # lowest layers that are kept; 0 keeps all
    text: TextFormat = field(default_factory=TextFormat)
    masked_tokens: MaskedTokens = field(default_factory=MaskedTokens)
    contrast: Contrast = field(default_factory=Contrast)
    lora: Lora = field(default_factory=Lora)
    whiten: Whiten = field(default_factory=Whiten)
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    seed: int = 0
    save_every_s: float = 300.0

    def __post_init__(self) -> None:
        require_two_views(self.contrast, self.lora)

    @property
    def tower(self) -> Path:
        """Where the finished text tower is written, by rename."""
        return Path(self.work) / "tower"

    @property
    def tower_mark(self) -> Path:
        """Where the digest of the finished tower is, by which damage is found out."""
        return Path(self.work) / "tower.sha256"

    @property
    def steps(self) -> Path:
        """Where every step's numbers are written, one JSON line each."""
        return Path(self.work) / "steps.jsonl"


def write_job(path: Path, job: AdaptJob) -> None:
    """Write a job; `read_job` gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_dict(job), indent=1), encoding="utf-8")


def read_job(path: Path) -> AdaptJob:
    """The job of a file.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    job: AdaptJob = from_dict(AdaptJob, json.loads(path.read_text(encoding="utf-8")), "job")
    return job
