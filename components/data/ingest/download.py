"""Download and check the URLs of a group, many at a time; every result goes to the journal.

`Outlook` notices that the network is gone: the URLs of that time are not to blame.
"""

import asyncio
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from components.core.errors import first_cause
from components.core.image_check import CheckedImage, Suspects, reuse_pixel_memory
from components.core.progress import progress
from components.data.ingest.addresses import (
    RESOLVES_PRIVATELY,
    AddressGuard,
    HostGate,
    Resolver,
    SystemResolver,
    host_of,
    pause_before_retry_s,
)
from components.data.ingest.body import Received
from components.data.ingest.failures import FetchError, WorldError, local_fault
from components.data.ingest.files import S3Source, read_file_url, require_open_buckets
from components.data.ingest.journal import Entry, Journal
from components.data.ingest.reuse import NEVER_KEPT, check_basis, failure_basis, fits, is_unanswered
from components.data.ingest.settings import IngestSettings
from components.data.ingest.web import WebSource
from data_contracts.reasons import ImageReason, IngestReason

FETCHED, CHECKED = "fetched", "checked"  # kinds of records
WEB_SCHEMES = frozenset({"http", "https"})
DNS_THREADS = 16
# How a host asks for fewer requests.
ASKS_FOR_PATIENCE = frozenset(map(IngestReason.HTTP_STATUS.of, (429, 503)))
# URLs under way, those waiting for their host or for a thread included: bounds the memory.
WINDOW_PER_DOWNLOAD = 8


class Sources:
    """One door for all schemes."""

    def __init__(self, web: WebSource, blocking: Executor, settings: IngestSettings) -> None:
        self._web, self._blocking, self._settings = web, blocking, settings
        self._s3 = S3Source(settings)

    async def fetch(self, url: str) -> Received:
        """What is behind a URL.

        Raises:
            FetchError: why there is nothing.
            WorldError: not the URL is to blame.
        """
        scheme = _scheme(url)
        if scheme in WEB_SCHEMES:
            return await self._web.fetch(url)
        if scheme == "file":
            root, limit = self._settings.file_root, self._settings.max_bytes
            return await self._in_thread(read_file_url, url, root, limit)
        if scheme == "s3":
            return await self._in_thread(self._s3.fetch, url)
        raise FetchError(IngestReason.BAD_SCHEME, f"scheme {scheme[:20]!r}")

    async def is_reachable(self, url: str) -> bool:
        """Whether the host of a web URL takes connections; nothing is asked for."""
        return await self._web.is_reachable(url)

    async def _in_thread(self, read: Callable[..., bytes], *arguments: object) -> Received:
        loop = asyncio.get_running_loop()
        return Received(await loop.run_in_executor(self._blocking, read, *arguments))


def _scheme(url: str) -> str:
    try:
        return urlsplit(url.strip()).scheme
    except ValueError:
        raise FetchError(IngestReason.BAD_URL, "not a URL") from None


def _scheme_or_none(url: str) -> str:
    try:
        return _scheme(url)
    except FetchError:
        return ""


