"""The delivery status of a request's notifications: counts by outcome, and the notifications of the reader's side."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import Query, UnitOfWork
from lockbox.identity.roles import Side
from lockbox.notifications import mail_text
from lockbox.notifications.audience import ASKING, knows_of
from lockbox.notifications.mail_text import counted

# A person with several notifications counts once, and as reached if one of them arrived or the person answered.
# People who have left no longer count as potential approvers. LATERAL makes Postgres go from the requests to their
# notifications; a plan made while the tables were small begins with the notifications of all requests.
REACHED = """
WITH q AS ({asked}), notified AS (
    SELECT q.id, n.person_id, coalesce(n.outcome, 'open') AS outcome
    FROM q CROSS JOIN LATERAL (SELECT e.id FROM events e WHERE e.request_id = q.id OFFSET 0) e
    CROSS JOIN LATERAL (SELECT n.person_id, n.template, n.outcome FROM notifications n
        WHERE n.event_id = e.id AND n.person_id IS NOT NULL OFFSET 0) n
    JOIN unnest(CAST(:templates AS text[]), CAST(:asking AS text[])) AS k (template, stage)
        ON k.template = n.template AND k.stage = q.stage
    UNION ALL
    SELECT q.id, a.person_id, 'open' FROM q JOIN outbox o ON o.request_id = q.id
    JOIN unnest(CAST(:templates AS text[]), CAST(:asking AS text[])) AS k (template, stage)
        ON k.template = o.template AND k.stage = q.stage
    CROSS JOIN unnest(o.asked) AS a (person_id)
    UNION ALL
    SELECT q.id, d.person_id, 'sent' FROM q JOIN decisions d ON d.request_id = q.id
        AND d.decision = CASE q.stage WHEN 'pending' THEN 'approve' ELSE 'endorse' END
), people AS (
    SELECT t.id, t.person_id, bool_or(t.outcome = 'sent') AND is_still_there(t.person_id, r.tenant_id, q.stage)
        AS is_reached, bool_or(t.outcome = 'open') AS is_open, bool_or(t.outcome = 'dead') AS is_dead
    FROM notified t JOIN q ON q.id = t.id JOIN requests r ON r.id = t.id
    GROUP BY t.id, t.person_id, r.tenant_id, q.stage
)
SELECT q.id, q.stage, count(p.person_id) AS asked, count(*) FILTER (WHERE p.is_reached) AS reached,
    count(*) FILTER (WHERE p.is_open AND NOT p.is_reached) AS waiting,
    count(*) FILTER (WHERE p.is_dead AND NOT p.is_reached AND NOT p.is_open) AS unreached,
    coalesce(array_agg(p.person_id) FILTER (WHERE p.person_id IS NOT NULL), '{{}}') AS people
FROM q LEFT JOIN people p ON p.id = q.id GROUP BY q.id, q.stage
"""
OF_REQUESTS = text(
    REACHED.format(asked="SELECT id, stage FROM unnest(CAST(:ids AS uuid[]), CAST(:stages AS text[])) q (id, stage)")
)
# A request that no longer waits for an answer is in its last stage.
OF_ONE = text(
    REACHED.format(
        asked="SELECT id, CASE WHEN state = 'reviewing' OR asked_at IS NULL THEN 'reviewing' ELSE 'pending' END "
        "AS stage FROM requests WHERE id = :id"
    )
)
STAGES = [(template, stage) for stage, templates in ASKING.items() for template in templates]
"""The templates of mails that ask for an answer, each with the stage in which it asks."""
COUNT = text("""
SELECT t.outcome, sum(t.number) AS number FROM (
    SELECT coalesce(n.outcome, 'waiting') AS outcome, count(*) AS number
    FROM events e JOIN notifications n ON n.event_id = e.id WHERE e.request_id = :request_id GROUP BY 1
    UNION ALL
    SELECT 'waiting', greatest(cardinality(o.asked), 1) FROM outbox o WHERE o.request_id = :request_id
) t GROUP BY 1
""")
# Row-level security hides people, endpoints, addresses and observers of the other side, except the vendor's people.
READ = text("""
SELECT n.id, n.channel, n.template, e.at AS event_at, coalesce(n.outcome, 'waiting') AS outcome, n.attempts,
    CASE WHEN n.closed_at IS NULL THEN n.run_at END AS next_try_at, n.closed_at, n.last_error,
    n.endpoint_id, n.observer_id, coalesce(p.name, w.name) AS name, p.side,
    CASE WHEN n.address_id IS NULL THEN coalesce(p.email, w.email) ELSE x.email END AS address,
    h.id AS own_endpoint_id, h.description, h.url,
    d.at AS tried_at, d.took_ms, d.status, d.error
