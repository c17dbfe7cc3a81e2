"""Compare our towers with what `open_clip_peers.py` wrote of its own."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pixclip.config import ClipTextConfig, VisionConfig
from pixclip.importers import import_weights
from tests.pixclip.importers.conftest import build


def largest_difference(
    file: Path,
    vision: VisionConfig,
    format_name: str,
    folder: Path,
    text: ClipTextConfig | None = None,
) -> float:
    """Between our embeddings and the peer's, in a coordinate of the normalised embeddings.

    Those of images, and those of texts too where the model has CLIP's own text tower.
    """
    content = load_file(file)
    beginning = "weights/"
    weights = {
        key.removeprefix(beginning): tensor
        for key, tensor in content.items()
        if key.startswith(beginning)
    }
    save_file(weights, folder / "weights.safetensors")
    model = build(vision, seed=1, text=text)
    import_weights(model, folder / "weights.safetensors", format_name)
    with torch.no_grad():
        pairs = [(model.vision(content["images"]), content["embeddings"])]
        if text:
            pairs.append((model.text(content["token_ids"]), content["text_embeddings"]))
    normalise = torch.nn.functional.normalize
    return max(
        float((normalise(ours, dim=-1) - normalise(theirs, dim=-1)).abs().max())
        for ours, theirs in pairs
    )
