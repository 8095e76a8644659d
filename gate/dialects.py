"""Read which call a gateway's question is about, in that gateway's dialect."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gate.call import Scope, SentHeaders

ROOT = b"/gate/v1/"
TARGET = "lockbox.target"
"""The key in a server's scope of the request target as it was sent, because parsers shorten it."""


class Dialect(StrEnum):
    NGINX = "nginx"
    CADDY = "caddy"
    TRAEFIK = "traefik"
    HAPROXY = "haproxy"
    ENVOY = "envoy"
    AUTHZEN = "authzen"
    GUARD = "guard"


@dataclass(frozen=True)
class DialectHeaders:
    """Names of headers. `call` carries the gateway's own id of the call."""

    method: bytes
    target: bytes
    host: bytes
    asked_by: frozenset[str]
    call: bytes | None = b"lockbox-call"


GET = frozenset({"GET"})
ORIGINAL = (b"x-original-method", b"x-original-uri", b"x-original-host")
FORWARDED = (b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host")
HEADERS: Mapping[Dialect, DialectHeaders] = {
    Dialect.NGINX: DialectHeaders(*ORIGINAL, GET),
    Dialect.HAPROXY: DialectHeaders(*ORIGINAL, frozenset({"GET", "HEAD"})),
    Dialect.CADDY: DialectHeaders(*FORWARDED, GET),
    Dialect.TRAEFIK: DialectHeaders(*FORWARDED, GET, None),
}
"""Envoy needs no headers: it sends the call itself, after our address. AuthZEN and guards ask at other addresses."""
OVERRIDES = frozenset(
    {
        *(b"x-http-method-override", b"x-http-method", b"x-method-override"),
        *(b"x-original-url", b"x-rewrite-url", b"x-forwarded-path", b"x-envoy-original-path"),
    }
)
"""Headers by which a service may understand a call differently than the gateway does."""
OF_FORWARD_AUTH = frozenset({*ORIGINAL[:2], *FORWARDED[:2]})
"""Only a gateway that asks whether to admit a call sends these headers. Proxies on the way send only the host."""
NOT_DIRECT = OF_FORWARD_AUTH | OVERRIDES
HOST = b"host"
NAMED = frozenset({*ORIGINAL, *FORWARDED, *OVERRIDES, HOST, b"lockbox-call"})
FOREIGN: Mapping[Dialect, frozenset[bytes]] = {
    dialect: NAMED - {own.method, own.target, own.host, own.call, HOST} for dialect, own in HEADERS.items()
} | {Dialect.ENVOY: NAMED - {HOST}}
"""The headers that a gateway of each dialect must remove from every call."""
CALL = re.compile(rb"[!-~]{1,100}")


class MalformedQuestion(Exception):  # noqa: N818 - the name says what went wrong
    pass


class AskedCall(NamedTuple):
    """Method, target and host are as the client sent them; `call` is the gateway's id of the call."""

    method: str
    target: str
    host: str
    call: str | None = None


class GateQuestion(NamedTuple):
    """`rest` is the path after the service."""

    method: str
    service: str
    rest: bytes
    query: bytes | None
    headers: SentHeaders


def asked_at(scope: Scope) -> tuple[str, bytes, bytes | None]:
    """Return a question's service, the rest of its path, and its query (None without a `?`)."""
    path, query = scope["raw_path"], scope["query_string"]
    sent: bytes | None = scope.get(TARGET)
    if sent is None:
        return (*service_in(path), query or None)
    if not sent.startswith(ROOT):
        raise MalformedQuestion("The question's address must begin with /gate/v1/, without a scheme or a host.")
    path, mark, query = sent.partition(b"?")
    return (*service_in(path), query if mark else None)


def service_in(path: bytes) -> tuple[str, bytes]:
    name, slash, rest = path[len(ROOT) :].partition(b"/")
    if not name or not name.isascii():
        raise MalformedQuestion("The address names no service: it is /gate/v1/ and a service of the catalogue.")
    return name.decode(), slash + rest


def read(dialect: Dialect, question: GateQuestion) -> AskedCall:
    if dialect in {Dialect.AUTHZEN, Dialect.GUARD}:
        raise MalformedQuestion("The token is no gateway's: make one for this kind of gateway, such as gate:nginx.")
    sent = question.headers
    if repeated := NAMED & sent.repeated:
        raise MalformedQuestion(
            f"The header {min(repeated).decode()} is there more than once: have the gateway set it."
        )
    if _has_body(sent):
        raise MalformedQuestion("The question has a body: have the gateway leave out the body of the call.")
    for name in FOREIGN[dialect].intersection(sent.values):
        if sent.values[name]:
            raise MalformedQuestion(
                f"The header {name.decode()} is not one of {dialect}: have the gateway remove it from every call."
            )
    headers = HEADERS.get(dialect)
    return _of_headers(question, headers, sent.values) if headers else _of_envoy(question, sent.values)


def check_direct(question: GateQuestion) -> None:
    """Refuse gateways: a gateway would read a guard's answer as permission to admit the call."""
    if question.method != "GET":
        raise MalformedQuestion("A guard must ask with GET.")
    sent = question.headers
    for name in NOT_DIRECT.intersection(sent.values):
        if sent.values[name] or name in sent.repeated:
            raise MalformedQuestion(
                f"The header {name.decode()} is a gateway's: it must ask with a token of its own."
            )
    if _has_body(sent):
        raise MalformedQuestion("The question has a body: leave it out.")


def _has_body(sent: SentHeaders) -> bool:
    return (
        b"transfer-encoding" in sent.values
        or b"content-length" in sent.repeated
        or sent.values.get(b"content-length", b"0") not in {b"", b"0"}
    )


def _of_headers(question: GateQuestion, headers: DialectHeaders, sent: Mapping[bytes, bytes]) -> AskedCall:
    if question.method not in headers.asked_by:
        raise MalformedQuestion("The gateway must ask with GET.")
    if question.rest or question.query:
        raise MalformedQuestion("The address of the question must end with the name of the service.")
    for name in (headers.method, headers.target):
        if not sent.get(name):
            raise MalformedQuestion(f"The header {name.decode()} is missing: have the gateway set it.")
    call = sent.get(headers.call) if headers.call else None
    if call and not CALL.fullmatch(call):
        raise MalformedQuestion("The gateway's id of the call has at most 100 visible characters.")
    own = (headers.method, headers.target, headers.host)
    method, target, host = (sent.get(name, b"").decode("latin-1") for name in own)
    return AskedCall(method, target, host, call.decode() if call else None)


def _of_envoy(question: GateQuestion, sent: Mapping[bytes, bytes]) -> AskedCall:
    if not question.rest:
        raise MalformedQuestion("The path of the call is missing: set path_prefix, so that Envoy appends it.")
    target = question.rest + (b"" if question.query is None else b"?" + question.query)
    return AskedCall(question.method, target.decode("latin-1"), sent.get(b"host", b"").decode("latin-1"))
