"""HEAD: what GET would answer, without its body (RFC 9110 section 9.3.2), for every route that GET only reads."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOT_READ_ALONE = re.compile(r"/live|/sign-in/oidc(?:/.*)?")
"""Where a GET goes on and on, or begins or uses up something."""


class HeadRequests:
    """Passes a HEAD on as a GET and keeps the body of the answer back; its headers, also its length, stay."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on all that is no HEAD, or would do more than read, as it is."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or NOT_READ_ALONE.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        # A copy: the server has to know that it answers a HEAD, and so has the log.
        inner = {**scope, "method": "GET"}

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["route"] = inner.get("route")
                await send(message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        await self.app(inner, receive, without_body)
