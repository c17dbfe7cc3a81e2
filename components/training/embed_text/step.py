"""Embed every distinct caption once with the frozen text tower.

pixclip embed-text --dataset … --text-tower … --text-embeddings …
"""

import time

from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import WORK_FOLDER
from components.training.embed_text.settings import EmbedTextSettings

RANK, JOB = "components.training.embed_text.rank", "job.json"


@step(image="train", gpus=1, work=Work.PORTABLE)
def embed_text(
    dataset: In, text_tower: In, text_embeddings: Out, settings: EmbedTextSettings
) -> Metrics:
    """Embed every distinct caption once with the frozen text tower.

    These are the long and short captions of all regions, their wrong ones (`hard_negatives`) if the
    data set has any, and the captions of all images, in every split. Training and evaluation find a
    vector by its caption's hash and need no language model; they refuse vectors of another text
    tower than the model's. Ranks, if there are several, share the captions part by part and need
    nothing of each other.
    """
    # Imported here: the command line must start without torch.
    from components.core.torchrun import run_ranks, runs_on_nodes
    from components.training.embed_text.parts import join_parts, sort_captions
    from components.training.embed_text.rank import EmbedJob, embed_share, whole_parts
    from pixclip.text.embeddings import tower_digest, write_tower_digest
    from pixclip.training.job import write_job

    started = time.monotonic()
    work = text_embeddings / WORK_FOLDER
    captions = sort_captions(work, dataset, settings.captions_per_part)
    job = EmbedJob(
        text_tower=str(text_tower),
        digest=tower_digest(text_tower),
        captions=str(captions.folder),
        num_parts=captions.num_parts,
        work=str(work),
        precision=settings.precision,
        device=settings.device,
    )
    if settings.num_ranks == 1 and not runs_on_nodes():
        embed_share(job)
    else:
        write_job(work / JOB, job)
        run_ranks(RANK, work / JOB, num_ranks=settings.num_ranks)
    totals = join_parts(whole_parts(job), text_embeddings)
    write_tower_digest(text_embeddings, job.digest)
    seconds = time.monotonic() - started
    return {**totals, "captions_per_s": round(totals["num_captions"] / seconds, 2)}
