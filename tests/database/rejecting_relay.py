"""A mail relay that rejects every recipient, in the words of Postfix."""

from harness.memory_senders import MemoryMail
from lockbox.notifications.senders.protocol import OutgoingMail, Reply, SendFailed


class RefusingMail(MemoryMail):
    """Rejects each mail with an answer that contains the recipient's address."""

    async def send(self, mail: OutgoingMail) -> None:
        said = f"5.1.1 <{mail.to_address}>: Recipient address rejected: User unknown"
        raise SendFailed(
            f"the mail relay answered 550 {said}",
            permanent=True,
            kind="status",
            reply=Reply(550, said),
        )
