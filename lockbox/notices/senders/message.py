"""A mail as a message (RFC 5322): text and HTML in one, in one thread a request, marked as sent by a machine.

The email package parses each header that it is given and makes a class for it: three of four milliseconds of a mail.
So what is the same in all mails is made once, and a header that is ready is taken as it is.
"""

import quopri
import secrets
from email.headerregistry import Address, BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from lockbox.notices.senders.protocol import Mail


class _Registry(HeaderRegistry):
    """Makes the class of each header once."""

    def __init__(self) -> None:
        super().__init__()
        self._classes: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        if name not in self._classes:
            self._classes[name] = super().__getitem__(name)
        return self._classes[name]


POLICY = SMTP.clone(header_factory=_Registry())


def _made(name: str, value: str) -> Any:  # noqa: ANN401 - a class that is made from the header's name
    _, header = POLICY.header_store_parse(name, value)
    return header


VERSION = _made("MIME-Version", "1.0")
AUTOMATIC = _made("Auto-Submitted", "auto-generated")
ENCODING = _made("Content-Transfer-Encoding", "quoted-printable")
TEXT = _made("Content-Type", 'text/plain; charset="utf-8"')
HTML = _made("Content-Type", 'text/html; charset="utf-8"')


def compose(mail: Mail, sender: str) -> EmailMessage:
    """Return the message; `Auto-Submitted` is RFC 3834's, which keeps machines from answering.

    Args:
        mail: what it says, and to whom.
        sender: the From header.

    Raises:
        ValueError: a header would hold a line break, or the address is not one.
    """
    local, _, domain = mail.to_address.rpartition("@")
    message = EmailMessage(policy=POLICY)
    message["From"] = _from(sender)
    message["To"] = Address(mail.to_name, local, domain)
    message["Subject"] = mail.subject
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = mail.message_id
    message["In-Reply-To"] = message["References"] = mail.thread_id
    message["Auto-Submitted"] = AUTOMATIC
    message["MIME-Version"] = VERSION
    message["Content-Type"] = f'multipart/alternative; boundary="{_boundary()}"'
    message.set_payload([_part(TEXT, mail.text), _part(HTML, mail.html)])
    return message


def _boundary() -> str:
    """Return what ends a part: nobody can know it, and no quoted-printable text holds its "=_" (RFC 2045, 6.7).

    Either would do as long as the mail stays as it was sent; a relay may write its parts anew.
    """
    return f"=_{secrets.token_hex(12)}"


@lru_cache(maxsize=8)
def _from(sender: str) -> Any:  # noqa: ANN401 - as above
    return _made("From", sender)


def _part(kind: Any, body: str) -> EmailMessage:  # noqa: ANN401 - as above
    part = EmailMessage(policy=POLICY)
    part["Content-Type"] = kind
    part["Content-Transfer-Encoding"] = ENCODING
    lines = b"".join(line + b"\n" for line in body.encode().splitlines())
    part.set_payload(quopri.encodestring(lines).decode("ascii"))
    return part
