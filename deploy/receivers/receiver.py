"""Receive Lockbox's webhooks: verify each call, answer at once, and take each event once. Standard library only.

python receiver.py 127.0.0.1:8080 webhook.secret

The file holds the secret that Lockbox showed; while an old one is still valid, both, one a line. In production, put a
proxy with TLS in front, and keep what was taken in your database, in one transaction with what you do because of it.
"""

import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MOST_BYTES = 256 * 1024
MOST_SECONDS = 300
LEAST_SECRET = 24


class EventReceiver(ThreadingHTTPServer):
    """Listens for calls, and remembers which it took."""

    def __init__(self, address: tuple[str, int], secrets: list[bytes]) -> None:
        super().__init__(address, CallHandler)
        self._secrets = secrets
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    def is_signed(self, call_id: str, sent_at: str, signatures: str, body: bytes) -> bool:
        """Return whether a signature is ours, over this id, time and body, and not older than five minutes."""
        if not (sent_at.isascii() and sent_at.isdigit()) or abs(time.time() - int(sent_at)) > MOST_SECONDS:
            return False
        signed = f"{call_id}.{sent_at}.".encode() + body
        ours = [b"v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)) for secret in self._secrets]
        return any(hmac.compare_digest(given.encode(), one) for given in signatures.split() for one in ours)

    def take(self, call_id: str, event: dict[str, Any]) -> None:
        """Handle an event, unless it came before: then our answer was lost."""
        with self._lock:
            if call_id not in self._taken:
                handle(event)
                self._taken.add(call_id)


def handle(event: dict[str, Any]) -> None:
    """Do what the event is for. Never reopen what a higher sequence of the same request has ended."""
    sys.stdout.write(f"{event['sequence']} {event['type']} {event['data'].get('state', '-')}\n")
    sys.stdout.flush()


class CallHandler(BaseHTTPRequestHandler):
    """One call."""

    server: EventReceiver
    timeout = 10

    def do_POST(self) -> None:
        """Verify the call, take its event, and answer."""
        self.send_response(self._received())
        self.send_header("content-length", "0")
        self.send_header("connection", "close")
        self.end_headers()

    def _received(self) -> int:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MOST_BYTES:
            return 413
        body = self.rfile.read(int(length))
        call_id, sent_at, signatures = (
            self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not self.server.is_signed(call_id, sent_at, signatures, body):
            return 401
        self.server.take(call_id, json.loads(body))
        return 204

    def log_message(self, *_: object) -> None:
        """Write no line for each call."""


def main() -> None:
    """Serve at the address, with the secrets of the file."""
    (host, port), held = sys.argv[1].rsplit(":", 1), Path(sys.argv[2]).read_text().split()
    secrets = [base64.b64decode(one.removeprefix("whsec_"), validate=True) for one in held]
    if min(map(len, secrets), default=0) < LEAST_SECRET:
        sys.exit("the file does not hold what Lockbox showed")
    EventReceiver((host, int(port)), secrets).serve_forever()


if __name__ == "__main__":
    main()
