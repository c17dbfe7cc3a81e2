"""An adaptation on two real ranks (processes of torchrun, gloo)."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pixclip.text import adapt
from pixclip.text.adapt_job import AdaptJob, Contrast, MaskedTokens, Whiten
from pixclip.text.encoder import TextEncoder
from pixclip.training.job import write_job
from tests.language_models import CAPTIONS, WIDTH, save_language_model
from tests.pixclip.training.test_two_ranks import launch


def test_one_rank_alone_writes_the_tower_also_if_no_stage_is_left_to_train(tmp_path):
    rows = [{"short_caption": CAPTIONS[0], "long_caption": CAPTIONS[1]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    job = AdaptJob(
        base_model=str(save_language_model(tmp_path / "base")),
        pairs=str(tmp_path / "pairs.parquet"),
        work=str(tmp_path / "work"),
        masked_tokens=MaskedTokens(num_steps=0),
        contrast=Contrast(num_steps=0),
        whiten=Whiten(share=0.5),
    )
    write_job(tmp_path / "work" / "job.json", job)
    # A second writer would find its draft renamed, and fail.
    launch(Path(adapt.__file__), 2, "--job", str(tmp_path / "work" / "job.json"))
    assert TextEncoder.open(job.tower).encode(["a dog"]).shape == (1, WIDTH)
