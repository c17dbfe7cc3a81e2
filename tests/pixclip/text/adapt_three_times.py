"""An adaptation undisturbed, and one that is stopped in each stage and goes on; a test runs it."""

import os
import signal
import sys
from pathlib import Path

import torch

from pixclip.text.adapt import run
from pixclip.text.adapt.job import AdaptJob, Contrast, MaskedTokens
from pixclip.training.engine import ranks_leave_together


def job_in(folder: Path, work: str) -> AdaptJob:
    (folder / work).mkdir()
    return AdaptJob(
        base_model=str(folder / "base"),
        pairs=str(folder / "pairs.parquet"),
        work=str(folder / work),
        masked_tokens=MaskedTokens(num_steps=4, batch_size=4, lr=1e-2),
        contrast=Contrast(
            num_steps=4, batch_size=4, lr=1e-2, warmup_steps=1, attention_dropout=0.3
        ),
        precision="fp32",
    )


def adapt_with_stops(job: AdaptJob, stops: list[tuple[str, int]]) -> None:
    """Adapt; SIGTERM comes after these steps, and the same command follows each time."""
    for stage, step in stops:
        code = stopped_after(job, stage, step)
        assert code == 128 + signal.SIGTERM, code
    run.adapt(job)


def stopped_after(job: AdaptJob, stage: str, step: int) -> object:
    plain = run.run_stage

    def run_stage(stage_run: run.StageRun, job: AdaptJob) -> None:
        loss_of = stage_run.loss_of

        def with_signal(number: int) -> torch.Tensor:
            if (stage_run.name, number) == (stage, step):
                os.kill(os.getpid(), signal.SIGTERM)
            return loss_of(number)

        plain(run.StageRun(**{**vars(stage_run), "loss_of": with_signal}), job)

    run.run_stage = run_stage
    try:
        run.adapt(job)
    except SystemExit as error:
        return error.code
    finally:
        run.run_stage = plain
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks_leave_together():
        folder = Path(sys.argv[1])
        run.adapt(job_in(folder, "undisturbed"))
        adapt_with_stops(job_in(folder, "stopped"), [("masked_tokens", 1), ("contrast", 2)])
