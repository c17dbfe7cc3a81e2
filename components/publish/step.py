"""Put the data set under DVC, push it to the remote and commit the version.

pixclip publish --longgrit runs/demo/longgrit --publication runs/demo/publication
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from components.kernel.digests import file_sha256
from components.kernel.errors import InputError
from components.kernel.receipts import Receipt, read_receipt
from components.kernel.step import In, Metrics, Out, StepSettings, runtime, step
from components.publish.repository import DataRepository, Remote, Version

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


@step(image="data")
def publish(longgrit: In, publication: Out, settings: PublishSettings) -> Metrics:
    """Put the data set under DVC, push it and commit the version.

    Nothing changed means no new commit. `publication.json` holds the Git commit, DVC's digest,
    the remote, the counts and the contracts that were met.
    """
    folder = Path(settings.repository).absolute()
    remote = settings.remote or os.path.join("..", "..", f"{folder.name}-storage")
    repository = DataRepository(folder, Remote(remote, settings.endpoint_url))
    receipt = read_receipt(longgrit)
    if receipt:
        _require_intact(longgrit, receipt)
    counts = dict(receipt.metrics) if receipt else {}
    version = repository.publish(
        longgrit, settings.name, settings.message or _message(settings.name, counts)
    )
    content = {
        "name": settings.name,
        "repository": settings.repository,
        "remote": settings.remote or f"{settings.repository}-storage",
        **{key: value for key, value in asdict(version).items() if key != "is_new"},
        "counts": counts,
        "contracts_met": sorted(receipt.contracts) if receipt else [],
    }
    publication.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (publication / PUBLICATION_NAME).write_text(text, encoding="utf-8")
    return _metrics(version)


def _require_intact(longgrit: Path, receipt: Receipt) -> None:
    """Refuse files that changed since their receipt was written: it does not speak for those.

    Raises:
        InputError: names some of them.
    """
    changed = []
    for name, digest in receipt.files.items():
        path = longgrit / name.removeprefix("longgrit/")
        if name.startswith("longgrit/") and not (path.is_file() and file_sha256(path) == digest):
            changed.append(name)
    if changed:
        raise InputError(
            f"{len(changed)} file(s) are missing or not as `pack` wrote them, e.g. "
            f"{', '.join(changed[:3])}; remove {longgrit} and pack again"
        )


def _message(name: str, counts: Metrics) -> str:
    shown = ", ".join(f"{key} {counts[key]}" for key in sorted(counts) if "." not in key)
    return f"Publish {name}" + (f"\n\n{shown}" if shown else "")


def _metrics(version: Version) -> Metrics:
    return {
        "num_files": version.num_files,
        "size_bytes": version.size_bytes,
        "num_new_versions": int(version.is_new),
    }
