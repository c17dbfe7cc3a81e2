"""Cached text embeddings: one vector a distinct caption, found by the caption's hash.

One digest of a text tower's files says which tower made them.

A folder holds `00000.safetensors`, `00001.safetensors` … (tensor `embeddings` [n, E], bfloat16)
and `index.parquet`, one row a caption in the order of the hashes: `caption_hash` (hex), `part` and
`row` of its vector. Vectors are mapped into memory, not read: millions of them cost the memory of
their hashes, 40 bytes each.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixclip.checksums import TEXT_TOWER_NAME, CheckpointError, read_checksums, sha256_of
from pixclip.files import written_whole
from pixclip.json_files import JsonError, brief, read_json_object, shown
from pixclip.text.tokens import normalise

# n = captions looked up, E = width of the language model
TENSOR_NAME, INDEX_NAME = "embeddings", "index.parquet"
HASH_BYTES = 32
MAX_PARTS = 1_000_000
# With the folder in its place the step would be up to date.
ANEW = "remove the folder and run `pixclip embed-text` again"
HEXADECIMAL = re.compile("[0-9a-f]*")
Bytes = npt.NDArray[np.bytes_]


class MissingCaption(KeyError):
    """A caption has no cached embedding."""

    def __str__(self) -> str:
        return str(self.args[0])


def caption_hash(text: str) -> str:
    """The key of a caption in caches: SHA-256 of its NFC form in UTF-8, as hex.

    Raises:
        ValueError: the text is no Unicode; see `normalise`.
    """
    return hashlib.sha256(normalise(text).encode()).hexdigest()


def part_name(part: int) -> str:
    """The file name of a part."""
    return f"{part:05d}.safetensors"


def write_part(folder: Path, part: int, embeddings_nE: Tensor) -> None:
    """Write one part by rename, so that a part that is there is whole."""
    write_vectors(folder / part_name(part), embeddings_nE)


def write_vectors(path: Path, embeddings_nE: Tensor) -> None:
    """Write vectors [n, E] as bfloat16, by rename."""
    with written_whole(path) as partial:
        save_file({TENSOR_NAME: embeddings_nE.to(torch.bfloat16).contiguous()}, str(partial))


def read_vectors(path: Path) -> Tensor:
    """The vectors [n, E] of a file, mapped into memory.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _map_part(path)


class TextEmbeddings:
    """The cached embeddings in a folder."""

    def __init__(self, folder: Path, hashes: Bytes, parts: list[Tensor], places: Tensor) -> None:
        self.folder = folder
        self._hashes = hashes  # sorted
        self._parts = parts
        self._places_n2 = places  # part, row

    @classmethod
    def open(cls, folder: str | os.PathLike[str], embed_dim: int | None = None) -> "TextEmbeddings":
        """The cache in a folder; `embed_dim` is the width that its vectors must have, if given.

        Raises:
            ValueError: the folder is no cache, its index and parts do not fit, or its vectors
                have another width or there are none.
        """
        folder = Path(folder)
        if not (folder / INDEX_NAME).is_file():
            raise ValueError(
                f"{folder} holds no text embeddings: {INDEX_NAME} is missing; "
                "`pixclip embed-text` makes them"
            )
        try:
            hashes, places_n2 = _read_index(folder / INDEX_NAME)
        except (pa.ArrowException, OSError, KeyError, TypeError, UnicodeError) as error:
            raise ValueError(
                f"text embeddings {folder / INDEX_NAME} cannot be read ({brief(error)}); {ANEW}"
            ) from None
        num_parts = int(places_n2[:, 0].max()) + 1 if len(places_n2) else 0
        if num_parts > MAX_PARTS:
            raise ValueError(f"{folder}: {INDEX_NAME} names {num_parts} parts; {ANEW}")
        parts = [_map_part(folder / part_name(part)) for part in range(num_parts)]
        _require_fit(folder, parts, places_n2)
        if not parts:
            raise ValueError(
                f"{folder} holds no vector at all; run `pixclip embed-text` on a data set with "
                "captions"
            )
        embeddings = cls(folder, hashes, parts, places_n2)
        if embed_dim not in (None, embeddings.dim):
            raise ValueError(
                f"the vectors in {folder} have {embeddings.dim} numbers, the adaptor of the model "
                f"takes {embed_dim}; embed the captions with the model's own text tower"
            )
        return embeddings

    def __len__(self) -> int:
        return len(self._hashes)

    def __reduce__(self) -> tuple[object, ...]:
        # Workers that are spawned map the files themselves.
        return TextEmbeddings.open, (self.folder,)

    @property
    def dim(self) -> int:
        """Width E of the vectors."""
        return int(self._parts[0].shape[1])

    def lookup(self, hashes: Sequence[str]) -> Tensor:
        """The vectors [n, E], float32, of captions given by `caption_hash`.

        Raises:
            MissingCaption: names the first caption that is not there.
        """
        wanted = np.array([bytes.fromhex(text) for text in hashes], dtype=f"S{HASH_BYTES}")
        found = np.searchsorted(self._hashes, wanted).clip(max=max(len(self) - 1, 0))
        is_missing = self._hashes[found] != wanted if len(self) else np.ones(len(wanted), bool)
        if is_missing.any():
            raise MissingCaption(
                f"{self.folder} has no embedding for {int(is_missing.sum())} of {len(hashes)} "
                f"captions, the first with hash {hashes[int(is_missing.argmax())]}; they were made "
                "for other captions: run `pixclip embed-text` again on this data set"
            )
        return self._gather(self._places_n2[torch.from_numpy(found)])

    def _gather(self, places_n2: Tensor) -> Tensor:
        vectors_nE = torch.empty(len(places_n2), self.dim)
        for part in sorted(set(places_n2[:, 0].tolist())):
            is_here_n = places_n2[:, 0] == part
            rows = places_n2[is_here_n, 1]
            vectors_nE[is_here_n] = self._parts[part][rows].float()
        return vectors_nE


