"""The one HTTP middleware: early refusals, body limits, admission, HEAD, log lines."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable

import structlog
from anyio.to_thread import current_default_thread_limiter
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import browser, incoming_request
from api.deps import NOT_READ_ALONE
from api.incoming_request import (
    HEALTH,
    KNOWN,
    STRANGERS,
    VITAL_STRANGERS,
    IncomingRequest,
    KnownCredentials,
    budget_of,
    client_address,
)
from api.portal.pages import early
from api.problems import problem
from config import traces
from config.settings import Settings
from config.traces import ORIGIN, TRACING, CallOrigin, Span, SpanKind
from lockbox.identity.attempt_limits import network

log = structlog.get_logger("api")

MOST_BODY_BYTES = 64 * 1024
MOST_REPORT_BYTES = 256 * 1024
MOST_UPLOAD_BYTES = 20 << 20
REPORTS = "/activity"
UPLOADS = frozenset({"/audit-log/verify"})
"""Paths to which files are sent. A file is passed on as it arrives; the route reads it once it knows the sender."""
FORMS = frozenset({b"multipart/form-data", b"application/x-www-form-urlencoded"})
CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
NO_SNIFF = (b"x-content-type-options", b"nosniff")
REQUEST_ID = "x-request-id"
WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TRACEPARENT = "traceparent"
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines request every few seconds. Their log lines are of no interest."""

ALWAYS = frozenset({"/livez"})
BAD_REQUEST, UNAUTHORIZED, INTERNAL = 400, 401, 500
PER_ADDRESS = 2
SPARE_THREADS = 8
THREADS = incoming_request.MOST_VITAL + incoming_request.MOST_COMMON + SPARE_THREADS
"""A request needs one thread at a time. With a thread for each place, no request with a place waits for a thread."""

Leave = Callable[[], None]


class HttpGuard:
    """Checks, admits and logs each request.

    The checks, in this order: 400 if the request has no host or several (RFC 9112 section 3.2); 415 if a form is not
    in UTF-8; 413 if the body is too large; 503 if too many requests are being handled. A HEAD request is passed on as
    a GET, and the body of its answer is left out (RFC 9110 section 9.3.2).
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self._admission = Admission(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = GuardedAnswer(scope, send)
        token = ORIGIN.set(answer.origin)
        try:
            await self._guard(answer, receive)
        finally:
            ORIGIN.reset(token)
            answer.end()

    async def _guard(self, answer: "GuardedAnswer", receive: Receive) -> None:
        inner = answer.scope
        try:
            _check_headers(inner)
            receive = await _limited(inner, receive)
            answer.leave = await self._admission.admit(inner)
        except EarlyAnswer as refused:
            await refused.answer(inner, receive, answer.send)
            return
        except ClientDisconnect:
            # Drop the received part: it may read as another request, such as an approval without its shorter window.
            return
        try:
            await self.app(inner, receive, answer.send)
        except Exception as error:
            if answer.has_begun:
                raise
            # Outside this middleware the error would have no request id, neither in the answer nor in the log.
            failed = await inner["app"].exception_handlers[Exception](Request(inner), error)
            await failed(inner, receive, answer.send)
        finally:
            answer.leave(None)


class EarlyAnswer(Exception):  # noqa: N818 - it carries an answer
    def __init__(self, answer: ASGIApp) -> None:
        super().__init__()
        self.answer = answer


class GuardedAnswer:
    """An answer that is being sent.

    The log line and the span name the template of the route, because paths and queries contain people's names and
    content. The answer's id is also in the log lines of the mails and calls that follow.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._method = scope["method"]
        self._is_head = self._method == "HEAD" and not NOT_READ_ALONE.fullmatch(scope["path"])
        # The GET is a copy of the scope: the server must still see that it answers a HEAD.
        self.scope: Scope = {**scope, "method": "GET"} if self._is_head else scope
        self.leave: Callable[[int | None], None] = lambda _: None
        self.has_begun = False
        self.origin = _origin_of(scope)
        self._span: Span | None = None
        if TRACING.tracer and scope["path"] not in PROBES:
            self._span = TRACING.tracer.begin(self._method, SpanKind.SERVER, self.origin.traceparent)
            self.origin = self.origin._replace(traceparent=self._span.traceparent)
        self._told: dict[str, str | int] = {"http.request.method": self._method}
        self._send = send
        self._began = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.leave(message["status"])
            self._log(message["status"])
            message = _with_headers(message, self.origin)
        elif self._is_head and message["type"] == "http.response.body":
            if message.get("more_body", False):
                return
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    def _log(self, status: int) -> None:
        route = getattr(self.scope.get("route"), "path", None) or "unknown"
        took = round((time.perf_counter() - self._began) * 1000, 1)
        # A probe comes every few seconds, so it is logged at DEBUG. A refused probe is worth a line at INFO.
        level = logging.DEBUG if self.scope["path"] in PROBES and status < BAD_REQUEST else logging.INFO
        log.log(level, "http", method=self._method, route=route, status=status, ms=took)
        self._told |= {"http.route": route, "http.response.status_code": status}
        if status >= INTERNAL:
            self._told["error.type"] = str(status)

    def end(self) -> None:
        if self._span:
            self._span.end(f"{self._method} {self._told.get('http.route', '')}".strip(), self._told)


