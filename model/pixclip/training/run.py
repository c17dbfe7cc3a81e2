"""One rank of a training run.

torchrun --nproc-per-node 2 -m pixclip.training.run --job job.json
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pixclip
from pixclip.checkpoint import save_checkpoint
from pixclip.data.layout import RECEIPT_NAME
from pixclip.data.loader import Batches, BatchT, LongGrit
from pixclip.distributed import num_ranks, rank
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.text.clip_tower import ClipTextTower
from pixclip.text.embeddings import TextEmbeddings
from pixclip.training.config import AnyStage
from pixclip.training.engine import open_engine, ranks_leave_together
from pixclip.training.job import AnyJob, Job, JobT, failure_told, read_job
from pixclip.training.pixclip import PixClipObjective
from pixclip.training.schedule import freeze_other_parts, parameter_groups
from pixclip.training.stage import STOPPED, SaveSignals, StageRun, train_stage
from pixclip.training.states import seed_all
from pixclip.vision.tower import VisionTower

log = logging.getLogger(__name__)


def train(job: Job) -> bool:
    """Train a stage of PixCLIP; `False` if it was stopped before its end."""

    def prepare(model: PixClip) -> "Training":
        return Training(
            PixClipObjective(model, job.stage.losses, job.micro_batch_size), _open_data(job, model)
        )

    return train_model(job, job.stage, prepare)


@dataclass(frozen=True)
class Training:
    """What a model is trained by and on."""

    objective: nn.Module
    data: Batches[Any, Any]


def train_model(job: AnyJob, stage: AnyStage, prepare: Callable[[PixClip], Training]) -> bool:
    """Train the parent of a job; `False` if it was stopped by SIGTERM before its end.

    Its state is saved then; the checkpoint is written at the end alone.
    """
    seed_all(stage.data.seed)
    model = pixclip.load(job.parent)
    model.train()
    freeze_other_parts(model, stage.trainable)
    for tower in (model.vision, model.text_tower):
        if isinstance(tower, VisionTower | ClipTextTower):
            tower.gradient_checkpointing = stage.gradient_checkpointing
    training = prepare(model)
    optimizer, data = stage.optimizer, training.data
    engine = open_engine(
        training.objective,
        parameter_groups(training.objective, optimizer),
        precision=stage.precision,
        betas=optimizer.betas,
        max_grad_norm=optimizer.max_grad_norm,
        use_gpus=job.device == "auto",
    )
    num_steps = stage.num_steps or stage.num_epochs * data.num_steps(epoch=0)
    if not data.num_steps(epoch=0):
        raise ValueError(
            f"the data set has no batch of {stage.data.batch_size} to train on; "
            "set data.batch_size lower"
        )
    run = StageRun(f"train {stage.name}", Path(job.work), num_steps, optimizer.warmup_steps)
    _warn_of_long_warmup(run)
    batches = partial(batches_from, data, num_workers=job.num_workers, device=engine.device)
    with SaveSignals(job.save_every_s, job.save_every_steps) as signals:
        if not train_stage(engine, batches, run, signals):
            return False
    if rank() == 0:
        _save(job, model)
    return True


def _save(job: AnyJob, model: PixClip) -> None:
    model.eval()
    parent_tower = Path(job.parent) / "text_tower"
    text_tower = parent_tower if parent_tower.is_dir() else None
    # A pipeline's own artifact may be linked; a folder that somebody else brought is copied.
    is_ours = (Path(job.parent) / RECEIPT_NAME).is_file()
    save_checkpoint(
        Path(job.checkpoint), model, text_tower=text_tower, notes=job.notes, link=is_ours
    )


def _warn_of_long_warmup(run: StageRun) -> None:
    if run.num_steps <= run.warmup_steps and rank() == 0:
        log.warning(
            "the stage has %s steps and its warm-up takes %s: the rates only reach %.0f %% of what "
            "was set; lower optimizer.warmup_steps",
            *(run.num_steps, run.warmup_steps, 100 * run.num_steps / run.warmup_steps),
        )


def _open_data(job: Job, model: PixClip) -> LongGrit:
    vision = model.config.vision
    model.preprocess.require_trainable()
    embeddings = TextEmbeddings.open(
        job.text_embeddings, model.config.require_language_model().embed_dim
    )
    return LongGrit(
        job.dataset,
        "train",
        Preprocess(vision.image_size_px, model.config.preprocess),
        vision.patch_size_px,
        embeddings,
        job.stage.data,
    )


def batches_from(
    data: Batches[Any, BatchT], start_step: int, num_workers: int, device: torch.device
) -> Iterator[tuple[int, BatchT]]:
    """This rank's batches with their epoch, epoch after epoch without end, from a step on."""
    epoch = 0
    while start_step >= data.num_steps(epoch):
        start_step -= data.num_steps(epoch)
        epoch += 1
    while True:
        for batch in data.batches(
            epoch=epoch,
            start_step=start_step,
            rank=rank(),
            num_ranks=num_ranks(),
            num_workers=num_workers,
            device=device,
        ):
            yield epoch, batch
        start_step, epoch = 0, epoch + 1


def run_rank(kind: type[JobT], train_job: Callable[[JobT], bool], about: str | None) -> None:
    """Read the job that `--job` names, train, and tell how it ended by the exit code."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--job", type=Path, required=True, help="JSON of pixclip.training.job")
    path = parser.parse_args().job
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with failure_told(path), ranks_leave_together():
        is_done = train_job(read_job(path, kind))
    if not is_done:
        sys.exit(STOPPED)


def main() -> None:
    """Be a rank of the job that `--job` names."""
    run_rank(Job, train, __doc__)


if __name__ == "__main__":
    main()
