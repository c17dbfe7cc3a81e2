"""The model registry: versions with their lineage as tags, and aliases that point to them.

A model's address is `models:/pixclip@champion`; `fetch` brings it as a plain checkpoint.

Aliases: `candidate` is the newest registered version, `champion` the one in use, `previous` the
champion before it.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import InputError, SettingsError
from components.registry.store import (
    SUMS_NAME,
    TrackingError,
    found_beside,
    mlflow_errors,
    open_client,
    read_sums,
    require_files,
    require_sums,
)

CONTENT_TAG = "content_sha256"  # of what was registered: the same content is the same version
WEIGHTS_TAG = "checkpoint_sha256"
SUMS_TAG = "files_sha256"  # of SHA256SUMS
ROLLED_BACK_TAG = "rolled_back"  # why it was taken back; such a version is not promoted again
MAX_TAG_CHARS = 5000


@dataclass(frozen=True)
class Reference:
    """Which version of which model is meant; `which` is a number or an alias."""

    model: str
    which: str

    def __post_init__(self) -> None:
        for what, value, pattern in (
            ("name of a model", self.model, NAME_PATTERN),
            ("version or alias", self.which, WHICH_PATTERN),
        ):
            if not re.fullmatch(pattern, value):
                raise SettingsError(f"'{value}' is no {what}: it must match {pattern}")

    def __str__(self) -> str:
        """As MLflow writes it."""
        return f"models:/{self.model}{'/' if self.which.isdigit() else '@'}{self.which}"


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    model: str
    number: str
    tags: Mapping[str, str]
    run_id: str

    @property
    def reference(self) -> Reference:
        """Its address by number."""
        return Reference(self.model, self.number)


class Registry:
    """The registry at a tracking address (see `store.py`)."""

    def __init__(self, tracking_uri: str = "") -> None:
        self.client: Any = open_client(tracking_uri)
        self.uri: str = self.client.tracking_uri

    def find(self, reference: Reference) -> Version | None:
        """The version that is meant, or None."""
        from mlflow.exceptions import MlflowException

        by_number = reference.which.isdigit()
        get = self.client.get_model_version if by_number else self.client.get_model_version_by_alias
        with mlflow_errors(f"cannot look up {reference}"):
            try:
                found = get(reference.model, reference.which)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise
        return _version(reference.model, found)

    def get(self, reference: Reference) -> Version:
        """The version that is meant.

        Raises:
            InputError: there is none.
        """
        version = self.find(reference)
        if version is None:
            raise InputError(
                f"the registry has no {reference}; it is {self.uri}: register "
                "a checkpoint there, or give another tracking_uri (MLFLOW_TRACKING_URI)"
            )
        return version

    def with_tag(self, model: str, tag: str, value: str) -> list[Version]:
        """The versions with this tag, oldest first."""
        query = f"name = '{model}' and tag.{tag} = '{value}'"
        with mlflow_errors(f"cannot search the versions of {model}"):
            found = self.client.search_model_versions(query)
        return sorted((_version(model, one) for one in found), key=lambda one: int(one.number))

    def set_alias(self, reference: Reference, alias: str) -> None:
        """Point an alias to a version, wherever it pointed before."""
        with mlflow_errors(f"cannot make {reference} the {alias}"):
            self.client.set_registered_model_alias(reference.model, alias, reference.which)

    def delete_alias(self, model: str, alias: str) -> None:
        """Take an alias away, if it is there."""
        with mlflow_errors(f"cannot remove the alias {alias} of {model}"):
            self.client.delete_registered_model_alias(model, alias)

    def set_tag(self, reference: Reference, name: str, value: str) -> None:
        """Write a tag of a version."""
        with mlflow_errors(f"cannot tag {reference}"):
            self.client.set_model_version_tag(
                reference.model, reference.which, name, value[:MAX_TAG_CHARS]
            )

    def download(self, version: Version, into: Path, path: str = "") -> Path:
        """Bring the files of a version, or those below `path` alone, into an existing folder.

        Raises:
            TrackingError: the store lacks them or cannot be reached.
        """
        what = f"cannot download {version.reference}{f' ({path})' if path else ''}"
        with mlflow_errors(f"{what}; if its files are gone for good, delete the version in MLflow"):
            from mlflow.artifacts import download_artifacts

            told = self.client.get_model_version_download_uri(version.model, version.number)
            root = found_beside(self.uri, told)
            found = download_artifacts(
                artifact_uri=f"{root.rstrip('/')}/{path}" if path else root,
                dst_path=str(into),
                tracking_uri=self.uri,
                registry_uri=self.uri,
            )
        folder = Path(found)
        _require_inside(into, folder)
        return folder

    def download_verified(self, version: Version, into: Path, path: str = "") -> Path:
        """Bring files as `download` does, and check each against what was registered.

        Raises:
            InputError: a file is missing, changed or too much.
            TrackingError: the store cannot be reached.
        """
        digest = version.tags.get(SUMS_TAG)
        if digest is None:
            raise InputError(
                f"{version.reference} has no tag {SUMS_TAG}: it was not registered by "
                f"`pixclip register`, and nothing vouches for its files ({SUMS_NAME})"
            )
        folder = self.download(version, into, path)
        sums = self.download(version, into, SUMS_NAME) if path else folder / SUMS_NAME
        start = f"{path}/" if path else ""
        registered = read_sums(sums, digest).items()
        require_files(
            folder,
            {name.removeprefix(start): sha for name, sha in registered if name.startswith(start)},
        )
        return folder


def _version(model: str, found: Any) -> Version:
    """What a server says of a version, unless it could lead a path elsewhere."""
    number = str(found.version)
    if found.name != model or not number.isdecimal():
        raise TrackingError(
            f"asked for {model}, the registry told of {found.name!r}, version {number!r}; "
            "nothing is used"
        )
    return Version(model, number, dict(found.tags), found.run_id or "")


def _require_inside(folder: Path, found: Path) -> None:
    """Refuse what a store may have led out of the folder."""
    root = folder.resolve()
    for path in (found, *found.rglob("*")):
        if path.is_symlink() or not path.resolve().is_relative_to(root):
            raise TrackingError(f"the store led to {path}, outside of {folder}; nothing is used")


CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# A number, or an alias.
WHICH_PATTERN = r"^([1-9][0-9]{0,8}|[a-z][a-z0-9_-]{0,63})$"
ADDRESS = re.compile(r"^models:/(?P<model>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>[0-9]+))$")


def parse_address(address: str) -> Reference:
    """The reference of an address `models:/<name>@<alias>` or `models:/<name>/<number>`.

    Raises:
        SettingsError: it is none.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise SettingsError(
            f"'{address}' is no address of a model; write models:/pixclip@champion or "
            "models:/pixclip/3"
        )
    return Reference(found["model"], found["alias"] or found["number"])


MODELS_FOLDER = Path("models")


def fetch(address: str, into: Path | None, tracking_uri: str) -> Path:
    """The folder with the model; every file is checked, and it appears at once and whole.

    Args:
        address: `models:/<name>@<alias>` or `models:/<name>/<number>`.
        into: a folder that is not there yet; None: `models/<name>-<number>`.

    Raises:
        SettingsError: the address is none.
        InputError: no such model, a damaged file, or something else is in the folder's place.
        TrackingError: MLflow or the store cannot be reached.
    """
    registry = Registry(tracking_uri)
    version = registry.get(parse_address(address))
    target = into or MODELS_FOLDER / f"{version.model}-{version.number}"
    if target.exists():
        _require_same(target, version)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        folder = Path(draft) / "model"
        folder.mkdir()
        registry.download_verified(version, folder).rename(target)
    return target


def _require_same(target: Path, version: Version) -> None:
    try:
        require_sums(target, version.tags.get(SUMS_TAG, ""))
    except InputError:
        raise InputError(
            f"{target} is there already and is not {version.reference}; name another folder: "
            "--into FOLDER"
        ) from None
