"""What is refused before anybody reads it: bodies that are too large, declared or not; forms in strange letters."""

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.portal.pages import early
from api.problems import problem

MOST_BODY_BYTES = 64 * 1024
MOST_REPORT_BYTES = 256 * 1024
MOST_UPLOAD_BYTES = 20 << 20
REPORTS = "/activity"
UPLOADS = frozenset({"/trail/verify"})
"""Where a file is sent: it is passed on as it comes, and read by the route once that knows who sends it."""
FORMS = frozenset({b"multipart/form-data", b"application/x-www-form-urlencoded"})
NO_SNIFF = (b"x-content-type-options", b"nosniff")
CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})


class SingleHost:
    """Answers 400 to a request that names no host or several (RFC 9112, 3.2); no answer lets browsers guess types."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what names one host; every answer says `nosniff`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if [name for name, _ in scope["headers"]].count(b"host") != 1:
            answer = problem(400, "host-required", "Send exactly one Host header.", headers={"connection": "close"})
            await answer(scope, receive, send)
            return

        async def without_guessing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name.lower() == NO_SNIFF[0] for name, _ in headers):
                    message = {**message, "headers": [*headers, NO_SNIFF]}
            await send(message)

        await self.app(scope, receive, without_guessing)


class FormCharset:
    """Answers 415 to a form that says it is not in UTF-8.

    Starlette decodes a form by whatever codec of Python's it names, and some of those make text of it that is none:
    lone surrogates, which nothing after it can write down.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what says nothing of its charset, or the right one."""
        if scope["type"] == "http":
            kind, options = parse_options_header(Headers(scope=scope).get("content-type"))
            if kind in FORMS and options.get(b"charset", b"utf-8").lower() not in CHARSETS:
                answer = early(scope, 415, "unsupported-charset", "Send forms in UTF-8.", {"connection": "close"})
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyLimit:
    """Answers 413 to a larger body without reading it to its end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if scope["path"] in UPLOADS and declared.isdigit():
            await self.app(scope, _counted(receive, MOST_UPLOAD_BYTES, int(declared)), send)
            return
        most = MOST_REPORT_BYTES if scope["path"].endswith(REPORTS) else MOST_BODY_BYTES
        if not declared.isdigit() or int(declared) > most:
            await self._refuse(scope, receive, send, most)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                # What came so far may read as another request: an approval without its shorter window.
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                await self._refuse(scope, receive, send, most)
                return
        await self.app(scope, _replay(body, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        said = f"A body may have at most {most} bytes."
        answer = early(scope, 413, "body-too-large", said, {"connection": "close"})
        await answer(scope, receive, send)


def _counted(receive: Receive, most: int, declared: int) -> Receive:
    """Pass on what is received, and no more than so many bytes of it; nothing where more is declared."""
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
