"""Whether a run has nothing to do: everything is, byte for byte, as the same run left it.

Each task of a run looks at its inputs, settings and receipts to know whether it is up to date. With
Airflow, kfp and MLflow around them that takes a minute for tasks that do nothing, so the laptop
runner notes after a successful run what it depended on (`causes`) and what it left (`results`). The
next run of the same DAGs and conf is left out only if a digest of all of it is the same.

What cannot be known here is never noted: a run that names an address (`s3://`, `http://`), a
tracking server or containers, or one that does not name its run folder.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

import components
import data_contracts
import pixclip
from components.core.digests import (
    RECEIPT_NAME,
    digest_of_files,
    is_too_large,
    sha256_of_files,
    sha256_text,
)
from components.core.files import write_whole
from components.core.receipts import read_receipt
from components.core.settings import texts_in
from components.core.yaml_text import read_yaml
from components.orchestration.home import TRACKING_FOLDER
from pixclip.json_files import JsonError, read_json_object

log = logging.getLogger(__name__)

FOLDER = "unchanged"  # of the notes, in Airflow's home
# Variables that steps read. What Airflow and kfp are told decides no output.
VARIABLES = ("PIXCLIP_", "MLFLOW_", "AWS_")
SERVER = "MLFLOW_TRACKING_URI"
DAGS, PARAMS = "dags", "params"
CACHES = {"__pycache__"}
MAX_PATH_CHARS = 1024
CAUSES, RESULTS, TIME = "causes", "results", "time"


@dataclass(frozen=True)
class Run:
    """DAGs that the laptop runner runs one after another, each with its conf."""

    home: Path
    dag_ids: Sequence[str]
    confs: Sequence[Mapping[str, Any]]

    def note(self) -> Path:
        """Where the note of this run is kept, below the folder of all notes."""
        return Path(f"{sha256_text(json.dumps([*self.dag_ids, *self.confs], sort_keys=True))}.json")

    def results(self) -> list[Path]:
        """The folders that the run writes."""
        folders = {self.home / str(conf["run_folder"]) for conf in self.confs}
        return [*sorted(folders), self.home / TRACKING_FOLDER]


def unchanged_since(run: Run, notes: Path) -> str:
    """When the same run left everything as it is now; empty if it did not, or nobody knows."""
    try:
        note = read_json_object(notes / run.note())
    except (JsonError, OSError):
        return ""
    causes = causes_of(run)
    if not causes or causes != note.get(CAUSES) or note.get(RESULTS) != _results_digest(run):
        return ""
    return str(note.get(TIME, ""))


def note_unchanged(run: Run, notes: Path, causes: str) -> None:
    """Note how a successful run has left everything, unless its causes changed meanwhile.

    Args:
        run: what was run.
        notes: the folder of all notes.
        causes: `causes_of` it, taken before it began; empty: the run is not noted.
    """
    if not causes or causes_of(run) != causes:
        return
    results = _results_digest(run)
    if results:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        notes.mkdir(parents=True, exist_ok=True)
        note = {CAUSES: causes, RESULTS: results, TIME: now}
        write_whole(notes / run.note(), json.dumps(note, indent=1) + "\n")


def causes_of(run: Run) -> str:
    """A digest of code, settings, variables and named files; empty if something is not here."""
    texts = list(texts_in([list(run.confs), *_params(run)]))
    is_here = all(
        conf.get("run_folder") and conf.get("backend", "local") == "local" for conf in run.confs
    )
    if not is_here or os.environ.get(SERVER) or any("://" in text for text in texts):
        return ""
    results = run.results()
    named = [path for path in _named_paths(run.home, texts) if not _is_below(path, results)]
    packages = [Path(package.__path__[0]) for package in (components, data_contracts, pixclip)]
    files = _files([*packages, run.home / DAGS, run.home / PARAMS, *named])
    variables = {name: text for name, text in os.environ.items() if name.startswith(VARIABLES)}
    if is_too_large(files):
        return ""
    content = _digests(files) | {f"${name}": text for name, text in variables.items()}
    return digest_of_files(content | {"run": str(run.note())})


def _params(run: Run) -> list[Any]:
    paths = {*(run.home / PARAMS).glob("*.yaml")}
    paths |= {run.home / str(conf["params_file"]) for conf in run.confs if "params_file" in conf}
    try:
        return [read_yaml(path.read_text(encoding="utf-8")) for path in sorted(paths)]
    except (OSError, ValueError, yaml.YAMLError):
        return ["://"]  # the run itself tells what is wrong with it


def _named_paths(home: Path, texts: Iterable[str]) -> Iterator[Path]:
    for text in sorted({text for text in texts if 0 < len(text) < MAX_PATH_CHARS}):
        path = home / text
        if "\0" not in text and not home.is_relative_to(path) and os.path.exists(path):
            yield path


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _results_digest(run: Run) -> str:
    """A digest of all files of a run's folders; empty if they are no run's whole results."""
    files = _files(run.results())
    if is_too_large(files):
        return ""
    found = _digests(files)
    receipts = [file.parent for file in files if file.name == RECEIPT_NAME]
    for folder in receipts:
        receipt = read_receipt(folder)
        own = receipt.files_below(f"{receipt.artifact}/") if receipt else {}
        if not receipt or any(found.get(str(folder / name)) != own[name] for name in own):
            log.info("%s is not as its receipt says", folder)
            return ""
    return digest_of_files(found)


def _files(places: Iterable[Path]) -> list[Path]:
    """The files at and below some places, once each, without what Python caches."""
    found: set[Path] = set()
    for place in places:
        inner = place.rglob("*") if place.is_dir() else [place]
        found |= {file for file in inner if file.is_file() and not CACHES & set(file.parts)}
    return sorted(found)


def _digests(files: Sequence[Path]) -> dict[str, str]:
    return dict(zip(map(str, files), sha256_of_files(files), strict=True))
