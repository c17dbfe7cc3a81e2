"""One rank of an adaptation.

torchrun --nproc-per-node 2 -m pixclip.text.adapt.run --job job.json
"""

import argparse
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pixclip.config import TextConfig, to_dict
from pixclip.distributed import num_ranks, rank
from pixclip.text.adapt import lora
from pixclip.text.adapt.job import AdaptJob, Contrast, MaskedTokens, read_job
from pixclip.text.adapt.loop import StageRun, StopRequest, progress_bar, run_stage
from pixclip.text.adapt.pairs import Pairs
from pixclip.text.adapt.stages import (
    LossOf,
    MaskedPrediction,
    PooledPairs,
    contrast_loss,
    masked_prediction_loss,
    set_attention_dropout,
)
from pixclip.text.encoder import TextEncoder, save_text_tower
from pixclip.text.language_model import open_language_model
from pixclip.text.tokens import CaptionTokenizer
from pixclip.text.tower_digest import tower_digest
from pixclip.text.whitening import Whitening
from pixclip.training.engine import Engine, join_ranks, open_engine, ranks_leave_together
from pixclip.training.failure import failure_told


def adapt(job: AdaptJob) -> None:
    """Run the stages in order and write the text tower.

    Raises:
        SystemExit: SIGTERM came; the state is saved.
    """
    from transformers import AutoTokenizer

    join_ranks()  # not left to the engine: a run may have no stage left to train
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
    pairs, stop = Pairs(Path(job.pairs)), StopRequest()
    tokenize = CaptionTokenizer(tokenizer, text_config(job, model))

    def masked_tokens(engine: Engine) -> LossOf:
        return masked_prediction_loss(engine, pairs, tokenize, tokenizer, job)

    def contrast(engine: Engine) -> LossOf:
        return contrast_loss(engine, pairs, tokenize, job)

    model = _stage(
        model, "masked_tokens", job.masked_tokens, MaskedPrediction, masked_tokens, stop, job
    )
    set_attention_dropout(model, job.contrast.attention_dropout)
    model = _stage(model, "contrast", job.contrast, PooledPairs, contrast, stop, job)
    set_attention_dropout(model, own_dropout)
    if rank() == 0:
        write_tower(model, tokenizer, pairs, job)


def _stage(
    model: Any,
    name: str,
    config: MaskedTokens | Contrast,
    module: type[torch.nn.Module],
    make_loss: Callable[[Engine], LossOf],
    stop: StopRequest,
    job: AdaptJob,
) -> Any:
    """The model with a stage's adapters merged, trained unless a run before has finished them."""
    if not config.num_steps:
        return model
    if config.batch_size % num_ranks():
        raise ValueError(
            f"{name}.batch_size={config.batch_size} must be a multiple of {num_ranks()} ranks"
        )
    finished = Path(job.work) / f"{name}.safetensors"
    torch.manual_seed(job.seed)
    adapted = lora.put_on(model, job.lora)
    if lora.is_whole(finished):
        lora.load(adapted, finished)
        return lora.merge(adapted)
    adapted.train()
    if job.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    engine = open_engine(module(model), _groups(model, config), precision=job.precision)
    run_stage(StageRun(name, config, engine, make_loss(engine), stop), job)
    if rank() == 0:
        lora.save(adapted, finished)
    return lora.merge(adapted).eval()


def _groups(model: torch.nn.Module, config: MaskedTokens | Contrast) -> list[dict[str, Any]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"name": "lora", "params": trained, "lr": config.lr, "weight_decay": 0.0}]


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
    with progress_bar("whitening", len(captions), "caption") as bar:
        return Whitening.fit(encoder.encode_tokens(captions, bar.update), job.whiten.share)


def main() -> None:
    """Read the job and adapt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON of pixclip.text.adapt.job")
    path = parser.parse_args().job
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with failure_told(path), ranks_leave_together():
        adapt(read_job(path))


if __name__ == "__main__":
    main()
