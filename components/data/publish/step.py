"""Put the data set under DVC, push it and commit the version.

pixclip publish --dataset runs/demo/longgrit --publication runs/demo/publication
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from components.core.hashed import copy_all, files_below, require_receipt
from components.core.receipts import Receipt, read_receipt
from components.core.step import ARTIFACTS, In, Metrics, Out, StepSettings, runtime, step
from components.data.publish.repository import DataRepository, Version
from components.data.publish.storage import Remote, full_address

PUBLICATION_NAME = "publication.json"


class PublishSettings(StepSettings):
    """Where versions are kept."""

    repository: str = Field(
        "runs/repository",
        min_length=1,
        description="folder of the Git and DVC repository that keeps all versions; made if missing",
    )
    name: str = Field(
        "longgrit",
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="name of the data set inside the repository",
    )
    remote: str = Field(
        "",
        description="where DVC pushes: a folder or s3://bucket/prefix; empty: a folder named "
        "`<repository>-storage` beside the repository",
    )
    endpoint_url: str = runtime("", "URL of an S3 server that is not AWS's; empty: AWS")
    message: str = runtime("", "commit message; empty: one that gives name and counts")


# The repository may be gone by now: the step looks every time, and changes nothing that stands.
@step(image="data", is_pure=False)
def publish(dataset: In, publication: Out, settings: PublishSettings) -> Metrics:
    """Put the data set under DVC, push it and commit the version.

    Nothing changed means no new commit. `publication.json` holds the Git commit, the branch or tag
    that holds it, DVC's digest, the remote, the counts and the contracts that were met.
    """
    folder = Path(settings.repository).absolute()
    remote = Remote(_remote_url(folder, settings.remote), settings.endpoint_url)
    receipt = read_receipt(dataset)
    digests = copy_all(files_below(dataset), None)
    sha256 = {name: found.sha256 for name, found in digests.items()}
    require_receipt(dataset, sha256, "dataset", f"remove {dataset} and pack again")
    counts = dict(receipt.metrics) if receipt else {}
    version = DataRepository(folder, remote).publish(
        dataset, settings.name, settings.message or _message(settings.name, counts), digests
    )
    content = {
        "name": settings.name,
        "repository": str(folder),
        "remote": full_address(remote, folder),
        "endpoint_url": settings.endpoint_url,
        **{key: value for key, value in asdict(version).items() if key != "is_new"},
        "counts": counts,
        "contracts_met": _contracts(receipt) if receipt else [],
    }
    publication.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (publication / PUBLICATION_NAME).write_text(text, encoding="utf-8")
    return _metrics(version)


def _remote_url(folder: Path, remote: str) -> str:
    """What DVC is given: a folder of the user's is below the current one, as everywhere."""
    if not remote:  # relative to `.dvc`, so that both can be moved together
        return os.path.join("..", "..", f"{folder.name}-storage")
    return remote if "://" in remote else str(Path(remote).absolute())


def _message(name: str, counts: Metrics) -> str:
    shown = ", ".join(f"{key} {counts[key]}" for key in sorted(counts) if "." not in key)
    return f"Publish {name}" + (f"\n\n{shown}" if shown else "")


def _contracts(receipt: Receipt) -> list[str]:
    return sorted(ARTIFACTS[name].contract for name in receipt.contracts if name in ARTIFACTS)


def _metrics(version: Version) -> Metrics:
    return {
        "num_files": version.num_files,
        "size_bytes": version.size_bytes,
        "num_new_versions": int(version.is_new),
    }
