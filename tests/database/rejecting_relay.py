"""A mail relay that knows nobody, and says so as Postfix does."""

from harness.memory_senders import MemoryMail
from lockbox.notifications.senders.protocol import OutgoingMail, Reply, SendFailed


class RefusingMail(MemoryMail):
    """Answers each mail with the address that it went to."""

    async def send(self, mail: OutgoingMail) -> None:
        said = f"5.1.1 <{mail.to_address}>: Recipient address rejected: User unknown"
        raise SendFailed(
            f"the mail relay answered 550 {said}",
            permanent=True,
            kind="status",
            reply=Reply(550, said),
        )
