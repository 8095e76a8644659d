"""What is refused before anybody reads it: bodies above 64 KiB, declared or not."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem

MOST_BODY_BYTES = 64 * 1024


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
        if not declared.isdigit() or int(declared) > MOST_BODY_BYTES:
            await self._refuse(scope, receive, send)
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
            if len(body) > MOST_BODY_BYTES:
                await self._refuse(scope, receive, send)
                return
        await self.app(scope, _replay(body, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(
            413,
            "body-too-large",
            f"A body may have at most {MOST_BODY_BYTES} bytes.",
            headers={"connection": "close"},
        )
        await answer(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay
