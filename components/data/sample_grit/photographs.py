"""Fetch the sample's photographs from Debian packages, without root and without installing.

    python -m components.data.sample_grit.photographs --into .cache/photographs

A package that is there already is not fetched again, so that a stopped run goes on where it was.
"""

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from components.core.errors import InputError, PipelineError
from components.core.progress import progress
from components.data.sample_grit.catalogue import BACKGROUNDS, STAMPS, load_catalogue

log = logging.getLogger(__name__)

DEFAULT_FOLDER = Path(".cache/photographs")
LICENCES = "licences"
PRIVATE_LISTS = ".apt"
TIMEOUT_S = 1800


def fetch_photographs(folder: Path) -> None:
    """Fetch what is missing into `folder`: cut-out objects, backgrounds and their licences.

    Raises:
        InputError: this is no Debian machine, or a package cannot be fetched.
    """
    folder = folder.resolve()  # the tools below run in folders of their own
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".draft-*"):
        shutil.rmtree(stale)
    packages = load_catalogue().packages
    with progress("fetch photographs", len(packages), unit="package") as bar:
        for package in packages:
            if not (folder / LICENCES / package).exists():
                with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder) as draft:
                    unpacked = unpack(package, Path(draft), folder)
                    keep_photographs(package, unpacked, folder)
            bar.update()
    shutil.rmtree(folder / PRIVATE_LISTS, ignore_errors=True)


def unpack(package: str, draft: Path, folder: Path) -> Path:
    """Download a package into `draft` and unpack it there."""
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"not a Debian machine ({', '.join(missing)} not found): unpack the packages "
            f"{', '.join(load_catalogue().packages)} elsewhere by this command and copy its "
            f"folder to {folder}"
        )
    _download(package, draft)
    archives = list(draft.glob("*.deb"))
    assert len(archives) == 1, archives
    unpacked = draft / "unpacked"
    _run(["dpkg", "-x", str(archives[0]), str(unpacked)], draft)
    return unpacked


def keep_photographs(package: str, unpacked: Path, folder: Path) -> None:
    """Move the photographs of an unpacked package into `folder`; its licence comes last."""
    catalogue = load_catalogue()
    if package == catalogue.stamps.package:
        _publish(_stamps(unpacked, unpacked / STAMPS), folder / STAMPS)
    else:
        kept = unpacked / BACKGROUNDS
        kept.mkdir()
        for pattern in catalogue.backgrounds[package]:
            for path in sorted(unpacked.glob(pattern)):
                path.rename(kept / path.name)
        _publish(kept, folder / BACKGROUNDS / package)
    licence = folder / LICENCES / package
    licence.parent.mkdir(exist_ok=True)
    (unpacked / "usr/share/doc" / package / "copyright").rename(licence)


def _stamps(unpacked: Path, kept: Path) -> Path:
    rules = load_catalogue().stamps
    root = unpacked / rules.folder
    for path in sorted(root.rglob("*.png")):
        name = path.relative_to(root).with_suffix("").as_posix()
        description = path.with_suffix(".txt")
        if not rules.accepts(name) or not description.exists():
            continue
        target = kept / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Translations follow the first line, which is English.
        english = description.read_text(encoding="utf-8").splitlines()[0]
        target.with_suffix(".txt").write_text(f"{english}\n", encoding="utf-8")
        if path.with_suffix(".dat").exists():  # drawing hints, such as "nomirror"
            path.with_suffix(".dat").rename(target.with_suffix(".dat"))
        path.rename(target)
    return kept


def _publish(kept: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept.rename(target)


def _download(package: str, draft: Path) -> None:
    """`apt-get download` with the machine's package lists, or with fresh private ones."""
    command = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User="]
    try:
        _run([*command, "download", package], draft)
    except InputError as error:
        log.info("%s; trying again with fresh package lists", error)
        private = draft.parent / PRIVATE_LISTS
        for name in ("lists/partial", "archives/partial"):
            (private / name).mkdir(parents=True, exist_ok=True)
        command += ["-o", f"Dir::State::Lists={private / 'lists'}", "-o", f"Dir::Cache={private}"]
        if not any((private / "lists").glob("*Packages*")):
            _run([*command, "update"], draft)
        _run([*command, "download", package], draft)


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        last = " ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise InputError(
            f"`{command[0]} … {' '.join(command[-2:])}` failed: {last or done.returncode}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if the photographs are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, default=DEFAULT_FOLDER, help="folder to fetch into")
    try:
        fetch_photographs(parser.parse_args(arguments).into)
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
