"""PixCLIP: image regions of any shape and texts of any length in one embedding space.

    import pixclip

    model = pixclip.load("checkpoint")  # a folder, or a URI such as s3://bucket/checkpoint
    regions = model.encode_image("street.jpg", [(10, 20, 200, 180), mask])  # a box, an array
    texts = model.encode_text(["a red car at the kerb", "a cyclist in a yellow coat, …"])
    model.similarity(regions, texts)  # [2, 2], cosine

Importing this is cheap; PyTorch is imported when `load` or `PixClip` is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixclip.checkpoint import load
    from pixclip.model import PixClip

__all__ = ["PixClip", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from pixclip.checkpoint import load

        return load
    if name == "PixClip":
        from pixclip.model import PixClip

        return PixClip
    raise AttributeError(f"module 'pixclip' has no attribute '{name}'")
