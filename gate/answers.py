"""The gate's answers: 200, 401 or 403, for gateways, programs and people."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode
from uuid import UUID

from gate.call import Send
from lockbox.requests.access_check import AccessCheck

SAFE = "".join(chr(one) for one in range(0x20, 0x7F) if chr(one) != "%")
NO_STORE = (b"cache-control", b"no-store")
LENGTH_0 = (b"content-length", b"0")
MOST_WRITTEN = 1_000
Headers = tuple[tuple[bytes, bytes], ...]
LOCKED_DOWN = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem }}</style>
</head><body><h1>{title}</h1><p>{detail}</p>{link}<p><small>{reason}</small></p></body></html>
"""
LINK = '<p><a href="{form}">Request access</a></p>'


class GateReason(StrEnum):
    """The value of the header `Lockbox-Reason`."""

    NO_WINDOW = "no_window"
    NARROWED = "narrowed"
    USED_UP = "used_up"
    SUSPENDED = "suspended"
    UNKNOWN_ENGINEER = "unknown_engineer"
    UNMAPPED = "unmapped"
    MALFORMED = "malformed"
    BUSY = "busy"
    BEHIND = "behind"
    NO_CREDENTIAL = "no_credential"
    NO_TOKEN = "no_token"  # noqa: S105 - not a password
    BAD_TOKEN = "bad_token"  # noqa: S105 - likewise


SENTENCES: dict[GateReason, str] = {
    GateReason.NO_WINDOW: "No access window is open for this. Request access, and try again once it is approved.",
    GateReason.NARROWED: "Your request was approved, but not for this resource and action. Request access to it.",
    GateReason.USED_UP: "Your access was approved for a number of uses, and all are used. Request access again.",
    GateReason.SUSPENDED: "The tenant is suspended: no access is granted. Ask an operator of the vendor.",
    GateReason.UNKNOWN_ENGINEER: "Your account is not that of an engineer at Lockbox. Ask an operator to add it.",
    GateReason.UNMAPPED: "This address is not one that can be opened. Ask the owner of the service to map it.",
    GateReason.MALFORMED: "This call can't be judged as written. Check its address, or ask whoever runs the gateway.",
    GateReason.BUSY: "Lockbox is busy. Try again in a few seconds.",
    GateReason.BEHIND: "Lockbox cannot check now whether access is open, and so grants none. Try again in a minute.",
    GateReason.NO_CREDENTIAL: "The gateway has shown no valid token of Lockbox. Ask whoever runs the gateway.",
    GateReason.NO_TOKEN: "Sign in first: your call carries no token.",
    GateReason.BAD_TOKEN: "Sign in again: your token was not accepted.",
}
UNAUTHENTICATED = frozenset({GateReason.NO_CREDENTIAL, GateReason.NO_TOKEN, GateReason.BAD_TOKEN})
"""Reasons that are answered with 401. All other reasons are answered with 403."""
REPORTABLE = frozenset(
    {
        GateReason.NO_WINDOW,
        GateReason.NARROWED,
        GateReason.USED_UP,
        GateReason.SUSPENDED,
        GateReason.UNMAPPED,
        GateReason.MALFORMED,
        GateReason.UNKNOWN_ENGINEER,
        GateReason.NO_TOKEN,
        GateReason.BAD_TOKEN,
    }
)
"""Reasons about the call itself: a gate that only reports admits such a call. For other reasons it still refuses.

`malformed` is about the call if the call's path or parameters are misspelled.
"""
REQUESTABLE = frozenset({GateReason.NO_WINDOW, GateReason.NARROWED, GateReason.USED_UP})
"""Reasons for which a request for access is the remedy."""
SIGN_IN = frozenset({GateReason.NO_TOKEN, GateReason.BAD_TOKEN})


class GrantedAccess(NamedTuple):
    """The window that admits a call. `uses_left` is None without a limit of uses."""

    request_id: UUID
    until: datetime
    uses_left: int | None = None
    is_same_use: bool = False
    break_glass: bool = False


