"""The step that makes the text tower of a causal language model.

pixclip adapt-text --longgrit … --text-tower … --set base_model=HuggingFaceTB/SmolLM2-135M
"""

import json
import shutil
from pathlib import Path

from components.adapt_text.pairs import draw_train_pairs, eval_pairs
from components.adapt_text.settings import AdaptTextSettings
from components.kernel.drafts import remove
from components.kernel.files import link_or_copy
from components.kernel.step import In, Metrics, Out, Work, step
from components.kernel.tables import WORK_FOLDER

REPORT_NAME = "adaptation.json"


@step(image="train", gpus=1, work=Work.KEPT)
def adapt_text(longgrit: In, text_tower: Out, settings: AdaptTextSettings) -> Metrics:
    """Make an encoder of a causal language model: masked tokens, then a contrast of captions.

    The stages train low-rank adapters through DeepSpeed on `num_ranks` processes; a killed run
    goes on from its last saved state. How well short captions find the long captions of their
    regions is measured before and after, on the val split.
    """
    # Imported here: the command line must start without torch.
    from components.adapt_text.training import adapt, measure_base, measure_tower, once

    work = text_tower / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    num_pairs = draw_train_pairs(
        longgrit, work / "pairs.parquet", settings.max_pairs, settings.seed
    )
    pairs = eval_pairs(longgrit, settings.num_eval_pairs)
    before = once(work / "before.json", lambda: measure_base(settings, pairs))
    steps = adapt(work, settings)
    after = once(work / "after.json", lambda: measure_tower(work / "tower", settings, pairs))
    metrics: Metrics = {"num_train_pairs": num_pairs, "num_eval_pairs": len(pairs[0])}
    for when, recall in (("before", before), ("after", after)):
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
