"""Answer Lockbox's questions about support cases: is it open, and assigned to the engineer? Standard library only.

python case_adapter.py 127.0.0.1:8081 adapter.secret cases.json

The first file holds the secret that Lockbox has as LOCKBOX_CASE_ADAPTER_SECRET, the second one the cases, and is read
for each question: {"INC0012345": {"open": true, "assigned": "erin@vendor.example"}}. Yours asks your ticket system
instead, in `look_up`. In production, put a proxy with TLS in front.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MOST_BYTES = 16 * 1024
MOST_SECONDS = 300
LEAST_SECRET = 24


class CaseAdapter(ThreadingHTTPServer):
    """Listens for questions, and knows the secret and where the cases are."""

    def __init__(self, address: tuple[str, int], secret: bytes, cases: Path) -> None:
        super().__init__(address, QuestionHandler)
        self._secret = secret
        self._cases = cases

    def signature(self, question_id: str, at: str, body: bytes) -> str:
        """Return the signature over id, time and body (Standard Webhooks)."""
        signed = f"{question_id}.{at}.".encode() + body
        return "v1," + base64.b64encode(hmac.digest(self._secret, signed, hashlib.sha256)).decode()

    def is_signed(self, question_id: str, at: str, signatures: str, body: bytes) -> bool:
        """Return whether a signature is ours, and not older than five minutes."""
        if not (at.isascii() and at.isdigit()) or abs(time.time() - int(at)) > MOST_SECONDS:
            return False
        ours = self.signature(question_id, at, body).encode()
        return any(hmac.compare_digest(given.encode(), ours) for given in signatures.split())

    def look_up(self, question: dict[str, Any]) -> dict[str, bool]:
        """Return whether the case is open, and assigned to the engineer. Never say yes to what you do not know."""
        case = json.loads(self._cases.read_text()).get(question["case_ref"], {})
        assigned, engineer = str(case.get("assigned") or ""), question["engineer"]["email"]
        return {
            "open": case.get("open") is True,
            "assigned": bool(assigned) and assigned.lower() == engineer.lower(),
        }


class QuestionHandler(BaseHTTPRequestHandler):
    """One question."""

    server: CaseAdapter
    timeout = 10

    def do_POST(self) -> None:
        """Verify the question, and answer it under its own id."""
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MOST_BYTES:
            self._answer(413)
            return
        body = self.rfile.read(int(length))
        question_id, sent_at, signatures = (
            self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not self.server.is_signed(question_id, sent_at, signatures, body):
            self._answer(401)
            return
        asked = json.loads(body)
        if asked.get("type") != "case.check" or asked.get("id") != question_id:
            self._answer(422)
            return
        said, now = json.dumps(self.server.look_up(asked["data"])).encode(), str(int(time.time()))
        signature = self.server.signature(question_id, now, said)
        headers = {"webhook-id": question_id, "webhook-timestamp": now, "webhook-signature": signature}
        self._answer(200, said, {**headers, "content-type": "application/json"})

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": str(len(body)), "connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line for each question."""


def main() -> None:
    """Serve at the address, with the secret and the cases of the files."""
    (host, port), held, cases = sys.argv[1].rsplit(":", 1), Path(sys.argv[2]).read_text().split(), Path(sys.argv[3])
    secrets = [base64.b64decode(one.removeprefix("whsec_"), validate=True) for one in held]
    if len(secrets) != 1 or len(secrets[0]) < LEAST_SECRET:
        sys.exit("the file does not hold the secret that Lockbox has")
    CaseAdapter((host, int(port)), secrets[0], cases).serve_forever()


if __name__ == "__main__":
    main()
