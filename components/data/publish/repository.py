"""A data repository: a folder under Git and DVC that keeps every published version.

The data is copied into it, never linked: what somebody edits in the run's folder stays there. The
repository's own folder and DVC's cache are hard links of each other, so a version is stored once
there and once in the remote. Publishing looks at all three places each time: what stands is left
alone, what is missing or damaged is made again. Of two publications into one repository the later
waits.
"""

import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.core.drafts import remove
from components.core.dvc_objects import has_size
from components.core.dvc_repository import (
    CACHE,
    CONFIG_NAME,
    DVC,
    Pointer,
    object_name,
    parse_config,
    parse_listing,
    parse_pointer,
    read_text,
    to_bytes,
)
from components.core.errors import InputError
from components.core.files import write_whole
from components.core.hashed import Digests, copy_all, copy_hashed, files_below
from components.data.publish.history import History, run_here
from components.data.publish.storage import (
    LOCAL_CONFIG,
    NEW_CONFIG,
    REMOTE,
    SECTION,
    PublishError,
    Remote,
    configured,
    full_address,
    is_configured,
    look,
    open_store,
    put_back,
)

log = logging.getLogger(__name__)

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Version:
    """A published version of a data set; `ref` is the branch or tag that holds its commit."""

    git_commit: str
    ref: str
    dvc_md5: str
    num_files: int
    size_bytes: int
    is_new: bool


