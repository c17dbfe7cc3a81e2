"""Whether a step that was killed and run again left what an undisturbed run leaves."""

import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.data.describe.llm_server import Asked
from tests.kills.chain import DOWNLOADS, Task
from tests.kills.world import World

RECEIPT_NAME = "_receipt.json"
# Compared by what they mean, or not at all: they hold times, ids and places.
OTHERS = ("repository/.git/", "repository/.dvc/tmp/", "repository/.dvc/cache/", "mlflow/")
VARIABLE = {
    "publication/publication.json": ("git_commit", "repository", "remote"),
    "registration/registration.json": ("tags",),
    "ledger.json": None,
    "curves.csv": None,
    # Whose these files are: with their digests.
    ".owner-of-ledger.json.note": None,
    ".owner-of-curves.csv.note": None,
}  # fmt: skip


def problems_of(world: World, task: Task, folder: Path) -> list[str]:
    """What differs from the undisturbed run."""
    clean = world.folder / task.name
    ours, theirs = files_below(folder), files_below(clean)
    found = [f"left behind: {name}" for name in sorted(ours.keys() - theirs.keys())]
    found += [f"missing: {name}" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = meaning(name, ours[name]), meaning(name, theirs[name])
        if one != other:
            found.append(f"differs: {name}{_where(one, other)}")
    if (clean / "repository").exists():
        found += [f"repository: {difference}" for difference in _versions(folder, clean)]
    if (clean / "mlflow").exists():
        found += _differences(_registry(folder), _registry(clean))
    return found


def files_below(folder: Path) -> dict[str, Path]:
    """The files that a run left, and its empty folders, by their place."""
    paths = [path for path in folder.rglob("*") if not path.is_dir() or not any(path.iterdir())]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if not name.startswith(OTHERS)}


def meaning(name: str, path: Path) -> Any:
    """What a file says, without what may differ between two runs."""
    if not path.is_file():
        return None
    if name.endswith(f"/{RECEIPT_NAME}"):
        receipt = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: v for k, v in receipt["files"].items() if not _is_variable(k)}
        told = {key: value for key, value in receipt.items() if key != "checksum"}
        return {**told, "files": kept, "metrics": sorted(receipt["metrics"])}
    if name.startswith("answers/"):
        return sorted(map(_answer, path.read_text(encoding="utf-8").splitlines()[1:]))
    if name not in VARIABLE:
        return path.read_bytes()
    left_out = VARIABLE[name]
    if left_out is None:
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in left_out}


def _answer(line: str) -> tuple[str, str]:
    """Request and answer, without the time that it took."""
    _, request, content = line.split(" ", 2)
    answer = {key: value for key, value in json.loads(content).items() if key != "seconds"}
    return request, json.dumps(answer, sort_keys=True)


def _where(one: Any, other: Any) -> str:
    """The parts of two texts of JSON that differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return ""
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return ": " + "; ".join(f"{key}: {one.get(key)} not {other.get(key)}" for key in sorted(keys))


def _is_variable(artifact_path: str) -> bool:
    names = {name.rpartition("/")[2] for name in VARIABLE} | {"ledger", "curves"}
    return artifact_path.rpartition("/")[2] in names


def _versions(folder: Path, clean: Path) -> Iterator[str]:
    """How a repository of versions differs: trees, messages, unfinished business."""
    for words in (
        ("rev-parse", "HEAD^{tree}"), ("log", "--format=%s"), ("branch", "--list"),
        ("fsck", "--strict"),
    ):  # fmt: skip
        ours, theirs = _git(folder, *words), _git(clean, *words)
        if ours != theirs:
            yield f"git {words[0]}: {ours!r} instead of {theirs!r}"
    if (status := _git(folder, "status", "--porcelain")) != "0 []":
        yield f"git status: {status}"
    yield from (f"lock {path.name}" for path in (folder / "repository/.git").rglob("*.lock"))


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder / "repository"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if not line.startswith("dangling")]
    return f"{done.returncode} {told}"


def _registry(folder: Path) -> dict[str, list[Any]]:
    """What MLflow's database says: versions, aliases, and how runs ended."""
    queries = {
        "versions": "SELECT name, version FROM model_versions",
        "aliases": "SELECT name, alias, version FROM registered_model_aliases",
        "experiments": "SELECT name, lifecycle_stage FROM experiments",
        "models": "SELECT name FROM logged_models",
        "finished runs": "SELECT e.name, count(*) FROM runs r JOIN experiments e "
        "USING (experiment_id) WHERE status = 'FINISHED' AND e.name != 'promotions' GROUP BY 1",
        "open decisions": "SELECT r.name FROM runs r JOIN experiments e USING (experiment_id) "
        "WHERE status = 'RUNNING' AND e.name = 'promotions'",
        "files": "SELECT 'damaged' WHERE 0",
    }
    database = folder / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        found = {name: sorted(connection.execute(query)) for name, query in queries.items()}
    # Locks stay, and belong to nobody; folders of unfinished tables do not.
    beside = {path.name for path in database.parent.iterdir() if path.name != "artifacts"}
    found["files"] = sorted(name for name in beside if "journal" in name or "making" in name)
    return found


def _differences(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> list[str]:
    return [
        f"mlflow: {name}: {ours[name]} instead of {theirs[name]}"
        for name in theirs
        if ours[name] != theirs[name]
    ]


def asked_again(asked: Sequence[Asked]) -> list[str]:
    """Requests to the model that came again although their answer had been received.

    Received is what was answered on a connection that the client used once more: it keeps an answer
    before it asks the next thing.
    """
    last_on = {one.connection: one for one in asked}
    received: set[str] = set()
    again = []
    for one in asked:
        if one.key in received:
            again.append(f"{one.stage} {one.key[:8]}")
        if one.answered_at is not None and last_on[one.connection] is not one:
            received.add(one.key)
    return again


def downloaded_again(asked: Counter[str], num_kills: int) -> list[str]:
    """Downloads that came again, if there are more than were under way when the kills came."""
    again = {path: number - 1 for path, number in asked.items() if number > 1}
    if sum(again.values()) <= DOWNLOADS * num_kills:
        return []
    return [f"{path} {number} times more" for path, number in sorted(again.items())]
