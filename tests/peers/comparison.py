"""Compare our towers with what `open_clip_peers.py` wrote of its own."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pixclip.config import VisionConfig
from pixclip.importers import import_weights
from tests.pixclip.importers.conftest import build


def largest_difference(file: Path, vision: VisionConfig, format_name: str, folder: Path) -> float:
    """Between our embeddings and the peer's, in a coordinate of the normalised embeddings."""
    content = load_file(file)
    beginning = "weights/"
    weights = {
        key.removeprefix(beginning): tensor
        for key, tensor in content.items()
        if key.startswith(beginning)
    }
    save_file(weights, folder / "weights.safetensors")
    model = build(vision, seed=1)
    import_weights(model, folder / "weights.safetensors", format_name)
    with torch.no_grad():
        ours = model.vision(content["images"])
    theirs = content["embeddings"]
    normalised = [torch.nn.functional.normalize(tensor, dim=-1) for tensor in (ours, theirs)]
    return float((normalised[0] - normalised[1]).abs().max())
