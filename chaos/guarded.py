"""`python -m chaos.guarded`: a service behind lockbox-guard, which answers with the window that let the call in."""

import argparse
import json
from collections.abc import MutableMapping
from typing import Any

import uvicorn
from lockbox_guard import AsgiGuard, Guard, GuardedCall
from lockbox_guard.asgi import Receive, Scope, Send

from chaos.gate_calls import ACTIONS, ENGINEER

SERVICE = "exchange-online"


async def answer(scope: Scope, _: Receive, send: Send) -> None:
    """Answer with the window that let the call in, as the guard found it."""
    if scope["type"] != "http":
        return
    allowed = scope["lockbox"]
    said = {
        "request": str(allowed.request),
        "engineer": str(allowed.engineer),
        "until": allowed.until.isoformat(),
        "tenant": allowed.use.tenant,
        "service": allowed.use.service,
        "resource": allowed.use.resource,
        "action": allowed.use.action,
    }
    body = json.dumps(said).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


def call(scope: MutableMapping[str, Any]) -> GuardedCall:
    """Return what a call uses: the path is /TENANT/SERVICE/mailboxes/ADDRESS, and a header names the engineer."""
    _, tenant, service, kind, address = scope["path"].split("/")
    if kind != "mailboxes":
        raise LookupError("not a mailbox")
    (engineer,) = (value.decode() for name, value in scope["headers"] if name == ENGINEER.encode())
    action = ACTIONS[scope["method"]]
    return GuardedCall(tenant, f"mailbox:{address}", action, service=service, subject=engineer)


def main() -> None:
    """Serve behind a guard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lockbox", required=True)
    parser.add_argument("--token-file", required=True)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    guard = Guard(asked.lockbox, service=SERVICE, token_file=asked.token_file, engineer_header=ENGINEER)
    guard.start()
    app = AsgiGuard(answer, guard, call)
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
