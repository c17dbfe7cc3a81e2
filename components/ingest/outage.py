"""Notice that the network is gone: the URLs of that time are not to blame, and are asked again."""

import time
from collections.abc import Callable

from components.ingest.failures import WorldError
from components.ingest.hosts import host_of
from data_contracts.reasons import ImageReason, IngestReason

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
