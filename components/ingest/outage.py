"""Notice that the network is gone: the URLs of that time are not to blame, and are asked again."""

import time
from collections.abc import Callable

from components.ingest.failures import FetchError, WorldError
from components.ingest.hosts import host_of

SILENT_HOSTS = 25  # of an old list, one host in ten or so is dead
ANSWERS = frozenset(
    {"not_an_image", "too_large", "noai", "bad_response", "bad_encoding", "too_many_redirects"}
)
NO_ANSWER = frozenset({"timeout", "connection_failed", "connection_broken", "tls_error"})


class Outlook:
    """Watches whether anybody answers.

    A host counts as silent that gave no answer while, since its first attempt, nobody else gave one
    either: slow dead hosts that remain at the end of a list are no outage.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.now_s = now_s
        self._answered_at_s = now_s()
        self._silent: dict[str, str] = {}

    def saw_answer(self) -> None:
        """Somebody answered, whatever it was."""
        self._answered_at_s = self.now_s()
        self._silent.clear()

    def saw_failure(self, url: str, failure: FetchError, began_s: float) -> None:
        """A URL was given up whose first attempt began then.

        Raises:
            WorldError: too many hosts in a row gave no answer.
        """
        if failure.reason in ANSWERS or failure.reason.startswith("http_"):
            self.saw_answer()
        is_silent = failure.reason in NO_ANSWER or (
            failure.reason == "dns_failure" and failure.is_transient
        )
        if not is_silent or began_s < self._answered_at_s:
            return
        self._silent[host_of(url)] = failure.reason
        if len(self._silent) >= SILENT_HOSTS:
            reasons = ", ".join(sorted(set(self._silent.values())))
            raise WorldError(
                f"ingest: {len(self._silent)} hosts in a row gave no answer ({reasons}): the "
                "network or its name servers are out of reach. What was received is kept; start "
                "it again when they are back"
            )
