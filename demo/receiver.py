"""The webhook receiver: a real HTTP server that verifies each call by the Standard Webhooks library."""

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from demo.evidence import DemoWebhookCall
from demo.story import OUT_OF_ORDER, STATUSES

PATH = "/demo/"
MOST_BYTES = 64 * 1024
WRONG_SIGNATURE = 401


class DemoReceiver:
    """Listens on a free port of loopback; an endpoint is known by its path, and its secret is told later."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._secrets: dict[str, str] = {}
        self._seen: list[DemoWebhookCall] = []
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def seen(self) -> Sequence[DemoWebhookCall]:
        """The calls so far."""
        return tuple(self._seen)

    def url(self, endpoint: str) -> str:
        """Return the address of an endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}{endpoint}"

    def trust(self, endpoint: str, secret: str) -> None:
        """Verify the calls to this endpoint by this secret."""
        self._secrets[endpoint] = secret

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, endpoint: str, headers: dict[str, str], body: bytes) -> int:
        """Note a call and return the status to answer: 401 if its signature is wrong, 204 once it is taken."""
        try:
            told: Any = Webhook(self._secrets[endpoint]).verify(body, headers)
            verified = True
        except (WebhookVerificationError, KeyError, ValueError):
            told, verified = _read(body), False
        data = told.get("data", {})
        hook_id = headers.get("webhook-id", "")
        kind = told.get("type", "")
        status = self._status(endpoint, kind, hook_id) if verified else WRONG_SIGNATURE
        self._seen.append(DemoWebhookCall(hook_id, endpoint, kind, data.get("request_id", ""), verified, status))
        return status

    def _status(self, endpoint: str, kind: str, hook_id: str) -> int:
        if (endpoint, kind) != OUT_OF_ORDER:
            return STATUSES[-1]
        before = sum(hook.hook_id == hook_id and hook.verified for hook in self._seen)
        return STATUSES[min(before, len(STATUSES) - 1)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class DemoHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("content-length", 0)), MOST_BYTES))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(take(self.path.removeprefix(PATH), headers, body))
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing: the screen is the demo's."""

        return DemoHandler


def _read(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
