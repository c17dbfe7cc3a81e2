"""Public weights become a PixCLIP model, strictly: every key is accounted for.

report = import_weights(model, Path("ViT-B-16.pt"), "openai")
"""

from pixclip.importers.formats import FORMATS, find_format
from pixclip.importers.load import ImportReport, import_weights
from pixclip.importers.own import CHECKPOINT, import_checkpoint
from pixclip.importers.source import WeightsRefused
from pixclip.importers.translation import ImportChoices

__all__ = [
    "CHECKPOINT",
    "FORMATS",
    "ImportChoices",
    "ImportReport",
    "WeightsRefused",
    "find_format",
    "import_checkpoint",
    "import_weights",
]
