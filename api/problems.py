"""Map errors to RFC 9457 problems, and list all codes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api import deps, refusal_log
from api.schemas.parts import phrase
from lockbox import errors, mistakes
from lockbox.errors import (
    Busy,
    Conflict,
    Invalid,
    KeyInUse,
    LockboxError,
    NotFound,
    NotSignedIn,
    NotYours,
    StaleVersion,
    TooMany,
    VersionRequired,
)
from lockbox.requests import case_check, extend, resubmission

log = structlog.get_logger(__name__)

STATUS: dict[type[LockboxError], int] = {
    NotSignedIn: 401,
    NotYours: 403,
    NotFound: 404,
    Conflict: 409,
    KeyInUse: 409,
    StaleVersion: 412,
    VersionRequired: 428,
    Invalid: 422,
    TooMany: 429,
    Busy: 503,
}
NOT_THERE = {404: "Page not found. Check the address.", 405: "The address does not support this method; see Allow."}
"""Errors of requests without a matching route."""
IN_USE = "Someone else is changing this. Try again."
CONTENDED = frozenset({"55P03", "40001", "40P01"})
AWAY = ("08", "53", "57", "25006", "25P03")


HOMES = (errors, case_check, extend, resubmission)
"""The modules that define errors with a code. Importing them makes the list of codes the same in every process."""


@dataclass(frozen=True, order=True)
class ProblemCode:
    status: int
    code: str
    meaning: str


OF_THE_SERVER = (
    ProblemCode(400, "host-required", "The request must have exactly one Host header."),
    ProblemCode(400, "hung-up", "The request arrived incomplete; send it again."),
    ProblemCode(400, "invalid-http", "The request is not valid HTTP."),
    ProblemCode(400, "invalid-json", "The body is not JSON."),
    ProblemCode(400, "malformed-evaluation", "The body is no AuthZEN evaluation."),
    ProblemCode(401, "unauthorized", "The session of the live page has ended."),
    ProblemCode(405, "method-not-allowed", "The address does not support this method; `Allow` lists those it does."),
    ProblemCode(408, "too-slow", "The request did not arrive in time; send it again."),
    ProblemCode(413, "body-too-large", "The body is larger than this address takes."),
    ProblemCode(413, "content-too-large", "The uploaded file is too large."),
    ProblemCode(415, "unsupported-charset", "A form must be in UTF-8."),
    ProblemCode(429, "too-many-connections", "The client has too many connections; close some of them."),
    ProblemCode(429, "too-many-requests", "Too many requests wait on this connection; read the answers first."),
    ProblemCode(431, "headers-too-large", "The request has too many headers, or too large ones."),
    ProblemCode(500, "internal", "Something went wrong on the server. Nothing was changed; try again."),
    ProblemCode(503, "behind", "The gate has not read the newest changes; try again."),
    ProblemCode(503, "unavailable", "The database is unavailable; try again."),
)
"""The codes that no error class has."""


def every_code() -> Sequence[ProblemCode]:
    return sorted([*_of_classes(), *OF_THE_SERVER])


def _of_classes() -> Iterator[ProblemCode]:
    for home in HOMES:
        for var in vars(home).values():
            if isinstance(var, type) and issubclass(var, LockboxError) and var.__module__ == home.__name__:
                yield from _own_code(var)


def _own_code(kind: type[LockboxError]) -> Iterator[ProblemCode]:
    if "code" in vars(kind) and kind is not LockboxError:
        status = next(STATUS[base] for base in kind.__mro__ if base in STATUS)
        yield ProblemCode(status, kind.code, " ".join((kind.__doc__ or "").split()))


def problem(
    status: int,
    code: str,
    detail: str,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = _body(status, code, detail, facts)
    usual = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return JSONResponse(body, status, {**usual, **(headers or {})}, "application/problem+json")


def problem_of(error: LockboxError) -> dict[str, Any]:
    """Return the problem as part of a larger answer, with the status that it would have on its own."""
    return _body(_status(error), error.code, error.detail, error.facts)


def _body(status: int, code: str, detail: str, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "type": f"urn:lockbox:problem:{code}",
        "title": phrase(status),
        "status": status,
        "code": code,
        "detail": detail,
        **(facts or {}),
    }


def _status(error: LockboxError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def is_contended(error: DBAPIError) -> bool:
    """Whether another transaction has locked or has just changed the row. The same call may succeed later."""
    return getattr(error.orig, "sqlstate", None) in CONTENDED


def install(app: FastAPI) -> None:
    app.add_exception_handler(LockboxError, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(PoolTimeout, _database)
    app.add_exception_handler(Exception, _unexpected)


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LockboxError)  # noqa: S101 - Starlette's signature is wider than what it calls with
    if refusal_log.is_noted(request, error):
        await to_thread.run_sync(refusal_log.note, request, error)
    status = _status(error)
    headers = {"www-authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = "1"
    if "retry_after" in error.facts:
        headers["retry-after"] = str(error.facts["retry_after"])
    return problem(status, error.code, error.detail, error.facts, headers=headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return problem(400, "invalid-json", "The body is not JSON.")
    wrong = [{"field": _field(item["loc"]), "message": mistakes.say(item)} for item in found]
    detail = "; ".join(f"{one['field']}: {one['message']}" for one in wrong)
    return problem(422, "invalid-request", detail, {"errors": wrong})


def _field(location: Sequence[object]) -> str:
    return ".".join(str(part) for part in location[1:]) or str(location[0])


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    words = phrase(error.status_code)
    detail = NOT_THERE.get(error.status_code, words) if error.detail == words else error.detail
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"allow": ", ".join(deps.allowed(request))}
    return problem(error.status_code, words.lower().replace(" ", "-"), detail, headers=headers)


def _gone(_: Request, __: Exception) -> JSONResponse:
    return problem(400, "hung-up", "The request arrived incomplete. Send it again.")


def _database(_: Request, error: Exception) -> JSONResponse:
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if state in CONTENDED:
        return problem(503, "busy", IN_USE, headers={"retry-after": "1"})
    connection_lost = not state and isinstance(error, OperationalError | InterfaceError | PoolTimeout)
    if not connection_lost and not state.startswith(AWAY):
        return _unexpected(_, error)
    log.warning("api.database_away", error=type(error).__name__, sqlstate=state)
    return problem(503, "unavailable", "The database is unavailable. Try again.", headers={"retry-after": "1"})


def _unexpected(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, DBAPIError):
        # Do not log the error's text: it may quote the refused row, and so what a person wrote.
        log.error("api.failed", error=type(error).__name__, sqlstate=getattr(error.orig, "sqlstate", None))
    else:
        log.error("api.failed", exc_info=error)
    return problem(500, "internal", "Something went wrong on the server. Nothing was changed; try again.")
