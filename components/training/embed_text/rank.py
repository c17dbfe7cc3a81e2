"""A rank's share of embed_text: every rank embeds some of the captions' parts.

Ranks need nothing of each other. The step embeds everything itself if it is the only one, or waits
for those that torchrun starts, here or on other nodes:

torchrun --nproc-per-node 2 -m components.training.embed_text.rank --job job.json
"""

import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from components.core.errors import InputError
from components.core.files import write_whole
from components.core.progress import progress
from components.core.torchrun import job_of_rank
from components.training.embed_text.parts import Part, SortedCaptions, embed_part
from pixclip.config import Config
from pixclip.text.encoder import TextEncoder, usual_dtype
from pixclip.training.job import read_job

log = logging.getLogger(__name__)


class EmbedJob(Config):
    """What ranks are asked to embed: the sorted captions' parts, each rank its share of them."""

    text_tower: str  # folder
    digest: str  # of the tower
    captions: str  # folder of `SortedCaptions`
    num_parts: int = Field(ge=1)
    work: str  # where vectors are kept
    precision: Literal["auto", "fp32", "bf16"]
    device: str


def embed_share(job: EmbedJob, rank: int = 0, num_ranks: int = 1) -> None:
    """Embed every `num_ranks`-th part, from the `rank`-th on; what is embedded already stays.

    Raises:
        InputError: the text tower cannot be opened, or a caption has no token.
    """
    encoder, folder = open_tower(job, rank)
    captions = SortedCaptions(Path(job.captions), job.num_parts)
    shown = progress("embed_text", captions.num_texts // num_ranks, unit="caption")
    with shown if rank == 0 else nullcontext() as bar:
        on_pass = bar.update if bar is not None else lambda number: None
        for number in range(rank, job.num_parts, num_ranks):
            part = embed_part(encoder, captions.part(number), folder, on_pass)
            captions.keep_key(number, part.key)


def whole_parts(job: EmbedJob) -> list[Part]:
    """All parts, after the ranks have ended.

    Raises:
        InputError: one is not there as it was written.
    """
    captions = SortedCaptions(Path(job.captions), job.num_parts)
    folder = vectors_folder(job, decided_precision(job))
    parts = [Part(folder, captions.key(number)) for number in range(job.num_parts)]
    for number, part in enumerate(parts):
        if not part.is_whole():
            raise InputError(
                f"embed_text: part {number} in {folder} was not written whole; run it again"
            )
    return parts


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_tower(job: EmbedJob, rank: int = 0) -> tuple[TextEncoder, Path]:
    """The text tower on this rank's device, and the folder of its vectors.

    `auto` of the precision is decided by the device of a run's first attempt; a file remembers it,
    so that a run that goes on elsewhere mixes no formats.

    Raises:
        InputError: the folder is none, or its weights are damaged.
    """
    device = job.device
    if device == "auto":
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    precision: str = job.precision
    if precision == "auto":
        precision = _decide_once(_decision(job), torch.device(device).type)
    try:
        encoder = TextEncoder.open(Path(job.text_tower), device=device, dtype=DTYPES[precision])
    except (OSError, ValueError) as error:
        raise InputError(f"input text_tower cannot be opened: {error}") from error
    return encoder, vectors_folder(job, precision)


def vectors_folder(job: EmbedJob, precision: str) -> Path:
    """Where vectors of a tower in a number format are kept."""
    return Path(job.work) / "vectors" / f"{job.digest[:32]}-{precision}"


def decided_precision(job: EmbedJob) -> str:
    """The number format that the ranks took."""
    if job.precision != "auto":
        return job.precision
    return _decision(job).read_text(encoding="utf-8")


def _decision(job: EmbedJob) -> Path:
    return Path(job.work) / f"precision-{job.digest[:16]}"


def _decide_once(path: Path, device: str) -> str:
    """The precision of the first attempt, or of this one's device if it is the first."""
    usual = next(name for name, dtype in DTYPES.items() if dtype == usual_dtype(device))
    decided = path.read_bytes().decode(errors="replace") if path.exists() else ""
    if decided not in DTYPES:
        write_whole(path, usual)
        decided = usual
    if decided != usual:
        log.warning(
            "embed_text goes on in %s, as it began on another device; %s would use %s. Remove %s "
            "to begin anew",
            *(decided, device, usual, path),
        )
    return decided


def main() -> None:
    """Read the job and embed."""
    with job_of_rank(__doc__) as path:
        job = read_job(path, EmbedJob)
        embed_share(job, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


if __name__ == "__main__":
    main()
