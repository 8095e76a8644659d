"""Senders that keep what they are given in memory: real ones, for tests and dry runs."""

from lockbox.notifications.senders.protocol import Hook, Mail, Reply, SendFailed


class MemoryMail:
    """Keeps mails; addresses in `refused` fail."""

    def __init__(self) -> None:
        self.sent: list[Mail] = []
        self.refused: dict[str, SendFailed] = {}

    def send(self, mail: Mail) -> None:
        """Keep the mail, or fail as told."""
        if failure := self.refused.get(mail.to_address):
            raise failure
        self.sent.append(mail)

    def close(self) -> None:
        """Hold nothing open."""


class MemoryHooks:
    """Keeps webhook calls; URLs in `refused` fail."""

    def __init__(self) -> None:
        self.sent: list[Hook] = []
        self.refused: dict[str, SendFailed] = {}

    def send(self, hook: Hook) -> Reply:
        """Keep the call, or fail as told."""
        if failure := self.refused.get(hook.url):
            raise failure
        self.sent.append(hook)
        return Reply(204)