class DataRepository:
    """The Git and DVC repository at a folder, which is made if it is missing."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.folder, self.remote = folder.absolute(), remote
        self._tmp = self.folder / ".dvc" / "tmp"

    def publish(
        self, data: Path, name: str, message: str, digests: Mapping[str, Digests] | None = None
    ) -> Version:
        """Keep a folder as the newest version of `name`, push it and commit its DVC file.

        Where the newest version has these very bytes and stands, nothing is changed.

        Args:
            digests: those of the data's files, if they are known.

        Raises:
            PublishError: Git or DVC failed; nothing is committed.
            InputError: the data cannot be read, or changes meanwhile.
        """
        self._require_apart(data, name)
        try:
            digests = copy_all(files_below(data), None) if digests is None else digests
            return self._publish(data, name, message, digests)
        except OSError as error:  # a full disk, a folder of somebody else's
            raise PublishError(f"{error.filename or self.folder}: {error.strerror}") from error

    def _require_apart(self, data: Path, name: str) -> None:
        """Refuse to write into the data, or over it.

        Raises:
            PublishError: says what overlaps with it.
        """
        given, kept = data.resolve(), (self.folder / name).resolve()
        places = {"publish.repository": self.folder.resolve(), "publish.name": kept}
        if "://" not in self.remote.url:
            places["publish.remote"] = Path(full_address(self.remote, self.folder)).resolve()
        for setting, place in places.items():
            if place.is_relative_to(given) or given.is_relative_to(kept):
                raise PublishError(
                    f"{place} overlaps with the data set that is to be published, {given}; choose "
                    f"another {setting}"
                )

    def _publish(
        self, data: Path, name: str, message: str, digests: Mapping[str, Digests]
    ) -> Version:
        with _only_one_at_a_time(self.folder) as since:
            history = History(self.folder, since)
            history.open(configured(NEW_CONFIG, self.remote))
            self._refuse_other_remotes()
            is_standing = self._stands(history, name, digests)
            is_new = not is_standing and self._add(history, data, name, message, digests)
            if is_standing:
                log.info("%s holds this version of %s already", self.folder, name)
            self._finish(history, name)
            return self._version(history, name, is_new)

    def _add(
        self, history: History, data: Path, name: str, message: str, digests: Mapping[str, Digests]
    ) -> bool:
        history.require_idle()
        self._require_free(history, name)
        self._configure()
        self._place(data, name, digests)
        _remove_damaged(self._cache(), digests)
        pointer_path = self.folder / f"{name}.dvc"
        if self._pointer(name) is None:
            pointer_path.unlink(missing_ok=True)  # cut off, or of another form
        self._dvc("add", name)
        pointer, cache = self._require_listed(name, digests)
        self._push(cache, name, pointer, digests)
        return history.commit(self._own_files(history, name), message)

    def _placing(self, name: str) -> Path:
        """The mark that `name` is ours, although it is not under DVC or in the user's index yet."""
        return self._tmp / f"pixclip-placing-{name}"

    def _finish(self, history: History, name: str) -> None:
        """What comes after the commit, also after that of a publication that was killed there."""
        if self._placing(name).exists():
            history.follow(list(self._own_files(history, name)))
            self._placing(name).unlink()

    def _stands(self, history: History, name: str, digests: Mapping[str, Digests]) -> bool:
        """Whether the last commit names these bytes, and cache and remote have them."""
        head, cache = history.head(), self._cache()
        text, config = history.read(f"{name}.dvc", head), history.read(CONFIG_NAME, head)
        if text is None or config is None or not is_configured(config, self.remote):
            return False
        try:
            pointer = parse_pointer(to_bytes(text), name)
            listing = (cache / object_name(pointer.md5)).read_bytes()
            files = parse_listing(listing, pointer)
        except (InputError, OSError):
            return False
        if files != {file: found.md5 for file, found in digests.items()}:
            return False
        if self._pointer(name) != pointer:
            return False
        sizes = _sizes(pointer, len(listing), digests)
        if any(not _is_kept(cache / object_name(md5), n) for md5, n in sizes.items()):
            return False
        return all(look(open_store(self.remote, self.folder), sizes).values())

    def _version(self, history: History, name: str, is_new: bool) -> Version:
        pointer = self._pointer(name)
        assert pointer is not None, f"{name}.dvc was checked"
        commit = history.newest(f"{name}.dvc")
        config = history.read(CONFIG_NAME, commit)
        if config is None or not is_configured(config, self.remote):  # the remote has moved since
            commit = history.newest(CONFIG_NAME)
        return Version(
            git_commit=commit,
            ref=history.branch_or_tag(commit, name),
            dvc_md5=pointer.md5,
            num_files=pointer.num_files,
            size_bytes=pointer.num_bytes,
            is_new=is_new,
        )

    def _own_files(self, history: History, name: str) -> dict[str, str]:
        """What a version's commit changes, by path; the user's edits of these files stay out."""
        head = history.head()
        files = {f"{name}.dvc": read_text(self.folder / f"{name}.dvc")}
        ignored = history.read(".gitignore", head) or ""
        if f"/{name}" not in ignored.splitlines():
            ignored += ("\n" if ignored and not ignored.endswith("\n") else "") + f"/{name}\n"
        files[".gitignore"] = ignored
        for path in (CONFIG_NAME, ".dvc/.gitignore", ".dvcignore"):
            here = self.folder / path
            text = history.read(path, head)
            if text is None and here.is_file():
                text = read_text(here)
            if text is not None:
                files[path] = configured(text, self.remote) if path == CONFIG_NAME else text
        return files

    def _configure(self) -> None:
        """Write the remote into DVC's config file; what else the user has set there stays."""
        path = self.folder / CONFIG_NAME
        text = read_text(path)
        if not is_configured(text, self.remote):
            old = parse_config(to_bytes(text)).get(SECTION, {}).get("url")
            if old not in (None, self.remote.url):
                log.warning("the remote of %s was %s, now %s", self.folder, old, self.remote.url)
            write_whole(path, configured(text, self.remote))

    def _refuse_other_remotes(self) -> None:
        """Refuse a local configuration that sends the remote's requests elsewhere.

        Raises:
            PublishError: names the file and the address.
        """
        path = self.folder / LOCAL_CONFIG
        if not path.is_file():
            return
        section = parse_config(path.read_bytes()).get(SECTION, {})
        own = {"url": self.remote.url, "endpointurl": self.remote.endpoint_url}
        for key, value in own.items():
            if section.get(key, value) != value:
                raise PublishError(
                    f"{path} sets the {key} of the remote {REMOTE!r} to {section[key]}; "
                    "take it out, or set publish.remote and publish.endpoint_url"
                )

    def _require_free(self, history: History, name: str) -> None:
        """Refuse to replace what is not ours: files under Git itself, or that nobody keeps.

        Raises:
            PublishError: the name is that of such a file or folder.
        """
        advice = "choose another publish.name or publish.repository"
        if history.is_tracked(name):
            raise PublishError(f"{self.folder} has files of its own under `{name}`; {advice}")
        target = self.folder / name
        if not os.path.lexists(target) or self._placing(name).exists():
            return
        pointer = self._pointer(name)
        if pointer is None and history.read(f"{name}.dvc", history.head()) is None:
            raise PublishError(f"{target} is there already and is not under DVC; {advice}")
        if pointer is not None:
            _require_unedited(target, self._cache(), pointer)

    def _place(self, data: Path, name: str, digests: Mapping[str, Digests]) -> None:
        """Make `name` a copy of the data."""
        fresh, old = self._tmp / f"pixclip-new-{name}", self._tmp / f"pixclip-old-{name}"
        target = self.folder / name
        remove(fresh)
        fresh.mkdir(parents=True)
        if copy_all(files_below(data), fresh) != digests:
            raise InputError(f"{data} changed while it was published; run again")
        self._placing(name).touch()
        remove(old)
        if os.path.lexists(target):
            target.rename(old)
        fresh.rename(target)
        remove(old)

    def _require_listed(self, name: str, digests: Mapping[str, Digests]) -> tuple[Pointer, Path]:
        """What DVC made of the data, and its cache.

        Raises:
            PublishError: it left files out or took others in, as a `.dvcignore` tells it to.
        """
        pointer = self._pointer(name)
        if pointer is None:
            raise PublishError(f"DVC left no {name}.dvc for a folder in {self.folder}")
        cache = self._cache()
        if not (cache / object_name(pointer.md5)).is_file():  # the user's configuration moved it
            cache = Path(self._dvc("cache", "dir"))
        files = parse_listing((cache / object_name(pointer.md5)).read_bytes(), pointer)
        given = {file: found.md5 for file, found in digests.items()}
        if files != given:
            other = sorted(set(files.items()) ^ set(given.items()))[0][0]
            raise PublishError(
                f"DVC's version of {name} differs from what was given, e.g. in {other}; does a "
                f".dvcignore in {self.folder} name it?"
            )
        return pointer, cache

    def _push(
        self, cache: Path, name: str, pointer: Pointer, digests: Mapping[str, Digests]
    ) -> None:
        self._dvc("push", "--remote", REMOTE, name)
        num_bytes = (cache / object_name(pointer.md5)).stat().st_size
        store = open_store(self.remote, self.folder)
        put_back(store, cache, _sizes(pointer, num_bytes, digests))

    def _pointer(self, name: str) -> Pointer | None:
        try:
            return parse_pointer((self.folder / f"{name}.dvc").read_bytes(), name)
        except (InputError, OSError):
            return None

    def _cache(self) -> Path:
        """DVC's cache, as far as the repository's own configuration says."""
        for name in (LOCAL_CONFIG, CONFIG_NAME):
            path = self.folder / name
            moved = parse_config(path.read_bytes()).get("cache", {}) if path.is_file() else {}
            if "dir" in moved:
                return Path(os.path.normpath(self.folder / ".dvc" / moved["dir"]))
        return self.folder / CACHE

    def _dvc(self, *arguments: str) -> str:
        remove(self._tmp / "pixclip-site")
        return run_here((*DVC, *arguments), self.folder).strip()


