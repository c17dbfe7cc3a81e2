"""One rank of a training run.

torchrun --nproc-per-node 2 -m pixclip.training.run --job job.json
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

import pixclip
from pixclip.checkpoint import save_checkpoint
from pixclip.data.batch import Batch
from pixclip.data.layout import RECEIPT_NAME
from pixclip.data.loader import LongGrit
from pixclip.distributed import num_ranks, rank
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.text.embeddings import TextEmbeddings
from pixclip.training.engine import open_engine, ranks_leave_together
from pixclip.training.job import Job, failure_told, read_job
from pixclip.training.pixclip import PixClipObjective
from pixclip.training.schedule import freeze_other_parts, parameter_groups
from pixclip.training.stage import STOPPED, SaveSignals, StageRun, train_stage
from pixclip.training.states import seed_all

log = logging.getLogger(__name__)


def train(job: Job) -> bool:
    """Train a stage; `False` if it was stopped by SIGTERM before its end, its state saved."""
    seed_all(job.stage.data.seed)
    model = pixclip.load(job.parent)
    model.train()
    freeze_other_parts(model, job.stage.trainable)
    model.vision.gradient_checkpointing = job.stage.gradient_checkpointing
    objective = PixClipObjective(model, job.stage.losses, job.micro_batch_size)
    optimizer = job.stage.optimizer
    engine = open_engine(
        objective,
        parameter_groups(model, optimizer),
        precision=job.stage.precision,
        betas=optimizer.betas,
        max_grad_norm=optimizer.max_grad_norm,
        use_gpus=job.device == "auto",
    )
    data = _open_data(job, model)
    num_steps = job.stage.num_steps or job.stage.num_epochs * data.num_steps(epoch=0)
    if not data.num_steps(epoch=0):
        raise ValueError(
            f"the data set has no batch of {job.stage.data.batch_size} regions to train on; "
            "set data.batch_size lower"
        )
    run = StageRun(f"train {job.stage.name}", Path(job.work), num_steps, optimizer.warmup_steps)
    _warn_of_long_warmup(run)
    batches = partial(batches_from, data, num_workers=job.num_workers, device=engine.device)
    with SaveSignals(job.save_every_s, job.save_every_steps) as signals:
        if not train_stage(engine, batches, run, signals):
            return False
    if rank() == 0:
        model.eval()
        parent_tower = Path(job.parent) / "text_tower"
        text_tower = parent_tower if parent_tower.is_dir() else None
        # A pipeline's own artifact may be linked; a folder that somebody else brought is copied.
        is_ours = (Path(job.parent) / RECEIPT_NAME).is_file()
        save_checkpoint(
            Path(job.checkpoint), model, text_tower=text_tower, notes=job.notes, link=is_ours
        )
    return True


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
    data: LongGrit, start_step: int, num_workers: int, device: torch.device
) -> Iterator[tuple[int, Batch]]:
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


def main() -> None:
    """Read the job, train, and tell how it ended by the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON of pixclip.training.job")
    path = parser.parse_args().job
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with failure_told(path), ranks_leave_together():
        is_done = train(read_job(path, Job))
    if not is_done:
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
