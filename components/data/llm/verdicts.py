"""What a reply means: an answer, or whose fault it is that there is none.

Servers say the same in many ways: by the status, by a code inside JSON whatever the status is, by
a page in HTML, or by a notice in the place of an answer. A fault of the world (no credit, a wrong
key, an outage) must never be booked as the fault of the region that was asked for.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from pydantic import ValidationError

from components.data.llm.cache import RawAnswer
from components.data.llm.prompt import one_line
from components.data.llm.replies import HttpReply, answer_in, loaded, retry_after_s

MAX_READ_CHARS = 20_000  # of an error; the key is looked for in all of them
MAX_SAID_CHARS = 300
MAX_NOTICE_CHARS = 2000

OVERLOAD_STATUSES = frozenset({429, 503, 529})
PASSING_STATUSES = frozenset({408, 409, 424, 425, 460, 499})
# Nobody is served until a person has mended something: key, account, model, address, limits.
UNSERVED_STATUSES = frozenset({401, 402, 403, 404, 405, 407, 410, 413, 451, 501, 505, 511})
UNSERVED_CODES = frozenset(
    """
    accessdenied accessterminated accountdeactivated accountdisabled accountoverdue
    accountoverdueerror accountsuspended arrearage authenticationerror billinghardlimitreached
    billingnotactive billingerror creditsexhausted deploymentnotfound exceededcurrentquotaerror
    inactiveaccount incorrectapikey insufficientbalance insufficientcredits insufficientfunds
    insufficientquota invalidapikey invalidauthentication invalidauthenticationerror invalidkey
    modelnotfound modelnotfounderror modelnotsupported nocredits notfounderror
    organizationdeactivated organizationrestricted paymentrequired permissiondenied
    permissiondeniederror permissionerror quotaexhausted resourcenotfound unauthorized
    unsupportedcountryregionterritory unsupportedmodel
    """.split()  # noqa: SIM905
)
# What the codes of errors mean whose status is 200.
_STATUS_OF_CODE = dict.fromkeys(
    """
    engineoverloaded engineoverloadederror overloaded overloadederror ratelimiterror
    ratelimitexceeded ratelimitreachederror requestlimitexceeded resourceexhausted
    serviceunavailable throttlingexception toomanyrequests
    """.split(),  # noqa: SIM905
    429,
) | dict.fromkeys(
    """
    badrequest badrequesterror contentfilter contentpolicyviolation contextlengthexceeded
    datainspectionfailed invalidargument invalidparameter invalidrequest invalidrequesterror
    responsibleaipolicyviolation unsupportedparameter validationerror
    """.split(),  # noqa: SIM905
    400,
)
_UNSERVED = re.compile(
    r"insufficient[\s_-]{1,3}(?:account )?(?:quota|balance|credits?|funds?)"
    r"|(?:credit )?balance is (?:too low|insufficient|exhausted|negative)"
    r"|(?:out of|no(?: more| remaining)?|not enough|(?:run|used) (?:out of|up)(?: your)?)"
    r" credits?\b"
    r"|billing[\s_-](?:hard[\s_-])?(?:limit|is not active|not active)|payment required"
    r"|(?:spend(?:ing)?|budget) (?:limit|cap) (?:\w+ ){0,4}(?:reached|exceeded|exhausted)"
    r"|(?:credit|budget)(?: limit)? (?:has been |was |is )?(?:exceeded|reached|exhausted)"
    r"|credits (?:are|have been|have) (?:depleted|exhausted|used up|expired)"
    r"|used all (?:available|your) credits"
    r"|reached (?:its|your|the) (?:\w+ ){0,3}(?:spend(?:ing)?|budget|inference|API usage) limits?"
    r"|欠费|余额不足"
    r"|account (?:\w+ ){0,3}(?:deactivated|suspended|disabled|terminated|overdue|arrears)"
    r"|(?:incorrect|invalid|expired|missing|no) api[\s_-]key"
    r"|api[\s_-]key (?:is |has |was )?(?:not valid|invalid|incorrect|expired|revoked|missing)"
    r"|\bmodel\b.{0,120}?(?:does not exist|not found|is not available|is not supported"
    r"|has been (?:deprecated|retired|removed))",
    re.IGNORECASE | re.DOTALL,
)
_MODERATED = re.compile(
    r"content[\s_-]?(?:filter|policy|management)|moderation|\bflagged\b|safety system"
    r"|data_inspection_failed|inappropriate content",
    re.IGNORECASE,
)
_PAGE = re.compile(r"\s*(?:```\w*\s*)?(?:<!doctype\b|<html\b|<head\b|<body\b|<\?xml\b)", re.I)
_NOTICE = re.compile(
    r"under maintenance|maintenance (?:mode|window|break)|scheduled maintenance"
    r"|temporarily (?:unavailable|down|disabled|offline)|service (?:is )?unavailable"
    r"|(?:be|come) back (?:soon|shortly|online|in (?:a|an|\d+)\b)|try again (?:later|in \d)"
    r"|bad gateway|gateway time-?out|internal server error|upstream (?:error|connect|request)"
    r"|too many requests|rate limit|(?:server|system|model|engine) (?:is )?(?:currently )?"
    r"overloaded"
    r"|quota exceeded|exceeded (?:your|the) (?:current )?(?:quota|limit)",
    re.IGNORECASE,
)
# A failure of the server that it books as the request's, with a status from 400.
_PASSING = re.compile(
    rf"{_NOTICE.pattern}|out of memory|\bcuda error|model has crashed|connection (?:error|refused)"
    r"|timed out",
    re.IGNORECASE,
)
_ABORTED = frozenset(
    {"error", "abort", "aborted", "cancelled", "canceled", "server_error", "unknown_error"}
    | {"insufficient_system_resource", "network_error", "timeout"}
)
_MARKUP = re.compile(
    r"<(?:style|script)\b.{0,2000}?</(?:style|script)>|<[^<>]{0,500}>", re.I | re.S
)


# Of an error in JSON; no answer of ours has one of them.
TELLING_NAMES = frozenset({"error", "errors", "detail", "code", "status"})
ERROR_NAMES = TELLING_NAMES | {"message", "msg", "object", "type", "param", "request_id", "title"}


class Kind(Enum):
    """What a try of a request came to."""

    ANSWERED = auto()
    OVERLOADED = auto()  # it asks for patience
    UNREACHABLE = auto()  # the request never got there
    FAULTY = auto()  # the server failed; perhaps because of this request
    REFUSED = auto()  # the server does not want this request; perhaps because of its form
    UNSERVED = auto()  # nobody is served until a person has mended something


@dataclass(frozen=True)
class Verdict:
    """What a try came to, and why."""

    kind: Kind
    detail: str = ""
    answer: RawAnswer | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True)
class _Complaint:
    """What a server says instead of an answer."""

    status: int
    codes: frozenset[str]
    said: str


def judge_reply(reply: HttpReply, seconds: float) -> Verdict:
    """Whose fault it is if a reply is no answer."""
    value = loaded(reply.body, reply.charset)
    if 200 <= reply.status < 300:
        verdict = _answered(value, seconds)
        if verdict:
            return verdict
    complaint = _complaint(reply, value)
    detail = (
        f"status {reply.status}: {complaint.said}"
        if complaint.said
        else (f"status {reply.status} without a word")
    )
    return Verdict(_kind(complaint), detail, None, retry_after_s(reply.retry_after))


def is_notice(text: str) -> bool:
    """Whether a text in the place of an answer is a page, an error or a notice of an outage."""
    if _PAGE.match(text):
        return True
    if text.lstrip()[:1] == "{" and len(text) <= MAX_READ_CHARS:
        value = loaded(text.strip().encode())
        return (
            isinstance(value, dict)
            and value.keys() <= ERROR_NAMES
            and bool(value.keys() & TELLING_NAMES)
        )
    is_short = "{" not in text and len(text) <= MAX_NOTICE_CHARS
    return is_short and bool(_NOTICE.search(text) or _UNSERVED.search(text))


def _answered(value: Any, seconds: float) -> Verdict | None:
    try:
        answer = answer_in(value, seconds)
    except ValidationError:
        return None
    choice = value["choices"][0]
    if answer.finish_reason in _ABORTED or choice.get("error"):
        return None
    if is_notice(answer.content):
        said = _shown(answer.content)
        return Verdict(Kind.FAULTY, f"a notice in the place of an answer: {said}")
    return Verdict(Kind.ANSWERED, answer=answer)


def _kind(complaint: _Complaint) -> Kind:
    status = complaint.status
    if 400 <= status < 500 and status != 429 and _MODERATED.search(complaint.said):
        return Kind.REFUSED
    if status in UNSERVED_STATUSES or 300 <= status < 400 or complaint.codes & UNSERVED_CODES:
        return Kind.UNSERVED
    if _UNSERVED.search(complaint.said):
        return Kind.UNSERVED
    if status in OVERLOAD_STATUSES:
        return Kind.OVERLOADED
    if any(_STATUS_OF_CODE.get(code) == 429 for code in complaint.codes):
        return Kind.OVERLOADED  # whatever its status is
    is_passing = status in PASSING_STATUSES or _PASSING.search(complaint.said)
    return Kind.REFUSED if 400 <= status < 500 and not is_passing else Kind.FAULTY


def _complaint(reply: HttpReply, value: Any) -> _Complaint:
    errors = list(_errors(value))
    told = (error.get(name) for error in errors for name in ("code", "type", "__type", "status"))
    codes = [str(code)[:80] for code in told if isinstance(code, str | int)]
    plain = [re.sub(r"[^a-z0-9]", "", code.lower()) for code in codes]
    status = reply.status
    if 200 <= status < 300:  # the status inside the body is the true one
        inner = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code, re.ASCII)]
        inner += [_STATUS_OF_CODE[code] for code in plain if code in _STATUS_OF_CODE]
        status = inner[0] if inner else 500
    said = next(filter(None, map(_message, errors)), "") or _page_text(reply)
    return _Complaint(status, frozenset(plain), said)


def _errors(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a reply that may say what is wrong, the innermost first."""
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, Mapping):
        return
    inner = value.get("error") or value.get("errors") or value.get("detail")
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        inner = choices[0].get("error") or inner
    if isinstance(inner, list):
        inner = inner[0] if inner else None
    if isinstance(inner, str):
        yield {"message": inner}
    elif isinstance(inner, Mapping):
        yield inner
    yield value


def _message(error: Mapping[str, Any]) -> str:
    texts = (
        error.get(name) for name in ("message", "msg", "error_msg", "error", "detail", "title")
    )
    return next((_shown(text) for text in texts if isinstance(text, str) and text.strip()), "")


def _page_text(reply: HttpReply) -> str:
    """What a person would read of a page."""
    text = reply.body[:MAX_READ_CHARS].decode("utf-8", "replace")
    if reply.encoding and not text.isprintable():
        text = f"a body in the encoding '{reply.encoding[:40]}', which was not asked for"
    return _shown(_MARKUP.sub(" ", text))


def _shown(text: str) -> str:
    return one_line(text[:MAX_READ_CHARS])
