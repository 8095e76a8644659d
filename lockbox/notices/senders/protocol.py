"""What every sender takes and how it fails."""

from dataclasses import dataclass
from typing import Protocol

SEND_SECONDS = 10.0


class SendFailed(Exception):  # noqa: N818 - it is an outcome that callers plan for
    """It did not arrive. `permanent` means that another try with the same recipient is pointless."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent


@dataclass(frozen=True)
class Mail:
    """One mail to one person. `message_id` is the same for every try, so that a mailbox can tell a double."""

    message_id: str
    to_name: str
    to_address: str
    subject: str
    text: str
    html: str
    thread_id: str


@dataclass(frozen=True)
class Hook:
    """One webhook call. `hook_id` is the same for every try; `secret` signs it and is shown to nobody."""

    hook_id: str
    url: str
    body: bytes
    secret: str


class MailSender(Protocol):
    """Sends mail; every call ends within SEND_SECONDS."""

    def send(self, mail: Mail) -> None:
        """Hand the mail over, or raise SendFailed."""

    def close(self) -> None:
        """Give back what is held open."""


class HookSender(Protocol):
    """Calls webhooks; every call ends within SEND_SECONDS."""

    def send(self, hook: Hook) -> None:
        """Deliver the call, or raise SendFailed."""