def _read_index(path: Path) -> tuple[Bytes, Tensor]:
    with pq.ParquetFile(path) as file:
        num_rows = file.metadata.num_rows
        hashes = np.empty(num_rows, dtype=f"S{HASH_BYTES}")
        places_n2 = np.empty((num_rows, 2), dtype=np.int32)
        start = 0
        for batch in file.iter_batches(1 << 20, columns=["caption_hash", "part", "row"]):
            stop = start + batch.num_rows
            hashes[start:stop] = _as_bytes(batch["caption_hash"])
            places_n2[start:stop, 0] = batch["part"]
            places_n2[start:stop, 1] = batch["row"]
            start = stop
    if num_rows > 1 and not (hashes[:-1] < hashes[1:]).all():
        raise ValueError(f"{path} is not in the order of distinct hashes; it was not made by us")
    return hashes, torch.from_numpy(places_n2)


def _as_bytes(column: pa.Array) -> Bytes:
    joined = "".join(column.to_pylist())
    if len(joined) != 2 * HASH_BYTES * len(column) or not HEXADECIMAL.fullmatch(joined):
        raise TypeError("a hash is no SHA-256")
    return np.frombuffer(bytes.fromhex(joined), dtype=f"S{HASH_BYTES}")


def _map_part(path: Path) -> Tensor:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensor: Tensor = file.get_tensor(TENSOR_NAME)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"text embeddings {path} cannot be read ({brief(error)}); {ANEW}"
        ) from None
    return tensor


def _require_fit(folder: Path, parts: list[Tensor], places_n2: Tensor) -> None:
    widths = {part.shape[1:] for part in parts}
    if len(widths) > 1 or any(part.ndim != 2 or not part.is_floating_point() for part in parts):
        raise ValueError(
            f"{folder}: the parts are no tables of numbers of one width; the files are of "
            f"different runs: {ANEW}"
        )
    num_rows = torch.tensor([len(part) for part in parts])
    if len(places_n2) and bool(
        (places_n2 < 0).any() or (places_n2[:, 1] >= num_rows[places_n2[:, 0].long()]).any()
    ):
        raise ValueError(
            f"{folder}: {INDEX_NAME} points past the end of a part or before its start; the files "
            f"are of different runs: {ANEW}"
        )


DIGEST_NAME, DIGEST_KEY = "text_tower.json", "text_tower_sha256"


# Which text tower something was made with: one digest of the tower's files.
#
# Cached embeddings name theirs in `text_tower.json`; a checkpoint holds its tower's checksums. The
# vectors of one tower mean nothing to an adaptor that was made for another.


class OtherTextTower(ValueError):
    """Texts were embedded by another text tower than the one a model has."""


def tower_digest(folder: Path) -> str:
    """The digest of a text tower's folder; what begins with `_` or `.` is a pipeline's."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in paths]
    own = [name for name in names if not any(part[0] in "_." for part in name.parts)]
    return _digest({name.as_posix(): sha256_of(folder / name) for name in own})


def tower_digest_of_checkpoint(checkpoint: Path) -> str:
    """The digest of the text tower in a checkpoint; empty if it holds none.

    Raises:
        CheckpointError: the folder is no checkpoint.
    """
    sums, start = read_checksums(checkpoint), f"{TEXT_TOWER_NAME}/"
    own = {
        name.removeprefix(start): digest for name, digest in sums.items() if name.startswith(start)
    }
    return _digest(own) if own else ""


def write_tower_digest(embeddings: Path, digest: str) -> None:
    """Say of cached embeddings by which text tower they were made."""
    text = json.dumps({DIGEST_KEY: digest}, indent=1) + "\n"
    (embeddings / DIGEST_NAME).write_text(text, encoding="utf-8")


def require_same_tower(embeddings: Path, checkpoint: Path) -> None:
    """Refuse cached embeddings of another text tower than a checkpoint's, if it holds one.

    Raises:
        OtherTextTower: they are, or do not say of which, or the checkpoint reads texts without a
            language model.
        CheckpointError: the folder is no checkpoint.
    """
    if _has_clip_text(checkpoint):
        raise OtherTextTower(
            f"{checkpoint} reads texts by CLIP's own text tower (text.kind clip), not by cached "
            "embeddings of a language model; take one that init_model made with "
            "text=language_model"
        )
    wanted = tower_digest_of_checkpoint(checkpoint)
    if not wanted:
        return
    path = embeddings / DIGEST_NAME
    try:
        found = read_json_object(path)[DIGEST_KEY]
    except (JsonError, KeyError):
        raise OtherTextTower(
            f"{path} does not say by which text tower the texts were embedded; remove "
            f"{embeddings} and run `pixclip embed-text` with the tower of {checkpoint}"
        ) from None
    if found != wanted:
        raise OtherTextTower(
            f"the texts of {embeddings} were embedded by another text tower ({shown(found)}) than "
            f"that of {checkpoint} ({wanted}); run `pixclip embed-text` with that one"
        )


def _has_clip_text(checkpoint: Path) -> bool:
    path = checkpoint / "config.json"
    try:
        text = read_json_object(path).get("text") if path.is_file() else None
    except JsonError as error:
        raise CheckpointError(f"{error}; bring the checkpoint again") from None
    return isinstance(text, dict) and text.get("kind") == "clip"


def _digest(sums: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
