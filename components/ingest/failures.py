"""Why a URL gave no image."""


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