class Downloader:
    """Takes URLs from nothing to a checked record in the journal."""

    def __init__(
        self, sources: Sources, decoders: Executor, journal: Journal, settings: IngestSettings
    ) -> None:
        self._sources, self._decoders = sources, decoders
        self._journal, self._settings = journal, settings
        self._outlook, self._looking = Outlook(), asyncio.Lock()
        self._suspects = Suspects(journal.folder / "decoding")
        self._gate = HostGate(settings.concurrency, settings.concurrency_per_host)
        self._window = asyncio.Semaphore(WINDOW_PER_DOWNLOAD * settings.concurrency)

    async def run(self, urls: Sequence[str], bar: "tqdm[Any]") -> None:
        """Bring every URL to a result.

        Raises:
            WorldError: the world does not let us; what was received is kept.
            InputError: the journal was damaged while it was in use.
        """
        outcomes: Counter[str] = Counter()
        for url in urls:
            entry = self._journal.find(FETCHED, url)
            if entry and _scheme_or_none(url) in WEB_SCHEMES and is_answer(entry.fields["reason"]):
                self._outlook.know(url)
        try:
            async with asyncio.TaskGroup() as tasks:
                for url in urls:
                    await self._window.acquire()
                    tasks.create_task(self._finish(url, outcomes, bar))
        except BaseExceptionGroup as group:
            cause = first_cause(group)
            if isinstance(cause, OSError):
                raise local_fault(cause, "cannot go on") from group
            raise cause from group

    async def _finish(self, url: str, outcomes: Counter[str], bar: "tqdm[Any]") -> None:
        entry = self._journal.find(FETCHED, url)
        if entry is None or not fits(entry, self._settings):
            entry = await self._fetch(url)
        if not entry.fields["reason"] and not self._is_checked(entry):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._decoders, self._check, entry)
        outcomes["ok" if not failure_of(self._journal, url)[0] else "failed"] += 1
        bar.update()
        bar.set_postfix_str(f"{outcomes['ok'] / outcomes.total():.0%} ok", refresh=False)
        self._window.release()

    def _is_checked(self, entry: Entry) -> bool:
        checked = self._journal.find(CHECKED, entry.fields["url"])
        return (
            checked is not None
            and checked.fields["reason"] not in NEVER_KEPT
            and checked.fields["basis"] == check_basis(entry, self._settings)
        )

    async def _fetch(self, url: str) -> Entry:
        """Ask until there is a final answer, and keep it in the same breath."""
        began_s, is_web = self._outlook.now_s(), _scheme_or_none(url) in WEB_SCHEMES
        for attempt in count():
            async with self._gate.turn(url):
                try:
                    received = await self._sources.fetch(url)
                    if is_web:
                        self._outlook.saw_answer(url)
                    return self._keep_received(url, received)
                except FetchError as error:
                    failure = error
                pause_s = self._pause_s(url, attempt, failure)
            if not failure.is_transient or attempt == self._settings.retries:
                break
            await asyncio.sleep(pause_s)
        fields = {
            "reason": failure.reason,
            "detail": failure.detail,
            "is_transient": failure.is_transient,
            "basis": failure_basis(failure.reason, self._settings),
        }
        entry = self._journal.append(FETCHED, url, fields)
        if is_web:
            self._outlook.saw_failure(url, failure.reason, began_s)
            await self._require_network()
        return entry

    async def _require_network(self) -> None:
        """Look whether the hosts are silent or we hear nothing.

        Raises:
            WorldError: those that answered once are out of reach too.
        """
        async with self._looking:
            if not self._outlook.is_suspicious:
                return
            for url in self._outlook.witnesses.values():
                if await self._sources.is_reachable(url):
                    self._outlook.saw_answer(url)
                    return
            raise self._outlook.error()

    def _keep_received(self, url: str, received: Received) -> Entry:
        """Keep what arrived; a file that is as it was is not kept twice."""
        facts = dict(received.facts)
        known = self._journal.find(FETCHED, url)
        if known is not None and (known.fields["reason"], known.size) == ("", len(received.data)):
            is_same = known.checksum == zlib.crc32(received.data)
            if is_same and known.fields["facts"] == facts:
                return known
        fields = {"reason": "", "detail": "", "is_transient": False, "facts": facts}
        return self._journal.append(FETCHED, url, fields, received.data)

    def _pause_s(self, url: str, attempt: int, failure: FetchError) -> float:
        """The pause before the next attempt; tells the gate if the host wants one for all."""
        limit_s = self._settings.max_backoff_s
        pause_s = pause_before_retry_s(url, attempt, self._settings.backoff_s, limit_s)
        if failure.reason in ASKS_FOR_PATIENCE:
            pause_s = max(pause_s, min(failure.retry_after_s or 0.0, limit_s))
            self._gate.back_off(url, pause_s)
        return pause_s

    def _check(self, entry: Entry) -> None:
        """Runs in a decoder's thread; reads the bytes again, so that waiting costs no memory."""
        data = self._journal.payload(entry)
        url, settings = entry.fields["url"], self._settings
        with self._suspects.check_for(url) as check:
            try:
                checked, jpeg = check(data, settings.max_pixels, settings.min_side_px)
            except MemoryError:
                checked, jpeg = (
                    CheckedImage(IngestReason.OUT_OF_MEMORY, "decoding needs more than there is"),
                    b"",
                )
            fields = asdict(checked) | {"basis": check_basis(entry, settings)}
            self._journal.append(CHECKED, url, fields, jpeg)


def failure_of(journal: Journal, url: str) -> tuple[str, str]:
    """Reason and detail of a URL's failure; the reason is "" for a usable image."""
    entry = _result_of(journal, url)
    return entry.fields["reason"], entry.fields["detail"]


def num_unanswered(journal: Journal, urls: Iterable[str]) -> int:
    """How many URLs were given up without an answer.

    A name that does not exist is an answer, unless no name of the group was known: then there may
    be no name server.
    """
    entries = [_result_of(journal, url) for url in urls]
    fetched = [journal.get(FETCHED, entry.fields["url"]).fields for entry in entries]
    are_names_known = any(
        is_answer(fields["reason"]) or fields["detail"].endswith(RESOLVES_PRIVATELY)
        for fields in fetched
        if _scheme_or_none(fields["url"]) in WEB_SCHEMES
    )
    return sum(
        is_unanswered(entry)
        or (entry.fields["reason"] == IngestReason.DNS_FAILURE and not are_names_known)
        for entry in entries
    )