FROM events e JOIN notifications n ON n.event_id = e.id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN addresses x ON x.id = n.address_id LEFT JOIN observers w ON w.id = n.observer_id
LEFT JOIN LATERAL (SELECT v.at, v.took_ms, v.status, v.error FROM deliveries v WHERE v.notification_id = n.id
    ORDER BY v.id DESC LIMIT 1) d ON true
WHERE e.request_id = :request_id ORDER BY n.id
""")
FAILED = text("""
SELECT DISTINCT e.request_id, p.name FROM events e JOIN notifications n ON n.event_id = e.id
JOIN people p ON p.id = n.person_id
WHERE e.request_id = ANY(:ids) AND n.outcome = 'dead' AND p.side = :side
    AND NOT EXISTS (SELECT FROM notifications o
        WHERE o.event_id = e.id AND o.person_id = n.person_id AND o.outcome = 'sent')
ORDER BY 2
""")


@dataclass(frozen=True)
class DeliveryReach:
    """How many of the people asked were reached, are still being tried, or could not be reached.

    The rest have left, or no longer had to be notified. `people` are all who were asked.
    """

    stage: str
    asked: int
    reached: int
    waiting: int
    unreached: int
    people: frozenset[UUID] = frozenset()

    @property
    def nobody(self) -> bool:
        """Whether no one was reached, and no one is still being tried."""
        return not self.reached and not self.waiting

    def sentence(self) -> str:
        """Such as "Two of three approvers could not be reached."; empty if `unreached` is 0."""
        if not self.unreached:
            return ""
        if self.unreached == self.asked:
            said = undelivered_sentence(self.stage, self.asked)
            return f"{said[0].upper()}{said[1:]}."
        said = mail_text.SOME_NOT_REACHED.format(
            unreached=number(self.unreached), asked=number(self.asked), whom=mail_text.ASKED[self.stage][1]
        )
        if self.waiting:
            said = counted(mail_text.STILL_TRIED, self.waiting, sentence=said, count=number(self.waiting))
        return f"{said[0].upper()}{said[1:]}."

    def of_the_past(self) -> "DeliveryReach":
        """Return the final reach of the stage: everyone who was not reached counts as unreached."""
        return DeliveryReach(self.stage, self.asked, self.reached, 0, self.asked - self.reached, self.people)


def of_requests(session: UnitOfWork, stages: Mapping[UUID, str]) -> dict[UUID, DeliveryReach]:
    values = {"ids": list(stages), "stages": list(stages.values()), **_asking()}
    rows = session.execute(OF_REQUESTS, values) if stages else ()
    return {row.id: _reach(row) for row in rows}


def _asking() -> dict[str, list[str]]:
    return {"templates": [template for template, _ in STAGES], "asking": [stage for _, stage in STAGES]}


def _reach(row: Row[Any]) -> DeliveryReach:
    return DeliveryReach(row.stage, row.asked, row.reached, row.waiting, row.unreached, frozenset(row.people))


def undelivered_sentence(stage: str, asked: int) -> str:
    said = (mail_text.NOBODY_TO_ASK, mail_text.ONE_NOT_REACHED, mail_text.NONE_REACHED)[min(asked, 2)]
    one, several = mail_text.ASKED[stage]
    return said.format(asked=number(asked), whom=several if asked > 1 else one)


def number(count: int) -> str:
    return mail_text.NUMBERS[count] if count < len(mail_text.NUMBERS) else f"{count:,}"


def ahead_of_reach(request_id: UUID) -> Query:
    return OF_ONE, {"id": request_id, **_asking()}


def reach_of_request(session: UnitOfWork, request_id: UUID, state: str) -> DeliveryReach:
    """Return the reach of one request in its present stage, or in the last stage that waited for answers."""
    found = _reach(session.execute(*ahead_of_reach(request_id)).one())
    return found.of_the_past() if state == "timed_out" else found


@dataclass(frozen=True)
class LastAttempt:
    """The last attempt of a notification; `error` is a code, null if the notification arrived."""

    at: datetime
    took_ms: int
    status: int | None
    error: str | None


@dataclass(frozen=True)
class NotificationStatus:
    """A notification to someone on the reader's own side; `outcome` is `waiting`, `sent`, `moot` or `dead`.

    `address` is the mail address, null for a webhook or if the address is no longer known. `copied` is whether the
    recipient is an observer.
    """

    id: UUID
    recipient: str
    address: str | None
    copied: bool
    channel: str
    template: str
    event_at: datetime
    outcome: str
    attempts: int
    next_try_at: datetime | None
    closed_at: datetime | None
    last_error: str | None
    last_try: LastAttempt | None


@dataclass(frozen=True)
class NotificationProgress:
    """The notifications of the reader's own side, oldest first, and counts for the other side."""

    own: Sequence[NotificationStatus]
    other: Mapping[str, int]


