"""Senders that keep what they are given, in the place of a mail relay and of webhook receivers."""

from lockbox.notifications.senders.protocol import OutgoingMail, Reply, SendFailed, WebhookCall


class MemoryMail:
    """Keeps mails; addresses in `refused` fail."""

    def __init__(self) -> None:
        self.sent: list[OutgoingMail] = []
        self.refused: dict[str, SendFailed] = {}

    async def send(self, mail: OutgoingMail) -> None:
        """Keep the mail, or fail as told."""
        if failure := self.refused.get(mail.to_address):
            raise failure
        self.sent.append(mail)

    async def close(self) -> None:
        """Hold nothing open."""


class MemoryWebhooks:
    """Keeps webhook calls; URLs in `refused` fail."""

    def __init__(self) -> None:
        self.sent: list[WebhookCall] = []
        self.refused: dict[str, SendFailed] = {}

    async def send(self, hook: WebhookCall) -> Reply:
        """Keep the call, or fail as told."""
        if failure := self.refused.get(hook.url):
            raise failure
        self.sent.append(hook)
        return Reply(204)
