"""A service behind a gateway, which records the calls that reach it."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness.network import HOST

HELLO = b"the customer's data"
ENDLESS = "/messages/endless"
"""A call of this takes so long:"""
ENDLESS_SECONDS = 30
PART = bytes(16_384)


@dataclass(frozen=True)
class ServedCall:
    """A call that reached the service: the target as it was sent, and headers by lower-case names."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class RecordingService:
    """A service that answers everything, and remembers what reached it."""

    def __init__(self) -> None:
        self.seen: list[ServedCall] = []
        seen = self.seen

        class RecordingHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                method, target, _ = self.requestline.split(" ")
                headers = dict[str, str]()
                for name, value in self.headers.items():
                    headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                seen.append(ServedCall(method, target, headers, body))
                self.send_response(200)
                is_endless = target.endswith(ENDLESS)
                self.send_header(
                    "Content-Length", str(ENDLESS_SECONDS * 10 * len(PART) if is_endless else len(HELLO))
                )
                self.end_headers()
                if is_endless:
                    self.drip()
                elif method != "HEAD":
                    self.wfile.write(HELLO)

            def drip(self) -> None:
                with suppress(OSError):
                    for _ in range(ENDLESS_SECONDS * 10):
                        self.wfile.write(PART)
                        time.sleep(0.1)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = do_OPTIONS = answer  # noqa: N815 - the base's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), RecordingHandler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
