"""Answers to refused calls, as the gate gives them: a problem document for programs, a small page for people."""

import json
from dataclasses import dataclass
from html import escape

from lockbox_guard.decisions import NoAccess

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem }}</style>
</head><body><h1>{title}</h1><p>{detail}</p>{link}<p><small>{reason}</small></p></body></html>
"""
LINK = '<p><a href="{form}">Request access</a></p>'
TITLES = {401: "Sign in first", 403: "No access"}


@dataclass(frozen=True)
class RefusalAnswer:
    """Names of headers are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def line(self) -> str:
        """The status with its phrase."""
        return f"{self.status} {'Unauthorized' if self.status == 401 else 'Forbidden'}"  # noqa: PLR2004 - of the name


def answer_for(no: NoAccess, *, accept: str, closes: bool = False) -> RefusalAnswer:
    """`closes` ends the connection, because the call was not read to its end."""
    is_page = "text/html" in accept.lower()
    body = _page(no) if is_page else _problem(no)
    headers = [
        ("content-type", "text/html; charset=utf-8" if is_page else "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("vary", "accept"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        ("lockbox-decision", "deny"),
        ("lockbox-reason", no.reason),
    ]
    if no.form and no.form.isascii() and no.form.isprintable():
        headers.append(("lockbox-form", no.form))
    if no.status == 401:  # noqa: PLR2004 - as above
        headers.append(("www-authenticate", "Bearer"))
    if closes:
        headers.append(("connection", "close"))
    return RefusalAnswer(no.status, tuple(headers), body)


def _problem(no: NoAccess) -> bytes:
    said: dict[str, object] = {
        "type": f"urn:lockbox:problem:gate-{no.reason.replace('_', '-')}",
        "title": TITLES[no.status],
        "status": no.status,
        "code": no.reason,
        "detail": no.sentence,
    }
    if no.form:
        said["request_form"] = no.form
    return json.dumps(said).encode()


def _page(no: NoAccess) -> bytes:
    is_link = no.form is not None and no.form.startswith(("https://", "http://"))
    link = LINK.format(form=escape(str(no.form))) if is_link else ""
    page = PAGE.format(title=TITLES[no.status], detail=escape(no.sentence), link=link, reason=escape(no.reason))
    return page.encode()
