"""Embed every distinct caption once with the frozen text tower.

pixclip embed-text --longgrit … --text-tower … --text-embeddings …
"""

import time

from components.embed_text.settings import EmbedTextSettings
from components.kernel.progress import progress
from components.kernel.step import In, Metrics, Out, step
from components.kernel.tables import WORK_FOLDER


@step(image="train", gpus=1)
def embed_text(
    longgrit: In, text_tower: In, text_embeddings: Out, settings: EmbedTextSettings
) -> Metrics:
    """Embed every distinct caption once with the frozen text tower.

    These are the long and short captions of all regions and the captions of all images, in every
    split. Training and evaluation find a vector by its caption's hash and need no language model;
    they refuse vectors of another text tower than the model's.
    """
    # Imported here: the command line must start without torch.
    from components.embed_text.captions import SortedCaptions
    from components.embed_text.parts import embed_part, join_index
    from components.embed_text.tower import open_tower
    from pixclip.text.tower_digest import tower_digest, write_tower_digest

    started = time.monotonic()
    work = text_embeddings / WORK_FOLDER
    captions = SortedCaptions(work / "captions", longgrit, settings.captions_per_part)
    captions.sort()
    encoder = open_tower(text_tower, settings, work)
    indexes = [work / "index" / f"{part:05d}.parquet" for part in range(captions.num_parts)]
    with progress("embed_text", captions.num_texts, unit="caption") as bar:
        for part, index in enumerate(indexes):
            embed_part(encoder, captions.part(part), part, text_embeddings, index, bar.update)
    totals = join_index(indexes, text_embeddings)
    write_tower_digest(text_embeddings, tower_digest(text_tower))
    seconds = time.monotonic() - started
    return {**totals, "captions_per_s": round(totals["num_captions"] / seconds, 2)}
