"""A small gateway without the guard: it serves a mailbox only if an access check, made at that moment, allows it.

Lockbox makes the decision; your gateway enforces it by calling the access check. This is all that it takes:

- It checks before *every* answer and caches nothing, so access ends when the window does.
- It reports what it served: a customer reads in Lockbox what was done inside a window, not only that it was open.
- It fails closed: anything but a clear yes, to exactly what it asked, within two seconds is a no.
- It holds a *system* token (scopes `access:check` and `activity:report`, bound to the service), read from a file: a
  command line is public. The engineer never sees it.
- The engineer is named by the header `X-Engineer`, which stands in for your own sign-in: put here whatever
  has proved, to *your* system, who is calling. A header that a client may set at will proves nothing.

Try it:  python checked.py --lockbox http://127.0.0.1:8000 --tenant contoso --token-file gate.token
         curl -H "X-Engineer: $ERIN_ID" http://127.0.0.1:9000/mailboxes/anna@contoso.example
"""

import argparse
import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse

SECONDS = 2.0
NEVER_KEPT = {"cache-control": "no-store"}


class Lockbox:
    """Checks access at one Lockbox, for one tenant and one service."""

    def __init__(self, url: str, token: str, *, tenant: str, service: str) -> None:
        self._about = {"tenant": tenant, "service": service}
        self._http = httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=SECONDS, trust_env=False
        )

    async def opens(self, resource: str, action: str, engineer: str) -> str | None:
        """Return the request that lets the engineer do this to that resource now; None in any doubt."""
        asked = {**self._about, "resource": resource, "action": action, "engineer": engineer}
        try:
            async with asyncio.timeout(SECONDS):  # for the whole answer; httpx's own starts anew with every byte
                answer = await self._http.get("/v1/access", params=asked)
            said = answer.json() if answer.status_code == httpx.codes.OK else {}
            is_yes = said.get("open") is True and all(said[name] == value for name, value in asked.items())
            return str(said["request_id"]) if is_yes else None
        except Exception:  # noqa: BLE001 - whatever went wrong, access is refused
            return None

    async def served(self, request_id: str, resource: str, action: str) -> bool:
        """Report what is about to be served, and return whether that was accepted; else serve nothing.

        A busy system gathers up to 500 entries a report, sends each report under an Idempotency-Key until it is
        accepted, and has an hour after the window's end for it.
        """
        at = datetime.now(UTC).isoformat()  # noqa: TID251 - this is no part of Lockbox and has a clock of its own
        done = {"at": at, "method": "GET", "resource": resource, "action": action}
        body = {"entries": [{**done, "outcome": "served"}]}
        try:
            async with asyncio.timeout(SECONDS):
                answer = await self._http.post(f"/v1/requests/{request_id}/activity", json=body)
        except Exception:  # noqa: BLE001 - as above
            return False
        return answer.status_code == httpx.codes.CREATED


def make_app(lockbox: Lockbox) -> FastAPI:
    """Return the service: one kind of resource, one action, one access check before each answer."""
    app = FastAPI(openapi_url=None)

    @app.get("/mailboxes/{address}")
    async def mailbox(address: str, engineer: Annotated[str, Header(alias="X-Engineer")] = "") -> JSONResponse:
        resource = f"mailbox:{address}"
        request_id = await lockbox.opens(resource, "read", engineer)
        if request_id is None:
            return JSONResponse({"detail": "No window is open. Submit a request in Lockbox first."}, 403, NEVER_KEPT)
        if not await lockbox.served(request_id, resource, "read"):
            return JSONResponse({"detail": "Lockbox accepts no reports at the moment. Try again."}, 503, NEVER_KEPT)
        return JSONResponse({"mailbox": address, "messages": ["Hello from the customer's content."]}, 200, NEVER_KEPT)

    return app


def main() -> None:
    """Read the token and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockbox", required=True, help="address of Lockbox, such as http://127.0.0.1:8000")
    parser.add_argument("--token-file", required=True, type=Path, help="file that holds the system token")
    parser.add_argument("--tenant", required=True, help="whose content this system holds")
    parser.add_argument("--service", default="exchange-online", help="as in Lockbox's catalogue (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="listens on loopback (%(default)s)")
    asked = parser.parse_args()
    token = asked.token_file.read_text(encoding="utf-8").strip()
    lockbox = Lockbox(asked.lockbox, token, tenant=asked.tenant, service=asked.service)
    uvicorn.run(make_app(lockbox), host="127.0.0.1", port=asked.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
