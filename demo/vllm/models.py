"""Make the two small models that `make demo-vllm` serves.

    .venv-vllm/bin/python demo/vllm/models.py --into .cache/models

- `smollm2-135m-instruct`: SmolLM2-135M-Instruct (Apache-2.0), a real language model; see
  `components/training/adapt_text/sample_model.py`.
- `random-eyes-135m`: the same language model as the text tower of Idefics3 (the class of SmolVLM)
  behind a tiny vision tower with random weights. It takes images exactly as a trained model does,
  and what it says of them means nothing: it proves the request path, never the captions.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

# The project is not installed in the servers' environment.
sys.path.insert(0, str(Path(__file__).parents[2]))

from components.training.adapt_text.sample_model import save_sample_model

TEXT_MODEL, VISION_MODEL = "smollm2-135m-instruct", "random-eyes-135m"
IMAGE_PX, PATCH_PX, SCALE = 128, 16, 2
TOKENS_PER_IMAGE = (IMAGE_PX // PATCH_PX // SCALE) ** 2
SEED = 0


def main() -> None:
    """Make the models that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path(".cache/models"))
    folder = parser.parse_args().into
    save_sample_model(folder / TEXT_MODEL)
    save_vision_model(folder / TEXT_MODEL, folder / VISION_MODEL)


def save_vision_model(text_folder: Path, folder: Path) -> None:
    """Idefics3 with a random vision tower before the text model, and its processor, if missing."""
    if folder.exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, Idefics3Config, Idefics3ForConditionalGeneration

    processor = _processor(text_folder)
    text = AutoModelForCausalLM.from_pretrained(text_folder, dtype=torch.bfloat16)
    torch.manual_seed(SEED)
    text.resize_token_embeddings(
        len(processor.tokenizer), pad_to_multiple_of=64, mean_resizing=False
    )
    config = Idefics3Config(
        text_config=text.config.to_dict(),
        vision_config=_vision_config(),
        scale_factor=SCALE,
        image_token_id=processor.image_token_id,
        pad_token_id=text.config.eos_token_id,
        tie_word_embeddings=True,
    )
    model = Idefics3ForConditionalGeneration(config).to(torch.bfloat16)
    model.model.text_model.load_state_dict(text.model.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = text.config.eos_token_id
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(draft)
    processor.save_pretrained(draft)
    draft.rename(folder)


def _vision_config() -> dict[str, Any]:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
    }


def _processor(text_folder: Path) -> Any:
    from transformers import AutoTokenizer, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,  # the other one needs torchvision
    )

    tokenizer = AutoTokenizer.from_pretrained(text_folder)
    markers = [f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)]
    tokenizer.add_tokens(["<global-img>", *markers], special_tokens=True)
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size={"longest_edge": IMAGE_PX},
        max_image_size={"longest_edge": IMAGE_PX},
    )
    return Idefics3Processor(
        images,
        tokenizer,
        image_seq_len=TOKENS_PER_IMAGE,
        chat_template=tokenizer.chat_template,
    )


if __name__ == "__main__":
    main()
