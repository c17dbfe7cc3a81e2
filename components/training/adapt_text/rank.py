"""One rank of adapt_text: it adapts with the others; rank 0 measures before and after.

torchrun --nproc-per-node 2 -m components.training.adapt_text.rank --job job.json
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer

from components.core.errors import InputError
from components.core.files import write_whole
from components.core.torchrun import job_of_rank
from components.training.adapt_text.training import AFTER, BEFORE, EVAL_PAIRS, read_numbers
from pixclip.config import TextConfig, to_dict
from pixclip.text.adapt import adapt, short_to_long_recall
from pixclip.text.adapt_job import AdaptJob
from pixclip.text.encoder import TextEncoder
from pixclip.text.language_model import damage_told, open_language_model
from pixclip.training.engine import ranks_leave_together
from pixclip.training.job import read_job

CaptionPairs = tuple[list[str], list[str]]  # short and long captions, row by row


def measure_base(job: AdaptJob, pairs: CaptionPairs) -> dict[str, float]:
    """Retrieval by the base model, which reads both ways and is not trained for it.

    Raises:
        InputError: the base model cannot be used.
    """
    device = choose_device(job.device)
    try:
        body = open_language_model(
            job.base_model,
            revision=job.revision,
            with_head=False,
            dtype=torch.float32 if device == "cpu" else torch.bfloat16,
            num_layers=job.num_layers,
        ).to(device)
        with damage_told(f"the tokenizer of {job.base_model}"):
            tokenizer = AutoTokenizer.from_pretrained(
                job.base_model, revision=job.revision, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        raise InputError(
            f"adapt_text.base_model={job.base_model} cannot be opened: {error}"
        ) from error
    config = TextConfig(embed_dim=body.config.hidden_size, **to_dict(job.text))
    return short_to_long_recall(TextEncoder(body, tokenizer, config), *pairs)


def measure_tower(job: AdaptJob, pairs: CaptionPairs) -> dict[str, float]:
    """Retrieval by the finished tower, as it was saved."""
    encoder = TextEncoder.open(job.tower, device=choose_device(job.device))
    return short_to_long_recall(encoder, *pairs)


def choose_device(name: str) -> str:
    """`auto` is the first GPU if there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def once(path: Path, measure: Callable[[], dict[str, float]]) -> None:
    """Keep what `measure` gives, unless a run before has kept it."""
    if read_numbers(path) is None:
        write_whole(path, json.dumps(measure()))


def read_pairs(path: Path) -> CaptionPairs:
    """The pairs that are measured on."""
    table = pq.read_table(path)
    return table["short_caption"].to_pylist(), table["long_caption"].to_pylist()


def main() -> None:
    """Read the job, measure, adapt, measure."""
    with job_of_rank(__doc__) as path:
        job = read_job(path, AdaptJob)
        work, is_first = Path(job.work), os.environ["RANK"] == "0"
        if is_first:  # the others wait for it where ranks meet
            once(work / BEFORE, lambda: measure_base(job, read_pairs(work / EVAL_PAIRS)))
        with ranks_leave_together():
            adapt(job)
        if is_first:
            once(work / AFTER, lambda: measure_tower(job, read_pairs(work / EVAL_PAIRS)))


if __name__ == "__main__":
    main()
