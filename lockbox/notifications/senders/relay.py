"""One connection to a mail relay that can be cut at a deadline, in the middle of whatever it does."""

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator

READY = 220


class Connection(smtplib.SMTP):
    """SMTP with a total deadline: smtplib's own time-out starts anew with every byte that drips in.

    Args:
        seconds: for all that happens in one `deadline`.
        tls: where the relay speaks TLS from the first byte.
    """

    def __init__(self, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(timeout=seconds)
        self.is_late = False
        self._seconds = seconds
        self._tls_at_once = tls
        self._line: socket.socket | None = None

    def open(self, host: str, port: int) -> None:
        """Connect and hear the greeting.

        Raises:
            SMTPConnectError: it greets with a refusal.
        """
        # connect() alone does not note the name that the certificate has to bear.
        self._host = host
        code, said = self.connect(host, port)
        if code != READY:
            raise smtplib.SMTPConnectError(code, said)

    def close(self) -> None:
        """Hang up."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        super().close()

    @contextlib.contextmanager
    def deadline(self) -> Iterator[None]:
        """Cut the connection if the block takes longer than it may, and note that in `is_late`.

        Raises:
            TimeoutError: it took longer, and has not failed: smtplib takes half an answer for a whole one.
        """
        self.is_late = False
        watchdog = threading.Timer(self._seconds, self._cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
        if self.is_late:
            raise TimeoutError

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        # Half of the time for each of the addresses that most names have, one of either family.
        plain = socket.create_connection((host, port), timeout / 2)
        plain.settimeout(timeout)
        # TLS takes the socket away while it shakes hands; a second handle on the same line can still cut it.
        self._line = plain.dup()
        return self._tls_at_once.wrap_socket(plain, server_hostname=host) if self._tls_at_once else plain

    def _cut(self) -> None:
        self.is_late = True
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