def _with_headers(message: Message, origin: CallOrigin) -> Message:
    headers = message.get("headers", ())
    said = {name.lower() for name, _ in headers}
    added = (NO_SNIFF, (REQUEST_ID.encode(), (origin.http_request_id or "").encode()))
    return {**message, "headers": [*headers, *(header for header in added if header[0] not in said)]}


def _origin_of(scope: Scope) -> CallOrigin:
    shown = Headers(scope=scope)
    own, parent = (shown.getlist(name) for name in (REQUEST_ID, TRACEPARENT))
    return CallOrigin(
        own[0] if len(own) == 1 and WELL_FORMED.fullmatch(own[0]) else os.urandom(8).hex(),
        parent[0] if len(parent) == 1 and traces.TRACEPARENT.fullmatch(parent[0]) else None,
    )


def _check_headers(scope: Scope) -> None:
    if [name for name, _ in scope["headers"]].count(b"host") != 1:
        raise EarlyAnswer(
            problem(400, "host-required", "Send exactly one Host header.", headers={"connection": "close"})
        )
    kind, options = parse_options_header(Headers(scope=scope).get("content-type"))
    # Starlette decodes with any Python codec that a form names. Some make lone surrogates, which cannot be written.
    if kind in FORMS and options.get(b"charset", b"utf-8").lower() not in CHARSETS:
        raise EarlyAnswer(early(scope, 415, "unsupported-charset", "Send forms in UTF-8.", {"connection": "close"}))


