"""Names inside a data set: who writes it and who reads it use the same.

    manifest.parquet         one row a region, with its split, shard and key
    train/00000.tar          WebDataset shards, a folder a split; also val/ and benchmark/
    README.md                the card
    report.html              the page on which a person looks at it
    _receipt.json            what the step that wrote it did, and the digest of every file

The `images` of a group are laid out alike: shards, and a manifest with one row a URL.
"""

TRAIN, VAL, BENCHMARK = SPLITS = ("train", "val", "benchmark")
# Subsets of the benchmark: what its objects are to the split for training.
SEEN_OBJECTS, HELD_OUT_OBJECTS = "seen_objects", "held_out_objects"
MANIFEST_NAME = "manifest.parquet"
CARD_NAME = "README.md"
REPORT_NAME = "report.html"
RECEIPT_NAME = "_receipt.json"
SHARDS = "*.tar"


def shard_name(index: int) -> str:
    """The file name of a shard in its folder."""
    return f"{index:05d}.tar"


# Where the box of a region is from that is the image itself, or the whole object of parts.
WHOLE_IMAGE, WHOLE_OBJECT = "image", "object"
# What a region is, by that: any region of LongGRIT is of the first kind.
OBJECTS, PARTS, WHOLE_IMAGES = KINDS = ("objects", "parts", "whole_images")
