"""Senders that keep mails and webhook calls in memory."""

from lockbox.notifications.senders.protocol import OutgoingMail, Reply, SendFailed, WebhookCall


class MemoryMail:
    """Addresses in `refused` fail."""

    def __init__(self) -> None:
        self.sent: list[OutgoingMail] = []
        self.refused: dict[str, SendFailed] = {}

    async def send(self, mail: OutgoingMail) -> None:
        if failure := self.refused.get(mail.to_address):
            raise failure
        self.sent.append(mail)

    async def close(self) -> None: ...


class MemoryWebhooks:
    """URLs in `refused` fail."""

    def __init__(self) -> None:
        self.sent: list[WebhookCall] = []
        self.refused: dict[str, SendFailed] = {}

    async def send(self, hook: WebhookCall) -> Reply:
        if failure := self.refused.get(hook.url):
            raise failure
        self.sent.append(hook)
        return Reply(204)
