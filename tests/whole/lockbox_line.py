"""The line from a gateway to Lockbox, which a test can cut."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from harness.network import HOST
from harness.ports import own_port

CHUNK = 65_536


@dataclass
class LockboxLine:
    """The line from a gateway to Lockbox: it records checks, and can lead elsewhere, fall silent, or be cut."""

    target: int
    port: int = field(default_factory=own_port)
    asked: list[dict[str, str]] = field(default_factory=list)
    is_silent: bool = False
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)

    def connect(self) -> None:
        self._listener = socket.create_server((HOST, self.port), backlog=100)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.drop()

    def drop(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._open.append(near)
            if not self.is_silent:
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection((HOST, self.target))
        except OSError:
            near.close()
            return
        self._open.append(far)
        threading.Thread(target=_copy, args=(far, near, None), daemon=True).start()
        _copy(near, far, self._note)

    def _note(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:]
        self.asked.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})


def _copy(source: socket.socket, sink: socket.socket, note: Callable[[bytes], None] | None) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            if note is not None:
                note(data)
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
