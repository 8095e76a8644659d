"""A relay in front of Postgres that can lose the acknowledgement of a commit: it stands, and nobody is told."""

import contextlib
import socket
import threading
from typing import Self

from sqlalchemy.engine import make_url

LARGEST_PART = 65536


class CommitLosingRelay:
    """Passes bytes both ways; while `losing`, the answer to a COMMIT is dropped and the connection hung up."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.losing = False
        self.lost = 0

    @property
    def url(self) -> str:
        """The same login by way of this relay."""
        here = self._url.set(host="127.0.0.1", port=self._listener.getsockname()[1])
        return here.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            _hang_up(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((str(self._url.host), int(self._url.port or 5432)))
                self._open += [client, server]
                committing = threading.Event()
                for source, target, forth in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=(source, target, committing, forth), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, committing: threading.Event, forth: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(OSError):
            while part := source.recv(LARGEST_PART):
                if forth and self.losing and b"COMMIT" in part:
                    committing.set()
                elif not forth and committing.is_set():
                    # Postgres answers a COMMIT only once it stands.
                    self.lost += 1
                    break
                target.sendall(part)
        _hang_up(source)
        _hang_up(target)


def _hang_up(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
