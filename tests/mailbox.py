"""Read the code of an invitation from the only place where it can be read: the invitation's mail."""

import re
from uuid import UUID

from lockbox.database import Database
from lockbox.notifications.senders.protocol import OutgoingMail
from tests.database.postbag import Postbag
from tests.database.scenes import read

CODE = re.compile(r"\b[A-Z2-7]{4}(?:-[A-Z2-7]{4}){7}\b")


def sent_about(worker: Database, about_id: UUID) -> list[OutgoingMail]:
    """Send the pending mails about an invitation or a delegation that are due, and return them."""
    query = "SELECT id FROM notifications WHERE about_id = :id AND closed_at IS NULL ORDER BY id"
    post = Postbag()
    post.deliver(worker, [row.id for row in read(worker, query, id=about_id)])
    return post.mail.sent


def code_of(worker: Database, invitation_id: UUID) -> str:
    """Send the mail of an invitation and return the code in it."""
    (mail,) = sent_about(worker, invitation_id)
    (code,) = CODE.findall(mail.text)
    return str(code)


def told(db: Database, event: str) -> dict[str, set[str]]:
    """Return for the id of each event of this kind who is notified: names of people, URLs of endpoints."""
    rows = read(
        db,
        """
        SELECT e.id, array_remove(array_agg(coalesce(p.name, h.url)), NULL) AS names
        FROM events e LEFT JOIN notifications n ON n.event_id = e.id AND n.about_id IS NULL
        LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
        WHERE e.action = :event GROUP BY e.id
        """,
        event=event,
    )
    return {str(row.id): set(row.names) for row in rows}
