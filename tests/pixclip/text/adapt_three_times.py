"""An adaptation undisturbed, and one that is stopped in each stage and goes on; a test runs it."""

import os
import signal
import sys
from pathlib import Path

import torch

from pixclip.text import adapt
from pixclip.text.adapt_job import AdaptJob, Contrast, MaskedTokens
from pixclip.training.engine import ranks_leave_together


def job_in(folder: Path, work: str) -> AdaptJob:
    (folder / work).mkdir()
    return AdaptJob(
        base_model=str(folder / "base"),
        pairs=str(folder / "pairs.parquet"),
        work=str(folder / work),
        masked_tokens=MaskedTokens(num_steps=4, batch_size=4, lr=1e-2, warmup_steps=0),
        contrast=Contrast(
            num_steps=4, batch_size=4, lr=1e-2, warmup_steps=1, attention_dropout=0.3, scale=50.0
        ),
        precision="fp32",
    )


def adapt_with_stops(job: AdaptJob, stops: list[tuple[str, int]]) -> None:
    """Adapt; SIGTERM comes before these steps, and the same command follows each time."""
    for stage, step in stops:
        code = stopped_at(job, stage, step)
        assert code == 128 + signal.SIGTERM, code
    adapt.adapt(job)


def stopped_at(job: AdaptJob, stage: str, step: int) -> object:
    plain = adapt.train_stage

    def train_stage(engine, batches_from, run, signals) -> bool:
        def with_signal(start_step: int):
            for number, batch in enumerate(batches_from(start_step), start_step):
                if (run.work.name, number) == (stage, step):
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        return plain(engine, with_signal, run, signals)

    adapt.train_stage = train_stage
    try:
        adapt.adapt(job)
    except SystemExit as error:
        return error.code
    finally:
        adapt.train_stage = plain
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks_leave_together():
        folder = Path(sys.argv[1])
        adapt.adapt(job_in(folder, "undisturbed"))
        adapt_with_stops(job_in(folder, "stopped"), [("masked_tokens", 1), ("contrast", 2)])
