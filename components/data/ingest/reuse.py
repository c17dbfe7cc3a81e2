"""Which records of a journal fit the settings of now: downloads are work that moves along.

A record says what it depended on. Bytes that arrived hold whatever the settings are, as long as
these would still let them in; a failure holds as long as the settings that it came from are the
same; a failure that was nobody's answer (time-outs, no connection, no name) never holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.data.ingest.addresses import plain_host
from components.data.ingest.journal import Entry
from components.data.ingest.settings import IngestSettings
from data_contracts.reasons import IngestReason

# Raise it when a failure or a check would end otherwise than before, together with the step's
# version: records of other rules are made again, received bytes stay.
RULES = 1
# Reasons that say nothing about the URL for sure: asked again by every run until one publishes.
NEVER_KEPT = frozenset(
    {
        IngestReason.DNS_FAILURE,
        IngestReason.TLS_ERROR,
        IngestReason.S3_DENIED,
        IngestReason.OUT_OF_MEMORY,
    }
)
ANSWER_DEPENDS_ON = ("user_agent", "verify_tls", "allowed_hosts", "respect_noai")
# What a reason came from; those that are not here came from an answer.
DEPENDS_ON: Mapping[str, Sequence[str]] = {
    IngestReason.TOO_LARGE: ("max_bytes", *ANSWER_DEPENDS_ON),
    IngestReason.TOO_MANY_REDIRECTS: ("max_redirects", *ANSWER_DEPENDS_ON),
    IngestReason.PRIVATE_ADDRESS: ("allowed_hosts",),
    IngestReason.S3_NOT_ALLOWED: ("s3_buckets",),
    IngestReason.BAD_URL: (),
    IngestReason.BAD_SCHEME: (),
}
CHECK_DEPENDS_ON = ("max_pixels", "min_side_px")


def failure_basis(reason: str, settings: IngestSettings) -> dict[str, Any]:
    """What a failure depended on, as it is kept with its record."""
    return _basis(DEPENDS_ON.get(reason, ANSWER_DEPENDS_ON), settings)


def check_basis(fetched: Entry, settings: IngestSettings) -> dict[str, Any]:
    """What a check depended on: its bytes and its limits."""
    basis = _basis(CHECK_DEPENDS_ON, settings)
    return {**basis, "num_bytes": fetched.size, "checksum": fetched.checksum}


def _basis(names: Sequence[str], settings: IngestSettings) -> dict[str, Any]:
    values = settings.model_dump(mode="json", include=set(names))
    return {"rules": RULES, **values}


def fits(entry: Entry, settings: IngestSettings) -> bool:
    """Whether what is known of a URL still holds; else it is asked again."""
    fields = entry.fields
    # Reading a file of this machine is free, and `file_root` may be another one by now.
    if scheme_of(fields["url"]) == "file":
        return False
    reason = fields["reason"]
    if not reason:
        return _lets_in(entry, settings)
    if fields["is_transient"] or reason in NEVER_KEPT:
        return False
    return bool(fields["basis"] == failure_basis(reason, settings))


def _lets_in(entry: Entry, settings: IngestSettings) -> bool:
    """Whether a run with these settings would have taken the bytes as well."""
    url, facts = entry.fields["url"], entry.fields["facts"]
    if scheme_of(url) == "s3" and bucket_of(url) not in settings.s3_buckets:
        return False
    return (
        entry.size <= settings.max_bytes
        and facts.get("num_redirects", 0) <= settings.max_redirects
        and not (settings.respect_noai and facts.get("forbids_ai"))
        and not (settings.verify_tls and facts.get("is_unverified"))
        and set(facts.get("allowed_hosts", ())) <= set(map(plain_host, settings.allowed_hosts))
    )


def scheme_of(url: str) -> str:
    """The scheme of a URL, in lower case; "" if it has none."""
    scheme, colon, _ = url.strip().partition(":")
    return scheme.lower() if colon else ""


def bucket_of(url: str) -> str:
    """The bucket of an S3 URL."""
    return url.partition("://")[2].partition("/")[0]


def is_unanswered(entry: Entry) -> bool:
    """Whether a URL was given up without an answer of its own: the world's fault, most likely."""
    fields = entry.fields
    unsure = NEVER_KEPT - {IngestReason.DNS_FAILURE}  # a name that does not exist is an answer
    return bool(fields.get("is_transient") or fields["reason"] in unsure)
