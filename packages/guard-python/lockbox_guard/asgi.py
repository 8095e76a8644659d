"""Guard an ASGI application: each call needs a window, and ends with it."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from lockbox_guard.calls import CallCut, GuardedCall
from lockbox_guard.decisions import Allowed, NoAccess, Refused
from lockbox_guard.guard import Guard
from lockbox_guard.refusal_answers import answer_for
from lockbox_guard.watches import CallStanding, CallWatch

log = logging.getLogger("lockbox_guard")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
CallReader = Callable[[Scope], GuardedCall | Awaitable[GuardedCall]]
LOOK_SECONDS = 0.25
HELD_SECONDS = 0.05
END_SECONDS = 0.5
POLICY_VIOLATION = 1008
WEBSOCKET = "WEBSOCKET"
CUT = "the access window has ended"
RESPONSE = "websocket.http.response"
BY_SERVER = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
"""With these extensions the server sends a whole file by itself, and the guard could not cut that."""


class AsgiGuard:
    """Answers 401 or 403 to calls without a window, and cuts running calls when no window allows them any more.

    The application finds the `Allowed` in `scope["lockbox"]`, which is replaced when the call continues under another
    window. The application must run on asyncio. If the guard has a `reports_token_file`, each call is reported as
    `served`, with its method or WEBSOCKET, and also as `cut` if it is cut.
    """

    def __init__(self, app: AsgiApp, guard: Guard, call: CallReader, *, drain_seconds: float = 0.0) -> None:
        """Put a guard before an application.

        Args:
            app: the application.
            guard: the guard of this process.
            call: returns what a call uses, given its scope; if it raises anything, the call is refused.
            drain_seconds: how long calls may continue after their window; 0 cuts them.
        """
        self._app = app
        self._guard = guard
        self._call = call
        self._drain_seconds = drain_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            allowed = await self._check(scope)
        except Refused as refused:
            await _refuse(scope, receive, send, refused.no)
            return
        if allowed.is_gated:
            offered = scope.get("extensions") or {}
            scope["extensions"] = {name: one for name, one in offered.items() if name not in BY_SERVER}
            method = str(scope.get("method", WEBSOCKET))

            def begin(under: Allowed) -> None:
                scope["lockbox"] = under
                self._guard.report_call(under, method)

            watch = self._guard.watch(allowed, drain_seconds=self._drain_seconds, on_change=begin)
            begin(allowed)
            running = RunningCall(scope, receive, send, watch)
            try:
                await running.run(self._app)
            finally:
                if running.is_cut:
                    self._guard.report_call(watch.allowed, method, "cut")
        else:
            scope["lockbox"] = allowed
            await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> Allowed:
        try:
            found = self._call(scope)
            call = await found if inspect.isawaitable(found) else found
            if not isinstance(call, GuardedCall):
                raise TypeError("say what a call uses with a GuardedCall")  # noqa: TRY301 - handled like any other mistake
        except Refused:
            raise
        except Exception as error:  # noqa: BLE001 - any error refuses the call
            log.warning("lockbox-guard: what a call uses is not known: %s", type(error).__name__)
            raise Refused(NoAccess("unmapped")) from None
        shown = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        return await self._guard.check_async(
            tenant=call.tenant,
            resource=call.resource,
            action=call.action,
            service=call.service,
            token=call.token_or(shown),
            subject=call.subject,
            engineer=call.engineer,
        )


class RunningCall:
    """A call that was let in: it runs until it ends, or its window does."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, watch: CallWatch) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watch = watch
        self._is_websocket = scope["type"] == "websocket"
        self._has_begun = False
        self._has_ended = False
        self.is_cut = False

    async def run(self, app: AsgiApp) -> None:
        """Run the call. Raises CallCut if it is cut after its answer began; then the server ends the connection."""
        running = asyncio.create_task(_run(app, self._scope, self._take, self._give))
        try:
            while not running.done() and (self._has_ended or self._watch.may_go_on()):
                await asyncio.wait({running}, timeout=LOOK_SECONDS)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait({running})
            raise
        if running.done():
            running.result()
        else:
            await self._cut(running)

    async def _cut(self, running: "asyncio.Task[None]") -> None:
        """End the call even if the application does not: what it sends from now on is dropped."""
        self.is_cut = True
        running.cancel()
        # The task's result does not matter, but Python would complain about an exception that was never retrieved.
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        is_answered = False
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(END_SECONDS):
                is_answered = await self._say_end()
        await asyncio.wait({running}, timeout=END_SECONDS)
        if not is_answered:
            raise CallCut(CUT)

    async def _say_end(self) -> bool:
        """Tell the client that access has ended. Return False if an HTTP answer has begun: it is cut off."""
        if self._is_websocket:
            await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": CUT})
        elif not self._has_begun:
            await _answer(self._send, "http", self._watch.why, _accept(self._scope), closes=True)
        return self._is_websocket or not self._has_begun

    async def _take(self) -> Message:
        if self.is_cut:
            raise CallCut(CUT)
        message = await self._receive()
        await self._hold()
        return message

    async def _hold(self) -> None:
        """Pass nothing on while the call has no window: wait until the next window comes, or the call is cut."""
        # Windows arrive in another thread, which sets no event of this loop: look again and again.
        while not (self.is_cut or self._has_ended) and self._watch.look() is not CallStanding.GOES_ON:  # noqa: ASYNC110
            await asyncio.sleep(HELD_SECONDS)
        if self.is_cut:
            raise CallCut(CUT)

    async def _give(self, message: Message) -> None:
        await self._hold()
        kind = message["type"]
        if kind == "http.response.start":
            self._has_begun = True
        elif kind == "websocket.close" or (kind == "http.response.body" and not message.get("more_body", False)):
            self._has_ended = True
        await self._send(message)


async def _run(app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, no: NoAccess) -> None:
    if scope["type"] == "http":
        await _answer(send, "http", no, _accept(scope))
        return
    await receive()
    if RESPONSE in (scope.get("extensions") or {}):
        await _answer(send, RESPONSE.removesuffix(".response"), no, _accept(scope))
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": no.reason})


async def _answer(send: Send, kind: str, no: NoAccess, accept: str, *, closes: bool = False) -> None:
    answer = answer_for(no, accept=accept, closes=closes)
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    await send({"type": f"{kind}.response.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": answer.body})


def _accept(scope: Scope) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
