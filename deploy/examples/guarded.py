"""A small service behind lockbox-guard: no mailbox is read without a window, and running calls end with it.

`call` says what a call uses, and the guard does the rest: whose call it is (by its bearer token), whether a window is
open, the answer if none is, and the end. What `call` does not know is refused, and so is everything without Lockbox.

Try it:  lockbox token make guard --scope gate:guard --service exchange-online
         python guarded.py --lockbox http://127.0.0.1:8000 --tenant contoso --token-file guard.token
         curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:9000/mailboxes/anna@contoso.example
"""

import argparse
from collections.abc import MutableMapping
from typing import Any

import uvicorn
from fastapi import FastAPI
from lockbox_guard import AsgiGuard, Guard, GuardedCall

PREFIX = "/mailboxes/"
service = FastAPI(openapi_url=None)


@service.get(PREFIX + "{address}")
def mailbox(address: str) -> dict[str, str]:
    """Serve a mailbox."""
    return {"mailbox": address, "message": "Hello from the customer's content."}


def main() -> None:
    """Serve behind a guard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockbox", required=True, help="address of Lockbox, such as http://127.0.0.1:8000")
    parser.add_argument("--token-file", required=True, help="file that holds a token with the scope gate:guard")
    parser.add_argument("--tenant", required=True, help="whose content this service holds")
    parser.add_argument("--port", type=int, default=9000, help="listens on loopback (%(default)s)")
    asked = parser.parse_args()
    guard = Guard(asked.lockbox, service="exchange-online", token_file=asked.token_file)

    def call(scope: MutableMapping[str, Any]) -> GuardedCall:
        if not scope["path"].startswith(PREFIX):
            raise LookupError("not a mailbox")
        return GuardedCall(asked.tenant, f"mailbox:{scope['path'].removeprefix(PREFIX)}", "read")

    app = AsgiGuard(service, guard, call)
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
