"""Download and check the URLs of a group, many at a time; every result goes to the journal."""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from components.ingest.addresses import AddressGuard, Resolver, SystemResolver
from components.ingest.check import CheckedImage, check_image, reuse_pixel_memory
from components.ingest.failures import FetchError
from components.ingest.files import read_file_url
from components.ingest.hosts import HostGate, pause_before_retry_s
from components.ingest.journal import Entry, Journal
from components.ingest.s3 import S3Source
from components.ingest.settings import IngestSettings
from components.ingest.web import WebSource
from components.kernel.progress import progress

FETCHED, CHECKED = "fetched", "checked"  # kinds of records
DNS_THREADS = 16
# URLs under way, those waiting for their host or for a thread included: bounds the memory.
WINDOW_PER_DOWNLOAD = 8


class Sources:
    """One door for all schemes."""

    def __init__(self, web: WebSource, blocking: Executor, settings: IngestSettings) -> None:
        self._web, self._blocking, self._settings = web, blocking, settings

    @cached_property
    def _s3(self) -> S3Source:
        return S3Source(self._settings)

    async def fetch(self, url: str) -> bytes:
        """The bytes behind a URL.

        Raises:
            FetchError: why there are none.
        """
        scheme = _scheme(url)
        if scheme in ("http", "https"):
            return await self._web.fetch(url)
        loop = asyncio.get_running_loop()
        if scheme == "file":
            root, limit = self._settings.file_root, self._settings.max_bytes
            return await loop.run_in_executor(self._blocking, read_file_url, url, root, limit)
        if scheme == "s3":
            return await loop.run_in_executor(self._blocking, self._s3.fetch, url)
        raise FetchError("bad_scheme", f"scheme {scheme[:20]!r}")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url.strip()).scheme
    except ValueError:
        raise FetchError("bad_url", "not a URL") from None


class Downloader:
    """Takes URLs from nothing to a checked record in the journal."""

    def __init__(
        self, sources: Sources, decoders: Executor, journal: Journal, settings: IngestSettings
    ) -> None:
        self._sources, self._decoders = sources, decoders
        self._journal, self._settings = journal, settings
        self._gate = HostGate(settings.concurrency, settings.concurrency_per_host)
        self._window = asyncio.Semaphore(WINDOW_PER_DOWNLOAD * settings.concurrency)

    async def run(self, urls: Sequence[str], bar: "tqdm[Any]") -> None:
        """Bring every URL to a result."""
        outcomes: Counter[str] = Counter()
        async with asyncio.TaskGroup() as tasks:
            for url in urls:
                await self._window.acquire()
                tasks.create_task(self._finish(url, outcomes, bar))

    async def _finish(self, url: str, outcomes: Counter[str], bar: "tqdm[Any]") -> None:
        entry = self._journal.find(FETCHED, url)
        if entry is None or entry.fields["is_transient"] or _is_here(entry):
            entry = await self._fetch(url)
        if not entry.fields["reason"] and self._journal.find(CHECKED, url) is None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._decoders, self._check, entry)
        outcomes["ok" if not failure_of(self._journal, url)[0] else "failed"] += 1
        bar.update()
        bar.set_postfix_str(f"{outcomes['ok'] / outcomes.total():.0%} ok", refresh=False)
        self._window.release()

    async def _fetch(self, url: str) -> Entry:
        """Ask until there is a final answer, and keep it in the same breath."""
        for attempt in count():
            async with self._gate.turn(url):
                try:
                    return self._keep(url, "", "", data=await self._sources.fetch(url))
                except FetchError as error:
                    failure = error
                pause_s = self._pause_s(url, attempt, failure)
            if not failure.is_transient or attempt == self._settings.retries:
                break
            await asyncio.sleep(pause_s)
        return self._keep(url, failure.reason, failure.detail, is_transient=failure.is_transient)

    def _keep(
        self, url: str, reason: str, detail: str, *, is_transient: bool = False, data: bytes = b""
    ) -> Entry:
        fields = {"reason": reason, "detail": detail, "is_transient": is_transient}
        return self._journal.append(FETCHED, url, fields, data)

    def _pause_s(self, url: str, attempt: int, failure: FetchError) -> float:
        """The pause before the next attempt; tells the gate if the host wants one for all."""
        limit_s = self._settings.max_backoff_s
        pause_s = pause_before_retry_s(url, attempt, self._settings.backoff_s, limit_s)
        if failure.reason in ("http_429", "http_503"):
            pause_s = max(pause_s, min(failure.retry_after_s or 0.0, limit_s))
            self._gate.back_off(url, pause_s)
        return pause_s

    def _check(self, entry: Entry) -> None:
        """Runs in a decoder's thread; reads the bytes again, so that waiting costs no memory."""
        data = self._journal.payload(entry)
        checked, jpeg = check_image(data, self._settings.max_pixels, self._settings.min_side_px)
        self._journal.append(CHECKED, entry.fields["url"], asdict(checked), jpeg)


def _is_here(entry: Entry) -> bool:
    """Whether a file of this machine was not read: asking again is free, and `file_root`, which
    does not belong to the draft's fingerprint, may be another one by now."""
    return bool(entry.fields["reason"]) and entry.fields["url"].startswith("file:")


def failure_of(journal: Journal, url: str) -> tuple[str, str]:
    """Reason and detail of a URL's failure; the reason is "" for a usable image."""
    fetched = journal.get(FETCHED, url)
    entry = fetched if fetched.fields["reason"] else journal.get(CHECKED, url)
    return entry.fields["reason"], entry.fields["detail"]


def checked_image(entry: Entry) -> CheckedImage:
    """The result of a check, from its record."""
    return CheckedImage(**{name: entry.fields[name] for name in CheckedImage.__annotations__})


def download_all(
    urls: Sequence[str], journal: Journal, settings: IngestSettings, resolver: Resolver | None
) -> None:
    """Bring every URL to a result in the journal; those that have one are not asked again."""
    with progress("ingest", total=len(urls), unit="image") as bar:
        asyncio.run(_download(urls, journal, settings, resolver, bar))


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
