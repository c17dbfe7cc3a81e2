"""States of a running training: atomic, with checksums; the newest whole one is found again.

    states/step-00000200/rank-00000.pt   a rank's state, loaded with `weights_only=True`
    states/step-00000200/checksums.json  SHA-256 of each file
    states/latest                        the name of the newest, written last

The ranks of several machines need one file system for it. The states of random generators are plain
data in it, so that a resumed run draws the same.
"""

import json
import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pixclip.checksums import sha256_of
from pixclip.distributed import num_ranks, rank
from pixclip.files import flush, write_whole
from pixclip.json_files import JsonError, brief, read_json_object

log = logging.getLogger(__name__)

LATEST, CHECKSUMS = "latest", "checksums.json"
NUM_KEPT = 2


def save_state(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Save all ranks' states after `step` steps; it and the one before it are kept."""
    name = f"step-{step:08d}"
    draft = folder / f".{name}.draft"
    if rank() == 0:
        for left in folder.glob(".step-*.draft"):  # by runs that were killed while saving
            shutil.rmtree(left)
        draft.mkdir(parents=True)
    _wait_for_ranks()
    torch.save(state, draft / _rank_file(rank()))
    flush(draft / _rank_file(rank()))
    _wait_for_ranks()
    if rank() == 0:
        digests = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
        write_whole(draft / CHECKSUMS, json.dumps(digests, indent=1), durable=True)
        shutil.rmtree(folder / name, ignore_errors=True)  # damaged, or of a run that was set back
        draft.rename(folder / name)
        flush(folder)
        write_whole(folder / LATEST, name, durable=True)
        _remove_others(folder, name)
    _wait_for_ranks()


def _remove_others(folder: Path, newest: str) -> None:
    """Keep the last states up to `newest`; the run went back behind those of later steps."""
    saved = _saved(folder)
    kept = [path for path in saved if path.name <= newest][:NUM_KEPT]
    for path in saved:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """This rank's part of the newest whole state, or `None` if there is no state at all.

    A damaged state is passed over with a warning.

    Raises:
        ValueError: states are there, but none is whole, or they are of another number of ranks.
    """
    choice = [_newest_whole(folder) if rank() == 0 else None]
    if num_ranks() > 1:
        dist.broadcast_object_list(choice)
    if choice[0] is None:
        return None
    if choice[0] == "":
        raise ValueError(
            f"no state in {folder} is whole; remove the folder to train from the start"
        )
    saved = folder / choice[0]
    num_saved = len(list(saved.glob("rank-*.pt")))
    if num_saved != num_ranks():
        raise ValueError(
            f"{saved} is of {num_saved} ranks and this run has {num_ranks()}; go on with "
            f"{num_saved}, or remove {folder} to train from the start"
        )
    file = saved / _rank_file(rank())
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # readers of pickles raise anything
        raise ValueError(
            f"{file} was saved whole but cannot be read ({brief(error)}); remove {saved} to go on "
            "from the state before it"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{file} holds no state; remove {saved}")
    return state


def _newest_whole(folder: Path) -> str | None:
    """The name of the newest whole state, "" if all are damaged, `None` if there is none."""
    saved = _saved(folder)
    for path in saved:
        damage = _damage(path)
        if not damage:
            return path.name
        log.warning("%s is damaged (%s); going back to the state before it", path, damage)
    return "" if saved else None


def _saved(folder: Path) -> list[Path]:
    """The saved states, newest first, beginning with the one that `latest` names."""
    paths = sorted(folder.glob("step-*"), reverse=True)
    try:
        named = (folder / LATEST).read_bytes().decode(errors="replace").strip()
    except OSError:
        return paths
    latest = folder / named
    return [*(path for path in paths if path == latest), *(p for p in paths if p != latest)]


def _damage(path: Path) -> str:
    """What is wrong with a saved state, or "" if it is whole."""
    try:
        digests = read_json_object(path / CHECKSUMS)
    except JsonError as error:
        return f"{CHECKSUMS} cannot be read: {error}"
    if not digests:
        return f"{CHECKSUMS} names no file"
    expected = sorted(_rank_file(number) for number in range(len(digests)))
    if sorted(digests) != expected:
        return f"{CHECKSUMS} names {brief(', '.join(digests))} and not {expected[0]} and so on"
    for name, digest in digests.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if sha256_of(file) != digest:
            return f"{name} is not what was saved"
    return ""


def _rank_file(number: int) -> str:
    return f"rank-{number:05d}.pt"


def _wait_for_ranks() -> None:
    if num_ranks() > 1:
        dist.barrier()


def random_state() -> dict[str, Any]:
    """The generators of torch (every device), NumPy and Python."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(kind), [int(key) for key in keys], position, has_gauss, gauss],
        "python": [version, list(words), next_gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from `random_state()`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))


def seed_all(seed: int) -> None:
    """Seed the generators of torch (every device), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
