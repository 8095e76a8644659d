"""List every code that a problem may have: those of the error classes, and those of the server itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from api.problems import STATUS
from lockbox import errors
from lockbox.errors import LockboxError
from lockbox.requests import cases, extend, resubmission

HOMES = (errors, cases, extend, resubmission)
"""The modules that define errors with a code: the list does not depend on what else a process has imported."""


@dataclass(frozen=True, order=True)
class ProblemCode:
    """A code, the status that it comes with, and what it means."""

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


def every() -> Sequence[ProblemCode]:
    """Return all codes by status and name."""
    return sorted([*_of_classes(), *OF_THE_SERVER])


def _of_classes() -> Iterator[ProblemCode]:
    for home in HOMES:
        for one in vars(home).values():
            if isinstance(one, type) and issubclass(one, LockboxError) and one.__module__ == home.__name__:
                yield from _own_code(one)


def _own_code(kind: type[LockboxError]) -> Iterator[ProblemCode]:
    if "code" in vars(kind) and kind is not LockboxError:
        status = next(STATUS[base] for base in kind.__mro__ if base in STATUS)
        yield ProblemCode(status, kind.code, " ".join((kind.__doc__ or "").split()))
