"""The step that makes the text tower of a causal language model.

Pairs of captions are drawn from the data set: those to train on, and some to measure on.

pixclip adapt-text --dataset … --text-tower … --set base_model=HuggingFaceTB/SmolLM2-135M
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.drafts import remove
from components.core.errors import InputError
from components.core.files import link_or_copy, written_whole
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import WORK_FOLDER, open_writer, read_batches
from components.training.adapt_text.settings import AdaptTextSettings
from pixclip.data.layout import MANIFEST_NAME, TRAIN, VAL

REPORT_NAME = "adaptation.json"


@step(image="train", version=2, gpus=1, work=Work.KEPT)
def adapt_text(dataset: In, text_tower: Out, settings: AdaptTextSettings) -> Metrics:
    """Make an encoder of a causal language model: masked tokens, then a contrast of captions.

    The stages train low-rank adapters through DeepSpeed on `num_ranks` processes; a killed run
    goes on from its last saved state. How well short captions find the long captions of their
    regions is measured before and after, on the val split, by the first of these processes.
    """
    # Imported here: the command line must start without torch.
    from components.training.adapt_text.training import (
        AFTER,
        BEFORE,
        EVAL_PAIRS,
        adapt,
        read_numbers,
    )

    work = text_tower / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    num_pairs = draw_train_pairs(dataset, work / "pairs.parquet", settings.max_pairs, settings.seed)
    num_eval_pairs = write_eval_pairs(dataset, work / EVAL_PAIRS, settings.num_eval_pairs)
    steps = adapt(work, settings)
    metrics: Metrics = {"num_train_pairs": num_pairs, "num_eval_pairs": num_eval_pairs}
    for when, name in (("before", BEFORE), ("after", AFTER)):
        recall = read_numbers(work / name)
        assert recall is not None, "the ranks have measured"
        metrics |= {f"short_to_long_{name}_{when}": value for name, value in recall.items()}
    metrics |= {f"{step['stage']}_last_loss": step["loss"] for step in steps}
    (text_tower / REPORT_NAME).write_text(
        json.dumps(_report(metrics, settings), indent=2) + "\n", encoding="utf-8"
    )
    _take_out(work / "tower", text_tower)
    return metrics


def _report(metrics: Metrics, settings: AdaptTextSettings) -> dict[str, object]:
    what = (
        "short_to_long: share of distinct short captions of `val` that find a long caption of "
        "their region among the first 1, 5 or 10; before any training and after it"
    )
    decisive = adapt_text.fingerprinted_settings(settings)
    if Path(settings.base_model).exists():  # equal work gives equal bytes, wherever the model lies
        decisive["base_model"] = Path(settings.base_model).name
    return {"metrics": metrics, "meaning": what, "settings": decisive}


def _take_out(tower: Path, folder: Path) -> None:
    """Link or copy the finished tower into the artifact; doing so again changes nothing."""
    for path in tower.iterdir():
        remove(folder / path.name)
    shutil.copytree(tower, folder, copy_function=link_or_copy, dirs_exist_ok=True)


SCHEMA = pa.schema([pa.field("short_caption", pa.string()), pa.field("long_caption", pa.string())])


def draw_train_pairs(dataset: Path, path: Path, max_pairs: int, seed: int) -> int:
    """Write the pairs to train on by rename; about `max_pairs` drawn by hash if there are more.

    Raises:
        InputError: the data set has no region in `train`.
    """
    num_train = sum(batch.num_rows for batch in _split(dataset, TRAIN))
    if not num_train:
        raise InputError(f"{dataset} has no region in the split train to adapt the text tower to")
    share = min(1.0, max_pairs / num_train)
    num_pairs = 0
    with written_whole(path) as partial, open_writer(partial, SCHEMA) as writer:
        for batch in _split(dataset, TRAIN):
            drawn = _draw(pa.Table.from_batches([batch]), share, seed).select(SCHEMA.names)
            writer.write_table(drawn.cast(SCHEMA))
            num_pairs += drawn.num_rows
    return num_pairs


def write_eval_pairs(dataset: Path, path: Path, max_pairs: int) -> int:
    """Write the pairs of the first regions of `val`, by rename; gives their number."""
    num_pairs = 0
    with written_whole(path) as partial, open_writer(partial, SCHEMA) as writer:
        for batch in _split(dataset, VAL):
            pairs = pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
            pairs = pairs.slice(0, max_pairs - num_pairs)
            writer.write_table(pairs)
            num_pairs += pairs.num_rows
            if num_pairs >= max_pairs:
                break
    return num_pairs


def _split(dataset: Path, split: str) -> Iterator[pa.RecordBatch]:
    columns = ["region_id", "split", *SCHEMA.names]
    for batch in read_batches(dataset / MANIFEST_NAME, columns):
        yield batch.filter(pc.equal(batch["split"], split))


def _draw(table: pa.Table, share: float, seed: int) -> pa.Table:
    if share == 1.0 or not table.num_rows:
        return table
    from pandas.util import hash_array

    keys = [f"{seed}:{key}" for key in table["region_id"].to_pylist()]
    hashes = hash_array(np.array(keys, dtype=object), categorize=False)
    return table.filter(pa.array(hashes < np.uint64(share * (2**64 - 1))))
