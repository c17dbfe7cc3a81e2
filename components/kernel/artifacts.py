"""The artifacts through which steps meet: name, form and meaning."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an artifact is to Kubeflow: the name of its class in `kfp.dsl`."""

    DATASET = "Dataset"
    MODEL = "Model"
    OTHER = "Artifact"


@dataclass(frozen=True)
class Artifact:
    """An artifact: a folder, whose tables are the Parquet files below it, or a file.

    `ending`: that of the file's name; a folder has none.
    """

    description: str
    kind: Kind = Kind.DATASET
    ending: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return not self.ending


ARTIFACTS = {
    "grit": Artifact("source records in GRIT's published Parquet layout"),
    "records": Artifact("one row a region of the source, in groups"),
    "images": Artifact("downloaded images as WebDataset shards, and a manifest of every URL"),
    "candidates": Artifact("region rows whose image is there, duplicates removed"),
    "regions": Artifact("region rows with masks"),
    "captions": Artifact("region rows with verified captions"),
    "quarantine": Artifact(
        "a Parquet file of dropped regions with their reasons", ending=".parquet"
    ),
    "quarantines": Artifact("the folder of all steps' quarantine files"),
    "ledger": Artifact("requests, tokens, seconds and cost as JSON", ending=".json"),
    "longgrit": Artifact("the data set: shards, manifest, card and report"),
    "exports": Artifact("the data set as COCO JSON and Hugging Face Parquet"),
    "checked": Artifact("any artifact whose contract is checked as a whole"),
    "data_docs": Artifact("Great Expectations results as web pages"),
    "publication": Artifact("what was published: DVC revision, counts, contract result"),
    "text_tower": Artifact("a language model made an encoder: Hugging Face folder", Kind.MODEL),
    "text_embeddings": Artifact("one embedding a distinct caption, keyed by the caption's hash"),
    "parent": Artifact("the checkpoint that training starts from", Kind.MODEL),
    "checkpoint": Artifact(
        "a model that pixclip.load opens: safetensors and configuration", Kind.MODEL
    ),
    "curves": Artifact("loss, rates and speed of every step as CSV", Kind.OTHER, ".csv"),
    "evaluation": Artifact("metrics by protocol, every sample's ranks, pictures", Kind.OTHER),
    "registration": Artifact("which version of the registry a checkpoint became", Kind.OTHER),
    "promotion": Artifact("what the policy said of a candidate, check by check", Kind.OTHER),
}