def count(session: UnitOfWork, request_id: UUID) -> dict[str, int]:
    """Count a request's notifications by outcome.

    An event in the outbox counts as waiting: once for each person that it asks, or once if it asks no one.
    """
    rows = session.execute(COUNT, {"request_id": request_id})
    return {row.outcome: int(row.number) for row in rows}


def unreached_people(session: UnitOfWork, request_ids: Sequence[UUID], side: Side) -> dict[UUID, list[str]]:
    """Return for each request the people of one side who did not get a mail about it."""
    found = defaultdict[UUID, list[str]](list)
    if request_ids:
        for row in session.execute(FAILED, {"ids": list(request_ids), "side": side.value}):
            found[row.request_id].append(row.name)
    return found


def of_request(session: UnitOfWork, request_id: UUID, side: Side) -> NotificationProgress:
    """Return a request's notifications. The calling function has checked that the reader may know of the request."""
    rows = session.execute(READ, {"request_id": request_id}).all()
    own = [_notification_status(row) for row in rows if _side(row, side) is side]
    other = [row for row in rows if _side(row, side) is not side and knows_of(side, None, row.template)]
    return NotificationProgress(own, Counter(row.outcome for row in other))


def _side(row: Row[Any], reader: Side) -> Side:
    """Return a notification's side.

    If row-level security hides the recipient, a person belongs to the customer, and an endpoint to the other side.
    """
    if row.endpoint_id is None:
        return Side.VENDOR if row.side == Side.VENDOR else Side.CUSTOMER
    other = Side.CUSTOMER if reader is Side.VENDOR else Side.VENDOR
    return reader if row.own_endpoint_id else other


def _notification_status(row: Row[Any]) -> NotificationStatus:
    place = row.description or (urlsplit(row.url).hostname if row.url else None)
    return NotificationStatus(
        id=row.id,
        recipient=(place if row.endpoint_id else row.name) or mail_text.FORMER,
        address=row.address,
        copied=row.observer_id is not None,
        channel=row.channel,
        template=row.template,
        event_at=row.event_at,
        outcome=row.outcome,
        attempts=row.attempts,
        next_try_at=row.next_try_at,
        closed_at=row.closed_at,
        last_error=row.last_error,
        last_try=LastAttempt(row.tried_at, row.took_ms, row.status, row.error) if row.tried_at else None,
    )
