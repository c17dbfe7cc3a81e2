"""Which text tower something was made with: one digest of the tower's files.

Cached embeddings name theirs in `text_tower.json`; a checkpoint holds its tower's checksums. The
vectors of one tower mean nothing to an adaptor that was made for another.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pixclip.checksums import TEXT_TOWER_NAME, read_checksums, sha256_of
from pixclip.json_files import JsonError, read_json_object, shown

DIGEST_NAME, DIGEST_KEY = "text_tower.json", "text_tower_sha256"


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
        OtherTextTower: they are, or do not say of which.
        CheckpointError: the folder is no checkpoint.
    """
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


def _digest(sums: Mapping[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
