"""Vision transformers that read a mask beside the image (paper, eq. 1)."""

from pixclip.vision.tower import VisionTower, build_vision_tower

__all__ = ["VisionTower", "build_vision_tower"]