def _result_of(journal: Journal, url: str) -> Entry:
    """The record that says what became of a URL."""
    fetched = journal.get(FETCHED, url)
    return fetched if fetched.fields["reason"] else journal.get(CHECKED, url)


def checked_image(entry: Entry) -> CheckedImage:
    """The result of a check, from its record."""
    return CheckedImage(**{name: entry.fields[name] for name in CheckedImage.__annotations__})


def download_all(
    urls: Sequence[str], journal: Journal, settings: IngestSettings, resolver: Resolver | None
) -> None:
    """Bring every URL to a result in the journal; those that have one are not asked again.

    Raises:
        WorldError: not the URLs are to blame; what was received is kept.
    """
    with progress("ingest", total=len(urls), unit="image") as bar:
        asyncio.run(_download(urls, journal, settings, resolver, bar))
    require_open_buckets((url, journal.get(FETCHED, url).fields["reason"]) for url in urls)


async def _download(
    urls: Sequence[str],
    journal: Journal,
    settings: IngestSettings,
    resolver: Resolver | None,
    bar: "tqdm[Any]",
) -> None:
    async with AsyncExitStack() as stack:

        def threads(number: int, name: str) -> ThreadPoolExecutor:
            return stack.enter_context(ThreadPoolExecutor(number, thread_name_prefix=name))

        lookups = resolver or SystemResolver(threads(DNS_THREADS, "dns"))
        guard = AddressGuard(lookups, settings.allowed_hosts)
        web = await stack.enter_async_context(WebSource(guard, settings))
        sources = Sources(web, threads(min(settings.concurrency, 64), "blocking"), settings)
        num_decoders = settings.decode_threads or num_cores()
        reuse_pixel_memory(num_decoders)
        decoders = threads(num_decoders, "decode")
        await Downloader(sources, decoders, journal, settings).run(urls, bar)


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def journal_path(images: Path) -> Path:
    """Where a draft keeps its journal."""
    return images / "_work" / "journal"


SILENT_HOSTS = 25  # in a row; of an old list, one host in five or so is dead
NUM_WITNESSES = 3
# A host said something, if only that it does not want to.
ANSWERS = frozenset(
    {
        "",
        ImageReason.NOT_AN_IMAGE,
        IngestReason.TOO_LARGE,
        IngestReason.NOAI,
        IngestReason.BAD_RESPONSE,
        IngestReason.BAD_ENCODING,
        IngestReason.TOO_MANY_REDIRECTS,
    }
)
SILENCE = frozenset(
    {
        IngestReason.TIMEOUT,
        IngestReason.CONNECTION_FAILED,
        IngestReason.CONNECTION_BROKEN,
        IngestReason.TLS_ERROR,
        IngestReason.DNS_FAILURE,
    }
)


def is_answer(reason: str) -> bool:
    """Whether a URL that ended so was answered by its host; "" is an image."""
    return reason in ANSWERS or IngestReason.HTTP_STATUS.holds(reason)


class Outlook:
    """Watches whether anybody answers.

    A host counts as silent that gave no answer while, since its first attempt, nobody else gave one
    either: slow dead hosts that remain at the end of a list are no outage. Too many of them are
    suspicious; whether it is an outage, hosts tell that did answer once, the witnesses.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.now_s = now_s
        self.witnesses: dict[str, str] = {}  # host -> URL
        self._answered_at_s = now_s()
        self._silent: dict[str, str] = {}  # host -> reason

    @property
    def is_suspicious(self) -> bool:
        """Whether so many hosts in a row were silent that something else may be the cause."""
        return len(self._silent) >= SILENT_HOSTS

    def saw_answer(self, url: str) -> None:
        """Somebody answered, whatever it was."""
        self.know(url)
        self._answered_at_s = self.now_s()
        self._silent.clear()

    def know(self, url: str) -> None:
        """A host that answered at some time."""
        if len(self.witnesses) < NUM_WITNESSES:
            self.witnesses[host_of(url)] = url

    def saw_failure(self, url: str, reason: str, began_s: float) -> None:
        """A URL was given up whose first attempt began then."""
        if is_answer(reason):
            self.saw_answer(url)
        elif reason in SILENCE and began_s >= self._answered_at_s:
            self._silent[host_of(url)] = reason

    def error(self) -> WorldError:
        """What to say when the witnesses are silent too."""
        reasons = ", ".join(sorted(set(self._silent.values())))
        return WorldError(
            f"ingest: {len(self._silent)} hosts in a row gave no answer ({reasons}), nor does any "
            "that had answered before: the network or its name servers are out of reach. What was "
            "received is kept; start it again when they are back"
        )
