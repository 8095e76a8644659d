"""One log line a request: route, status, time taken; never an address, a query or a body."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger("api")


class AccessLog:
    """Logs what was called by the route's template, since paths and queries name people and their content."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on and write the line when the answer has begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                log.info(
                    "http",
                    method=scope["method"],
                    route=getattr(route, "path", None) or "unknown",
                    status=message["status"],
                    ms=round((time.perf_counter() - began) * 1000, 1),
                )
            await send(message)

        await self.app(scope, receive, noting)
