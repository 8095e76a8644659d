"""Guard a WSGI application: each call needs a window, and ends with it."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from lockbox_guard.calls import CallCut, GuardedCall
from lockbox_guard.decisions import Allowed, NoAccess, Refused
from lockbox_guard.guard import Guard
from lockbox_guard.refusal_answers import answer_for
from lockbox_guard.watches import CallStanding, CallWatch

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import InputStream, StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("lockbox_guard")
EnvironReader = Callable[["WSGIEnvironment"], GuardedCall]
CUT = "the access window has ended"
HELD_SECONDS = 0.05


class WsgiGuard:
    """Answers 401 or 403 to calls without a window, and cuts running calls when no window allows them any more.

    The application finds the `Allowed` in `environ["lockbox"]`, which is replaced when the call continues under
    another window. A call is cut when it next reads a piece of its body or sends a piece of its answer: nothing can
    interrupt an application that waits in between. If the guard has a `reports_token_file`, each call is reported as
    `served`, with its method.
    """

    def __init__(
        self, app: "WSGIApplication", guard: Guard, call: EnvironReader, *, drain_seconds: float = 0.0
    ) -> None:
        """Put a guard before an application.

        Args:
            app: the application.
            guard: the guard of this process.
            call: returns what a call uses, given its environ; if it raises anything, the call is refused.
            drain_seconds: how long calls may continue after their window; 0 cuts them.
        """
        self._app = app
        self._guard = guard
        self._call = call
        self._drain_seconds = drain_seconds

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        accept = str(environ.get("HTTP_ACCEPT", ""))
        try:
            allowed = self._check(environ)
        except Refused as refused:
            return _answer(start_response, refused.no, accept)
        environ["lockbox"] = allowed
        if not allowed.is_gated:
            return self._app(environ, start_response)

        def begin(under: Allowed) -> None:
            environ["lockbox"] = under
            self._guard.report_call(under, str(environ["REQUEST_METHOD"]))

        watch = self._guard.watch(allowed, drain_seconds=self._drain_seconds, on_change=begin)
        begin(allowed)
        environ["wsgi.input"] = WatchedBody(environ["wsgi.input"], watch)
        try:
            return WatchedAnswer(self._app(environ, _watched(start_response, watch)), watch)
        except CallCut:
            return _answer(start_response, watch.why, accept, closes=True)

    def _check(self, environ: "WSGIEnvironment") -> Allowed:
        try:
            call = self._call(environ)
            if not isinstance(call, GuardedCall):
                raise TypeError("say what a call uses with a GuardedCall")  # noqa: TRY301 - handled like any other mistake
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - any error refuses the call
            log.warning("lockbox-guard: what a call uses is not known: %s", type(error).__name__)
            raise Refused(NoAccess("unmapped")) from None
        shown = environ.get("HTTP_AUTHORIZATION")
        return self._guard.check(
            tenant=call.tenant,
            resource=call.resource,
            action=call.action,
            service=call.service,
            token=call.token_or([shown] if isinstance(shown, str) else []),
            subject=call.subject,
            engineer=call.engineer,
        )


class WatchedBody:
    """The body of a call, which can be read as long as the window is open."""

    def __init__(self, body: "InputStream", watch: CallWatch) -> None:
        self._body = body
        self._watch = watch

    def read(self, size: int = -1) -> bytes:
        return self._checked(self._body.read, size)

    def readline(self, size: int = -1) -> bytes:
        return self._checked(self._body.readline, size)

    def readlines(self, hint: int = -1) -> list[bytes]:
        _check(self._watch)
        lines: list[bytes] = self._body.readlines(hint)
        _check(self._watch)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        _check(self._watch)
        data = read(size)
        _check(self._watch)
        return data


class WatchedAnswer:
    """The answer to a call, which continues as long as the window is open."""

    def __init__(self, parts: Iterable[bytes], watch: CallWatch) -> None:
        self._parts = parts
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            _check(self._watch)
            yield part

    def close(self) -> None:
        """Tell the application that the answer has ended."""
        close = getattr(self._parts, "close", None)
        if close is not None:
            close()


def _check(watch: CallWatch) -> None:
    """Wait while the call has no window and the next window may come; a call that is over is cut."""
    while (standing := watch.look()) is CallStanding.WAITS:
        time.sleep(HELD_SECONDS)
    if standing is CallStanding.IS_OVER:
        raise CallCut(CUT)


def _watched(start_response: "StartResponse", watch: CallWatch) -> "StartResponse":
    def start(
        status: str, headers: list[tuple[str, str]], exc_info: "OptExcInfo | None" = None, /
    ) -> Callable[[bytes], object]:
        write = start_response(status, headers, exc_info)

        def watched(data: bytes) -> object:
            _check(watch)
            return write(data)

        return watched

    return start


def _answer(start_response: "StartResponse", no: NoAccess, accept: str, *, closes: bool = False) -> Iterable[bytes]:
    answer = answer_for(no, accept=accept)
    # This replaces an answer that the application has begun, if nothing was sent yet; otherwise it raises.
    failed = sys.exc_info() if closes else None
    start_response(answer.line, [(name, value) for name, value in answer.headers], failed)
    return [answer.body]
