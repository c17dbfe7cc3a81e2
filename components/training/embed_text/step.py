"""Embed every distinct caption once with the frozen text tower.

pixclip embed-text --dataset … --text-tower … --text-embeddings …
"""

import time

from components.core.progress import progress
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import WORK_FOLDER
from components.training.embed_text.settings import EmbedTextSettings


@step(image="train", gpus=1, work=Work.PORTABLE)
def embed_text(
    dataset: In, text_tower: In, text_embeddings: Out, settings: EmbedTextSettings
) -> Metrics:
    """Embed every distinct caption once with the frozen text tower.

    These are the long and short captions of all regions and the captions of all images, in every
    split. Training and evaluation find a vector by its caption's hash and need no language model;
    they refuse vectors of another text tower than the model's.
    """
    # Imported here: the command line must start without torch.
    from components.training.embed_text.parts import (
        embed_part,
        join_parts,
        open_tower,
        sort_captions,
    )
    from pixclip.text.embeddings import tower_digest, write_tower_digest

    started = time.monotonic()
    work = text_embeddings / WORK_FOLDER
    captions = sort_captions(work, dataset, settings.captions_per_part)
    digest = tower_digest(text_tower)
    encoder, precision = open_tower(text_tower, settings, work / f"precision-{digest[:16]}")
    made = work / "vectors" / f"{digest[:32]}-{precision}"
    with progress("embed_text", captions.num_texts, unit="caption") as bar:
        parts = [
            embed_part(encoder, captions.part(number), made, bar.update)
            for number in range(captions.num_parts)
        ]
    totals = join_parts(parts, text_embeddings)
    write_tower_digest(text_embeddings, digest)
    seconds = time.monotonic() - started
    return {**totals, "captions_per_s": round(totals["num_captions"] / seconds, 2)}