def _remove_damaged(cache: Path, digests: Mapping[str, Digests]) -> None:
    """Take objects out of DVC's cache that hold other bytes than their name says."""
    for md5 in {found.md5 for found in digests.values()}:
        path = cache / object_name(md5)
        if path.is_file() and copy_hashed(path, None).md5 != md5:
            log.warning("%s is damaged; it is made again", path)
            path.unlink()


def _require_unedited(target: Path, cache: Path, pointer: Pointer) -> None:
    """Refuse to replace a folder that holds what no version does.

    Raises:
        PublishError: names a file.
    """
    try:
        files = parse_listing((cache / object_name(pointer.md5)).read_bytes(), pointer)
    except (InputError, OSError):  # the cache is gone: nothing to compare with
        return
    for name, path in files_below(target).items():
        md5 = files.get(name, "")
        kept = cache / object_name(md5)
        is_link = kept.exists() and path.samefile(kept)
        if not is_link and copy_hashed(path, None).md5 != md5:
            raise PublishError(
                f"{path} was edited or added by hand and is in no version; move it away, or "
                "remove it"
            )


def _sizes(pointer: Pointer, num_bytes: int, digests: Mapping[str, Digests]) -> dict[str, int]:
    """The bytes of every object of a version, by digest; its listing has `num_bytes`."""
    return {**{found.md5: found.num_bytes for found in digests.values()}, pointer.md5: num_bytes}


def _is_kept(path: Path, num_bytes: int) -> bool:
    """Whether an object is whole and read-only: DVC takes that for a sign that nobody edited it."""
    return has_size(path, num_bytes) and not path.stat().st_mode & WRITABLE


@contextmanager
def _only_one_at_a_time(folder: Path) -> Iterator[float]:
    """Wait for another publication into the same repository; gives the time of our lock.

    The lock is on the folder itself, and ends with the process that holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise PublishError(f"cannot open {folder}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield time.time()
    finally:
        os.close(handle)
