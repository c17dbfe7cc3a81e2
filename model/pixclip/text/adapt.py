"""One rank of an adaptation: an encoder is made of a causal language model (LLM2Vec).

It puts adapters on, saves, loads and merges them, fits the whitening and writes the text tower.

torchrun --nproc-per-node 2 -m pixclip.text.adapt --job job.json
"""

import argparse
import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pixclip.checksums import sha256_of
from pixclip.config import TextConfig, to_dict
from pixclip.distributed import num_ranks, rank
from pixclip.files import written_whole
from pixclip.text.adapt_job import AdaptJob, Contrast, Lora, MaskedTokens
from pixclip.text.embeddings import tower_digest
from pixclip.text.encoder import TextEncoder, Whitening, save_text_tower
from pixclip.text.language_model import open_language_model
from pixclip.text.tokens import CaptionTokenizer
from pixclip.training.engine import join_ranks, open_engine, ranks_leave_together
from pixclip.training.job import failure_told, read_job
from pixclip.training.llm2vec import (
    CaptionContrast,
    MaskedPrediction,
    Pairs,
    contrast_batches,
    masked_batches,
    set_attention_dropout,
)
from pixclip.training.loop import TrainingBatch
from pixclip.training.schedule import ParamGroup
from pixclip.training.stage import STOPPED, SaveSignals, StageRun, progress_bar, train_stage

# Q = distinct short captions, G = distinct long captions
RANKS = (1, 5, 10)
ADAPTERS_NAME = "adapters.safetensors"
Batches = Callable[[int], Iterator[tuple[int, TrainingBatch]]]

log = logging.getLogger(__name__)


def adapt(job: AdaptJob) -> None:
    """Run the stages in order and write the text tower.

    Raises:
        SystemExit: SIGTERM came; the state is saved, and the same job goes on from there.
    """
    from transformers import AutoTokenizer

    join_ranks()  # not left to the engine: a run may have no stage left to train
    _tell_of_old_work(Path(job.work))
    tokenizer = AutoTokenizer.from_pretrained(
        job.base_model, revision=job.revision, trust_remote_code=False
    )
    model = open_language_model(
        job.base_model,
        revision=job.revision,
        with_head=True,
        dtype=torch.float32,
        num_layers=job.num_layers,
    )
    own_dropout = getattr(model.config, "attention_dropout", 0.0)
    pairs = Pairs(Path(job.pairs))
    tokenize = CaptionTokenizer(tokenizer, text_config(job, model))
    masked, contrast = job.masked_tokens, job.contrast
    with SaveSignals(job.save_every_s) as signals:
        if masked.num_steps:
            hidden = masked_batches(pairs, tokenize, tokenizer, masked, job.seed)
            model = _stage(model, "masked_tokens", MaskedPrediction, hidden, signals, job)
        set_attention_dropout(model, contrast.attention_dropout)
        if contrast.num_steps:
            objective = partial(CaptionContrast, scale=contrast.scale)
            batches = contrast_batches(pairs, tokenize, contrast, job.seed)
            model = _stage(model, "contrast", objective, batches, signals, job)
    set_attention_dropout(model, own_dropout)
    if rank() == 0:
        write_tower(model, tokenizer, pairs, job)


def _stage(
    model: Any,
    name: str,
    objective: Callable[[Any], torch.nn.Module],
    batches: Batches,
    signals: SaveSignals,
    job: AdaptJob,
) -> Any:
    """The model with a stage's adapters merged, trained unless a run before has finished them."""
    config: MaskedTokens | Contrast = getattr(job, name)
    if config.batch_size % num_ranks():
        raise ValueError(
            f"{name}.batch_size={config.batch_size} must be a multiple of {num_ranks()} ranks"
        )
    work = job.stage_work(name)
    finished = work / ADAPTERS_NAME
    torch.manual_seed(job.seed)
    adapted = put_adapters_on(model, job.lora)
    if has_whole_adapters(finished):
        load_adapters(adapted, finished)
        return merge_adapters(adapted)
    adapted.train()
    if job.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    engine = open_engine(objective(model), _groups(model, config), precision=job.precision)
    run = StageRun(f"adapt_text: {name}", work, config.num_steps, config.warmup_steps)
    if not train_stage(engine, batches, run, signals):
        sys.exit(STOPPED)
    if rank() == 0:
        save_adapters(adapted, finished)
    return merge_adapters(adapted).eval()


def _groups(model: torch.nn.Module, config: MaskedTokens | Contrast) -> list[ParamGroup]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"name": "lora", "params": trained, "lr": config.lr, "weight_decay": 0.0}]


def _tell_of_old_work(work: Path) -> None:
    """States and adapters of earlier versions lie elsewhere and have another form."""
    old = sorted(path.name for path in work.glob("states-*"))
    if old and rank() == 0:
        log.warning(
            "%s: %s are states of an earlier version, which are not used; every stage begins anew",
            *(work, ", ".join(old)),
        )