@dataclass(frozen=True, slots=True)
class Denial:
    """`detail` replaces the default sentence of the reason; `retry_after` is in seconds."""

    reason: GateReason
    detail: str = ""
    form: str | None = None
    retry_after: int | None = None

    @property
    def status(self) -> int:
        return 401 if self.reason in UNAUTHENTICATED else 403

    @property
    def title(self) -> str:
        return "Sign in first" if self.reason in SIGN_IN else "No access"


class RefusedCall(Exception):  # noqa: N818 - the name says what went wrong
    """If the gate `only_reports`, the call is admitted anyway."""

    def __init__(self, denial: Denial, *, only_reports: bool = False) -> None:
        super().__init__(denial.reason)
        self.denial = denial
        self.only_reports = only_reports


def form_for(public_url: str, question: AccessCheck, reason: GateReason) -> str | None:
    if reason not in REQUESTABLE:
        return None
    asked = {"tenant": question.tenant, "service": question.service}
    return f"{public_url}/ask?" + urlencode(asked | {"resource": question.resource, "action": question.action})


def written(until: datetime) -> str:
    return until.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def allow(send: Send, question: AccessCheck, window: GrantedAccess, at: datetime | None = None) -> None:
    told: Headers = ((b"lockbox-at", written(at).encode()),) if at else ()
    if window.break_glass:
        told += ((b"lockbox-break-glass", b"true"),)
    await _empty(send, _of_yes(question, window.request_id, window.until) + told)


@lru_cache(MOST_WRITTEN)
def _of_yes(question: AccessCheck, request_id: UUID, until: datetime) -> Headers:
    resource = question.resource
    if not resource.isascii() or "%" in resource:
        resource = quote(resource, safe=SAFE)
    return (
        (b"lockbox-decision", b"allow"),
        (b"lockbox-request", str(request_id).encode()),
        (b"lockbox-engineer", str(question.engineer).encode()),
        (b"lockbox-tenant", question.tenant.encode()),
        (b"lockbox-service", question.service.encode()),
        (b"lockbox-resource", resource.encode()),
        (b"lockbox-action", question.action.encode()),
        (b"lockbox-until", written(until).encode()),
    )


async def let_pass(send: Send) -> None:
    await _empty(send, ((b"lockbox-decision", b"not-applicable"),))


async def report(send: Send, denial: Denial) -> None:
    """Answer "would-deny" with status 200, because the gate only reports."""
    await _empty(send, ((b"lockbox-decision", b"would-deny"), (b"lockbox-reason", denial.reason.value.encode())))


async def state(send: Send, said: dict[str, Any]) -> None:
    body = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), NO_STORE]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _empty(send: Send, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, NO_STORE, LENGTH_0]})
    await send({"type": "http.response.body"})


async def deny(send: Send, denial: Denial, *, as_page: bool) -> None:
    kind, body = _page(denial) if as_page else _problem(denial)
    headers = [
        (b"lockbox-decision", b"deny"),
        (b"lockbox-reason", denial.reason.value.encode()),
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"vary", b"accept"),
        LOCKED_DOWN,
        NO_STORE,
    ]
    if denial.form:
        headers.append((b"lockbox-form", denial.form.encode()))
    if denial.retry_after is not None:
        headers.append((b"retry-after", str(denial.retry_after).encode()))
    if denial.reason in UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": denial.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _problem(denial: Denial) -> tuple[bytes, bytes]:
    said: dict[str, Any] = {
        "type": f"urn:lockbox:problem:gate-{denial.reason.value.replace('_', '-')}",
        "title": denial.title,
        "status": denial.status,
        "code": denial.reason.value,
        "detail": denial.detail or SENTENCES[denial.reason],
    }
    if denial.form:
        said["request_form"] = denial.form
    return b"application/problem+json", json.dumps(said).encode()


def _page(denial: Denial) -> tuple[bytes, bytes]:
    link = LINK.format(form=escape(denial.form)) if denial.form else ""
    detail = escape(denial.detail or SENTENCES[denial.reason])
    page = PAGE.format(title=denial.title, detail=detail, link=link, reason=denial.reason.value)
    return b"text/html; charset=utf-8", page.encode()
