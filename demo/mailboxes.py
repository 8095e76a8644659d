"""The service behind the gateway: `python -m demo.mailboxes PORT`. It answers any caller, but only Caddy calls it."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness.network import HOST


class MailboxHandler(BaseHTTPRequestHandler):
    """Serves any mailbox."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve one mailbox."""
        body = json.dumps({"mailbox": self.path, "messages": ["Hello from the customer's content."]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer((HOST, int(sys.argv[1])), MailboxHandler).serve_forever()
