"""The protocol of senders: their arguments and their errors.

A sender sends several mails or calls at once in one event loop; every `send` ends within SEND_SECONDS.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from lockbox.notifications.circuit_breaker import PeerResponse

SEND_SECONDS = 10.0
SILENT = frozenset({"time", "connection", "certificate", "name"})


@dataclass(frozen=True)
class Reply:
    """`text` is the beginning of the answer."""

    status: int | None = None
    text: str = ""


NOTHING = Reply()


class SendFailed(Exception):  # noqa: N818 - it is an outcome that callers plan for
    """A mail or call did not arrive.

    `permanent` means that another try with the same recipient is pointless, `gone` means that the recipient wants no
    more mails or calls at all. `kind` is a code for the log. `wait` is the wait that the other side asked for.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool = False,
        gone: bool = False,
        kind: str = "failed",
        reply: Reply = NOTHING,
        wait: timedelta | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent or gone
        self.gone = gone
        self.kind = kind
        self.reply = reply
        self.wait = wait

    @property
    def said(self) -> PeerResponse:
        """Whether the other side answered (with any status) or did not; a fault of our own is neither."""
        if self.reply.status is not None:
            return PeerResponse.ANSWER
        return PeerResponse.SILENCE if self.kind in SILENT else PeerResponse.NOTHING


@dataclass(frozen=True)
class OutgoingMail:
    """One mail to one person; `message_id` is the same for every attempt, so that mailboxes can drop duplicates.

    `list_id` is the same for all mails about one tenant's requests, or about accounts.
    """

    message_id: str
    to_name: str
    to_address: str
    subject: str
    text: str
    html: str
    thread_id: str
    list_id: str


@dataclass(frozen=True)
class WebhookCall:
    """One webhook call; `hook_id` is the same for every attempt; each of `secrets` signs the call, the newest first.

    `is_vendors` is whether the vendor chose the URL, which may then be in a private network.
    """

    hook_id: str
    url: str
    body: bytes
    secrets: tuple[str, ...] = field(repr=False)
    is_vendors: bool = False


class MailSender(Protocol):
    async def send(self, mail: OutgoingMail) -> None:
        """Raises SendFailed."""

    async def close(self) -> None: ...


class WebhookSender(Protocol):
    async def send(self, hook: WebhookCall) -> Reply:
        """Raises SendFailed."""
