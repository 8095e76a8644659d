"""The answers of the gate: 200, 401 and 403 and nothing else, for gateways, programs and people."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from typing import Any, Protocol
from urllib.parse import quote, urlencode
from uuid import UUID

from gate.asgi import Send
from gate.reasons import REQUESTABLE, SENTENCES, UNAUTHENTICATED, GateReason
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
SIGN_IN = frozenset({GateReason.NO_TOKEN, GateReason.BAD_TOKEN})


@dataclass(frozen=True, slots=True)
class Denial:
    """A no: why, in a sentence of its own where there is one, and where to request access where that helps.

    `retry_after` is after how many seconds to ask again, where that is known.
    """

    reason: GateReason
    detail: str = ""
    form: str | None = None
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """401 where the engineer or the gateway has to show another token, else 403."""
        return 401 if self.reason in UNAUTHENTICATED else 403

    @property
    def title(self) -> str:
        """What the engineer reads first; a gateway's token is nothing that the engineer can mend."""
        return "Sign in first" if self.reason in SIGN_IN else "No access"


class RefusedCall(Exception):  # noqa: N818 - it names what was found
    """A call that is not let in; where the gate `only_reports`, it is let in all the same."""

    def __init__(self, denial: Denial, *, only_reports: bool = False) -> None:
        super().__init__(denial.reason)
        self.denial = denial
        self.only_reports = only_reports


def form_for(public_url: str, question: AccessCheck, reason: GateReason) -> str | None:
    """Return the address of the request form, filled in for this; None where a request is not the way out."""
    if reason not in REQUESTABLE:
        return None
    asked = {"tenant": question.tenant, "service": question.service}
    return f"{public_url}/ask?" + urlencode(asked | {"resource": question.resource, "action": question.action})


def written(until: datetime) -> str:
    """Return a time as answers write it: in UTC, to the microsecond."""
    return until.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class AnsweredWindow(Protocol):
    """What is told of the window that lets a call in."""

    @property
    def request_id(self) -> UUID:
        """The request that it was opened by."""

    @property
    def until(self) -> datetime:
        """When it ends."""

    @property
    def break_glass(self) -> bool:
        """Whether it was opened by break-glass."""


async def allow(send: Send, question: AccessCheck, window: AnsweredWindow, at: datetime | None = None) -> None:
    """Answer yes, and what for; `at` is the present by the database's clock, where that is told."""
    told: Headers = ((b"lockbox-at", written(at).encode()),) if at else ()
    if window.break_glass:
        told += ((b"lockbox-break-glass", b"true"),)
    await _empty(send, _of_yes(question, window.request_id, window.until) + told)


@lru_cache(MOST_WRITTEN)
def _of_yes(question: AccessCheck, request_id: UUID, until: datetime) -> Headers:
    """Return the headers of a yes: written once, for they are the same at each use of a thing by a window."""
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
    """Answer yes to a call that needs no window."""
    await _empty(send, ((b"lockbox-decision", b"not-applicable"),))


async def report(send: Send, denial: Denial) -> None:
    """Answer yes to a call that would be refused, where the gate does not enforce yet; and why it would be."""
    await _empty(send, ((b"lockbox-decision", b"would-deny"), (b"lockbox-reason", denial.reason.value.encode())))


async def state(send: Send, said: dict[str, Any]) -> None:
    """Answer what a guard has asked for; the answer itself lets nobody in."""
    body = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), NO_STORE]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _empty(send: Send, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, NO_STORE, LENGTH_0]})
    await send({"type": "http.response.body"})


async def deny(send: Send, denial: Denial, *, as_page: bool) -> None:
    """Answer no: a problem for programs, a small page for people."""
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
