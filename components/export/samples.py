"""Read the data set's samples in order, from its own files alone; nothing in them is trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from components.kernel.errors import InputError
from pixclip.data.errors import DataError
from pixclip.data.fields import Fields
from pixclip.data.samples import parse_sample
from pixclip.data.tar import Member, TarError, read_members
from pixclip.json_files import parse_json, shown
from pixclip.masks import rle_num_pixels

SPLITS = ("train", "val", "benchmark")
MAX_BYTES = {"json": 32 << 20, "jpg": 512 << 20}  # of a sample's members


@dataclass(frozen=True)
class Sample:
    """One image with its regions, as `key.jpg` and `key.json` hold them."""

    key: str
    jpeg: bytes
    content: dict[str, Any]


def read_samples(longgrit: Path, split: str) -> Iterator[Sample]:
    """Stream a split's samples, one image in memory at a time.

    Raises:
        InputError: a shard is damaged or holds something else than pairs of `jpg` and `json`, or
            a description lacks something.
    """
    keys: set[str] = set()
    for shard in sorted((longgrit / split).glob("*.tar")):
        try:
            with shard.open("rb") as file:
                for key, members in _pairs(file):
                    if key in keys:
                        raise DataError(f"the key {shown(key)} comes twice in split {split}")
                    keys.add(key)
                    yield _sample(file, shard, key, members)
        except TarError as error:
            what = "is damaged, or holds what is no part of a sample"
            raise InputError(f"{shard} {what}: {error}") from error
        except (ValueError, OSError) as error:
            raise InputError(f"{shard}: {error}") from error


def _pairs(file: BinaryIO) -> Iterator[tuple[str, dict[str, Member]]]:
    """The members of each sample, which lie beside each other."""
    parts: dict[str, Member] = {}
    last = ""
    for member in read_members(file):
        key, _, extension = member.name.partition(".")
        if extension not in MAX_BYTES or "/" in key or not key:
            raise DataError(f"it holds {shown(member.name)}, which is no part of a sample")
        if member.size > MAX_BYTES[extension]:
            raise DataError(f"{shown(member.name)} has {member.size} bytes: more than is read")
        if parts and key != last:
            raise DataError(f"{shown(last)} and {shown(member.name)} are not one sample")
        last = key
        parts[extension] = member
        if len(parts) == len(MAX_BYTES):
            yield key, parts
            parts = {}
    if parts:
        raise DataError(f"{shown(last)} is half a sample")


def _sample(file: BinaryIO, shard: Path, key: str, members: dict[str, Member]) -> Sample:
    contents = {}
    for extension, member in members.items():
        file.seek(member.offset)
        contents[extension] = file.read(member.size)
    # Which checks every field that readers share; the others are checked here.
    sample = parse_sample(shard.name, key, contents["json"], contents["jpg"])
    for region in sample.regions:
        if rle_num_pixels(region.mask.counts) != sample.height_px * sample.width_px:
            raise DataError(f"{sample.place}: the mask of {region.region_id} is damaged")
    fields = parse_json(contents["json"])
    Fields(fields, "").text("url")
    for section in Fields(fields, "").sections("regions"):
        section.section("provenance")
    return Sample(key, contents["jpg"], fields)