def put_adapters_on(model: Any, config: Lora) -> Any:
    """The model with fresh adapters on every linear layer but its head; only they are trained."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        bias="none",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for the state of checkpointing by its name of old.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, settings)


def save_adapters(adapted: Any, path: Path) -> None:
    """Save the adapters alone, by rename."""
    from peft import get_peft_model_state_dict

    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted)
    with written_whole(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(partial))
        digest = sha256_of(partial)
    _mark(path).write_text(digest, encoding="utf-8")


def has_whole_adapters(path: Path) -> bool:
    """Whether saved adapters are there as they were saved; tells of those that are damaged."""
    if not path.is_file():
        return False
    mark = _mark(path).read_bytes() if _mark(path).is_file() else b""
    if sha256_of(path).encode() == mark:
        return True
    log.warning("%s is damaged: its stage goes on from its last state", path)
    return False


def _mark(path: Path) -> Path:
    return path.with_suffix(".sha256")


def load_adapters(adapted: Any, path: Path) -> None:
    """Put saved adapters in place of the fresh ones."""
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(adapted, load_file(str(path)))
    assert not result.unexpected_keys, f"{path} is of other adapters: {result.unexpected_keys}"


def merge_adapters(adapted: Any) -> Any:
    """The plain model with its adapters added into its weights."""
    return adapted.merge_and_unload(safe_merge=True)


def text_config(job: AdaptJob, model: Any) -> TextConfig:
    """How the tower takes captions."""
    return TextConfig(embed_dim=model.config.hidden_size, **to_dict(job.text))


def write_tower(model: Any, tokenizer: Any, pairs: Pairs, job: AdaptJob) -> None:
    """Write the text tower by rename, in the number format of the base model, and its whitening."""
    from transformers import AutoConfig

    base = AutoConfig.from_pretrained(
        job.base_model, revision=job.revision, trust_remote_code=False
    )
    draft = job.tower.with_name(f".{job.tower.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    names = ("masked_tokens", "contrast", "lora", "whiten")
    stages = {name: to_dict(getattr(job, name)) for name in names}
    provenance = {
        "base_model": Path(job.base_model).name,
        "revision": getattr(base, "_commit_hash", None) or job.revision,
        "num_layers": model.config.num_hidden_layers,
        "adaptation": {**stages, "seed": job.seed, "precision": job.precision},
    }
    config = text_config(job, model)
    whitening = None
    if job.whiten.share:
        # Without a stage, no engine has moved the model.
        body = model.base_model.to("cuda" if torch.cuda.is_available() else "cpu")
        whitening = fit_whitening(TextEncoder(body, tokenizer, config), pairs, job)
        config = config.changed(whitened=True)
    body = model.base_model.to(base.dtype or torch.float32)
    save_text_tower(draft, body, tokenizer, config, provenance, whitening)
    digest = tower_digest(draft)
    job.tower_mark.write_text(digest, encoding="utf-8")
    shutil.rmtree(job.tower, ignore_errors=True)  # damaged
    draft.rename(job.tower)


def fit_whitening(encoder: TextEncoder, pairs: Pairs, job: AdaptJob) -> Whitening:
    """The map for captions like those that are trained on, as many short as long ones."""
    num_pairs = max(1, min(job.whiten.num_captions // 2, len(pairs)))
    drawn = pairs.rows(0, num_pairs, [job.seed, 2])
    captions = encoder.tokenize([caption for pair in drawn for caption in pair])
    with progress_bar("adapt_text: whitening", len(captions), "caption") as bar:
        return Whitening.fit(encoder.encode_tokens(captions, bar.update), job.whiten.share)


def short_to_long_recall(
    encoder: TextEncoder, short_captions: Sequence[str], long_captions: Sequence[str]
) -> dict[str, float]:
    """Share of distinct short captions that find a long caption of theirs among the first k.

    A short caption that several regions share is right with any of their long captions. Of equal
    similarities the wrong one comes first: a tower that says the same of all finds nothing.

    Returns:
        `r1`, `r5`, `r10` in [0, 1]. None of them if there is no pair.
    """
    if not len(short_captions):
        return {}
    shorts, longs = list(dict.fromkeys(short_captions)), list(dict.fromkeys(long_captions))
    query_of = {text: row for row, text in enumerate(shorts)}
    answer_of = {text: row for row, text in enumerate(longs)}
    is_right_QG = torch.zeros(len(shorts), len(longs), dtype=torch.bool)
    for short, long in zip(short_captions, long_captions, strict=True):
        is_right_QG[query_of[short], answer_of[long]] = True
    queries_QE = F.normalize(encoder.encode(shorts), dim=-1)
    answers_GE = F.normalize(encoder.encode(longs), dim=-1)
    similarity_QG = queries_QE @ answers_GE.T
    best_right_Q1 = similarity_QG.masked_fill(~is_right_QG, -torch.inf).amax(1, keepdim=True)
    rank_Q = 1 + ((similarity_QG >= best_right_Q1) & ~is_right_QG).sum(dim=1)
    return {f"r{k}": (rank_Q <= k).double().mean().item() for k in RANKS}


def main() -> None:
    """Read the job and adapt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON of pixclip.text.adapt_job")
    path = parser.parse_args().job
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with failure_told(path), ranks_leave_together():
        adapt(read_job(path, AdaptJob))


if __name__ == "__main__":
    main()