async def _limited(scope: Scope, receive: Receive) -> Receive:
    """Limit the body's size: an upload is counted while the app reads it, and any other body is read beforehand."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if scope["path"] in UPLOADS and declared.isdigit():
        return _counted(receive, MOST_UPLOAD_BYTES, int(declared))
    most = MOST_REPORT_BYTES if scope["path"].endswith(REPORTS) else MOST_BODY_BYTES
    if not declared.isdigit() or int(declared) > most:
        raise _too_large(scope, most)
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise _too_large(scope, most)
    return _replay(body, receive)


def _too_large(scope: Scope, most: int) -> EarlyAnswer:
    said = f"A body may have at most {most} bytes."
    return EarlyAnswer(early(scope, 413, "body-too-large", said, {"connection": "close"}))


def _counted(receive: Receive, most: int, declared: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if max(taken, declared) > most:
            raise HTTPException(413, f"A file may have at most {most >> 20} MB.", {"connection": "close"})
        return message

    return counted


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


class Admission:
    """Admits a request when its budget has a free place. The place is free again when the answer begins.

    A place means a thread for each step of the request, and a database connection for its whole duration. Without a
    limit, requests that wait for a connection would take every thread, requests with a connection would wait for a
    thread, and the API would stop. Access checks and closing moves have places and connections that no other request
    uses.

    Requests whose credential this process has not yet seen to be valid have separate places too, two for each
    address: invalid credentials thus delay no other request. When the credential turns out valid, the request moves
    to a place of its own budget, if one is free.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = {budget: asyncio.Semaphore(budget.most) for budget in KNOWN}
        self._strangers = {budget.vital: _ByAddress(budget.most) for budget in (STRANGERS, VITAL_STRANGERS)}
        self._known = KnownCredentials()

    async def admit(self, scope: Scope) -> Callable[[int | None], None]:
        """Wait for a place, and return a function that frees it.

        Call the function with the answer's status when the answer begins; if no answer begins, call it with None.

        Raises:
            EarlyAnswer: 503, the request has queued for its budget's maximum time.
        """
        if scope["path"] in ALWAYS:
            return lambda _: None
        current_default_thread_limiter().total_tokens = THREADS
        entry = scope[incoming_request.ENTRY] = IncomingRequest(budget_of(scope["method"], scope["path"]))
        connection = HTTPConnection(scope)
        shown = self._known.digest(_credential(connection, self._settings))
        leave = await self._place(entry, shown, client_address(connection, self._settings.trusted_proxies))
        if leave is None:
            raise EarlyAnswer(early(scope, 503, "busy", "The server is busy. Try again.", {"retry-after": "1"}))

        def left(status: int | None) -> None:
            leave()
            if status is not None:
                self._known.note(shown, is_good=entry.is_known, is_bad=status == UNAUTHORIZED)

        return left

    async def _place(self, entry: IncomingRequest, shown: bytes | None, address: str | None) -> Leave | None:
        budget = entry.budget
        if shown in self._known and not (free := self._places[budget]).locked():
            await free.acquire()
            return _once(free.release)
        try:
            async with asyncio.timeout(budget.seconds):
                if budget is not HEALTH and shown not in self._known:
                    leave = await self._strangers[budget.vital].enter(address or "")
                    if shown not in self._known:
                        return self._until_valid(entry, leave)
                    # Meanwhile another request has shown that the credential is valid.
                    leave()
                await self._places[budget].acquire()
                return _once(self._places[budget].release)
        except TimeoutError:
            return None

    def _until_valid(self, entry: IncomingRequest, leave: Leave) -> Leave:
        held, free = [leave], self._places[entry.budget]
        loop = asyncio.get_running_loop()

        async def move() -> None:
            if held and not free.locked():
                await free.acquire()
                held.pop()()
                held.append(free.release)

        entry.found_valid = lambda: asyncio.run_coroutine_threadsafe(move(), loop)
        return lambda: held.pop()() if held else None


class _ByAddress:
    """Places of which each address may use a few. An IPv6 network of 64 bits counts as one address."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._each: dict[str, tuple[asyncio.Semaphore, list[int]]] = {}

    async def enter(self, address: str) -> Leave:
        address = network(address)
        own, users = self._each.setdefault(address, (asyncio.Semaphore(PER_ADDRESS), [0]))
        users[0] += 1
        taken: list[asyncio.Semaphore] = []

        def leave() -> None:
            for one in taken:
                one.release()
            users[0] -= 1
            if not users[0]:
                del self._each[address]

        try:
            for one in (own, self._all):
                await one.acquire()
                taken.append(one)
        except BaseException:
            leave()
            raise
        return _once(leave)


def _credential(connection: HTTPConnection, settings: Settings) -> str | None:
    return connection.headers.get("authorization") or browser.session_secret(connection, settings)


def _once(leave: Leave) -> Leave:
    left: list[Leave] = [leave]
    return lambda: left.pop()() if left else None
