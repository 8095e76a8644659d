"""Mail over SMTP: plain, STARTTLS or SMTPS, with or without login, within a total deadline."""

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lockbox.notices.senders.protocol import SEND_SECONDS, Mail, Reply, SendFailed

WAIT_SECONDS = 5.0
PERMANENT = 500
DEFAULT_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


class SmtpMail:
    """Sends through one relay. Each thread keeps its connection until `close`, or until something goes wrong.

    Args:
        url: `smtp+starttls://user:password@host:587`, `smtps://…` or `smtp://…`; the login is optional.
        sender: the From header, such as `Lockbox <lockbox@vendor.example>`.
        ca_file: certificates to trust instead of the system's.
    """

    def __init__(self, url: str, *, sender: str, ca_file: Path | None = None) -> None:
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
            with _deadline(client):
                self._ready(client)
                client.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(*next(iter(error.recipients.values()))) from error
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            self.close()
            raise _refused(error.smtp_code, error.smtp_error) from error
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise SendFailed(f"the mail relay failed: {type(error).__name__}", kind="connection") from error

    def close(self) -> None:
        """Close this thread's connection to the relay."""
        client: smtplib.SMTP | None = getattr(self._kept, "client", None)
        self._kept.client = None
        if client is not None:
            client.close()

    def _client(self) -> smtplib.SMTP:
        client: smtplib.SMTP | None = getattr(self._kept, "client", None)
        if client is None:
            if self._url.scheme == "smtps":
                client = smtplib.SMTP_SSL(timeout=WAIT_SECONDS, context=self._tls)
            else:
                client = smtplib.SMTP(timeout=WAIT_SECONDS)
            self._kept.client = client
        return client

    def _ready(self, client: smtplib.SMTP) -> None:
        if client.sock is not None:
            with contextlib.suppress(smtplib.SMTPServerDisconnected, OSError):
                if client.noop()[0] < PERMANENT:
                    return
            client.close()
        host, port = self._url.hostname or "localhost", self._url.port or DEFAULT_PORTS[self._url.scheme]
        # connect() alone does not note the name that the certificate has to bear.
        client._host = host  # type: ignore[attr-defined] # noqa: SLF001 - smtplib sets it in __init__ only
        code, text = client.connect(host, port)
        if code >= 400:  # noqa: PLR2004 - RFC 5321: 4xx and 5xx are refusals
            raise smtplib.SMTPConnectError(code, text)
        if self._url.scheme == "smtp+starttls":
            client.starttls(context=self._tls)
        if self._url.username:
            client.login(unquote(self._url.username), unquote(self._url.password or ""))


def compose(mail: Mail, sender: str) -> EmailMessage:
    """Return the message: text and HTML, one thread a request, marked as sent by a machine (RFC 3834).

    Raises:
        ValueError: a header would hold a line break, or the address is not one.
    """
    local, _, domain = mail.to_address.rpartition("@")
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = sender
    message["To"] = Address(mail.to_name, local, domain)
    message["Subject"] = mail.subject
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = mail.message_id
    message["In-Reply-To"] = message["References"] = mail.thread_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


@contextlib.contextmanager
def _deadline(client: smtplib.SMTP) -> Iterator[None]:
    """Hang up after SEND_SECONDS: smtplib's own time-out starts anew with every byte that drips in."""
    watchdog = threading.Timer(SEND_SECONDS, _hang_up, [client])
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _hang_up(client: smtplib.SMTP) -> None:
    if client.sock is not None:
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)


def _refused(code: int, text: bytes | str) -> SendFailed:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"the mail relay answered {code} {said[:100]}"
    return SendFailed(reason, permanent=code >= PERMANENT, kind="status", reply=Reply(code, said))
