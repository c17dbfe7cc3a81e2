"""Why a URL gave no image, and why a step stops: a fault of the URL, or one of the world."""

import errno

from components.core.errors import PipelineError

# What is wrong here, whatever the URL: no file handles, memory, ports or space are left.
LOCAL_ERRNOS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EADDRNOTAVAIL,
    }
)


class FetchError(Exception):
    """A URL that gave no image: a short code, a stable detail, and whether to ask again.

    `detail` goes into the manifest, so it holds nothing that changes from run to run.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        is_transient: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
        self.is_transient, self.retry_after_s = is_transient, retry_after_s


class WorldError(PipelineError):
    """The network, the disk or the credentials fail, not a URL: nothing is booked, ask again."""


def local_fault(error: OSError, doing: str) -> WorldError:
    """The error that stops the step because this machine cannot go on."""
    file = error.filename
    place = f" ({file})" if file and str(file) not in doing else ""
    return WorldError(
        f"ingest: {doing}: {error.strerror or type(error).__name__}{place}. What was received "
        "is kept; start it again when that is mended"
    )
