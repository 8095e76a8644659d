"""Mail over SMTP: plain, STARTTLS or SMTPS, with or without login, within a total deadline."""

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lockbox.failpoints import reach
from lockbox.notifications.senders.message import compose
from lockbox.notifications.senders.protocol import SEND_SECONDS, Mail, Reply, SendFailed

READY = 220
FIRST_REFUSAL = 400
PERMANENT = 500
DEFAULT_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


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


class SmtpMail:
    """Sends through one relay. Each thread keeps its connection until `close`, or until something goes wrong.

    Args:
        url: `smtp+starttls://user:password@host:587`, `smtps://…` or `smtp://…`; the login is optional.
        sender: the From header, such as `Lockbox <lockbox@vendor.example>`.
        ca_file: certificates to trust instead of the system's.
        seconds: for one mail, from the connection to the last answer.
    """

    def __init__(self, url: str, *, sender: str, ca_file: Path | None = None, seconds: float = SEND_SECONDS) -> None:
        self._seconds = seconds
        self._url = urlsplit(url)
        self._sender = sender
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._kept = threading.local()

    def send(self, mail: Mail) -> None:
        """Hand the mail to the relay.

        Raises:
            SendFailed: it was not taken; permanent if the relay refused the recipient or the content for good.
        """
        try:
            message = compose(mail, self._sender)
        except ValueError as error:
            raise SendFailed("the address cannot be written into a mail", permanent=True, kind="form") from error
        client = self._client()
        try:
            with client.deadline():
                self._ready(client)
                reach("smtp.after_connect")
                client.send_message(message)
                reach("smtp.after_data")
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise _refused(code, said, permanent=code >= PERMANENT) from error
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise _failed(error, is_late=client.is_late) from error

    def close(self) -> None:
        """Close this thread's connection to the relay."""
        client: Connection | None = getattr(self._kept, "client", None)
        self._kept.client = None
        if client is not None:
            client.close()

    def _client(self) -> Connection:
        client: Connection | None = getattr(self._kept, "client", None)
        if client is None:
            client = Connection(self._seconds, self._tls if self._url.scheme == "smtps" else None)
            self._kept.client = client
        return client

    def _ready(self, client: Connection) -> None:
        if client.sock is not None:
            with contextlib.suppress(smtplib.SMTPServerDisconnected, OSError):
                if client.noop()[0] < PERMANENT:
                    return
            client.close()
        client.open(self._url.hostname or "localhost", self._url.port or DEFAULT_PORTS[self._url.scheme])
        if self._url.scheme == "smtp+starttls":
            client.starttls(context=self._tls)
        if self._url.username:
            client.login(unquote(self._url.username), unquote(self._url.password or ""))


def _failed(error: BaseException, *, is_late: bool) -> SendFailed:
    """Say what went wrong between the relay and us; only a refusal of the content itself is for good."""
    causes = list(_causes(error))
    if is_late or any(isinstance(one, TimeoutError) for one in causes):
        return SendFailed("the mail relay took too long", kind="time")
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes):
        return SendFailed("the mail relay's certificate was not accepted", kind="certificate")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return SendFailed(f"the mail relay cannot do it: {error}", kind="unsupported")
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= FIRST_REFUSAL:
        permanent = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= PERMANENT
        return _refused(error.smtp_code, error.smtp_error, permanent=permanent)
    return SendFailed(f"the mail relay failed: {type(error).__name__}", kind="connection")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(code: int, text: bytes | str, *, permanent: bool) -> SendFailed:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"the mail relay answered {code} {said[:100]}"
    return SendFailed(reason, permanent=permanent, kind="status", reply=Reply(code, said))
