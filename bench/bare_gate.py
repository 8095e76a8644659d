"""The floor of the gate: an ASGI callable and a FastAPI route that do nothing. No gate on this server can be faster.

`python -m bench.bare_gate KIND PORT` serves one of them as the API is served.
"""

import sys
from collections.abc import Callable, Mapping
from typing import cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http_protocol import ClientBounds, bounded
from harness.gateway_world import SERVICE

PATH = f"/gate/v1/{SERVICE}"


def bare_callable() -> ASGIApp:
    """Return a callable that answers without looking at the question."""

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    return answer


def bare_route() -> ASGIApp:
    """Return an app of one route that does nothing."""
    app = FastAPI()

    @app.get(PATH)
    async def answer() -> dict[str, bool]:
        return {"open": True}

    return cast("ASGIApp", app)


KINDS: Mapping[str, Callable[[], ASGIApp]] = {"callable": bare_callable, "route": bare_route}


def main() -> None:
    """Serve."""
    kind, port = sys.argv[1:]
    uvicorn.run(
        KINDS[kind](),
        port=int(port),
        http=bounded(ClientBounds()),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
