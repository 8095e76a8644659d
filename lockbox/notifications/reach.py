"""Reach: how many of the people who were asked have been told, in the stage in which a request stands or stood."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.notifications.audience import ASKING

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
WHOM = {"reviewing": "manager", "pending": "approver"}

# A person with several notices is one person, reached by any of them; whoever has answered was reached somehow. Who
# has left since cannot answer any more: they are nobody's hope. LATERAL leads from the requests to their notices: a
# plan that was made while the tables were small begins with the notices of everybody.
OF_REQUESTS = text("""
WITH q AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:stages AS text[])) AS q (id, stage)
), told AS (
    SELECT q.id, n.person_id, coalesce(n.outcome, 'open') AS outcome
    FROM q CROSS JOIN LATERAL (SELECT e.id FROM events e WHERE e.request_id = q.id OFFSET 0) e
    CROSS JOIN LATERAL (SELECT n.person_id, n.template, n.outcome FROM notices n
        WHERE n.event_id = e.id AND n.person_id IS NOT NULL OFFSET 0) n
    JOIN unnest(CAST(:templates AS text[]), CAST(:asking AS text[])) AS k (template, stage)
        ON k.template = n.template AND k.stage = q.stage
    UNION ALL
    SELECT q.id, d.person_id, 'sent' FROM q JOIN decisions d ON d.request_id = q.id
        AND d.verdict = CASE q.stage WHEN 'pending' THEN 'approve' ELSE 'endorse' END
), people AS (
    SELECT t.id, t.person_id, bool_or(t.outcome = 'sent') AND is_still_there(t.person_id, r.tenant_id, q.stage)
        AS is_reached, bool_or(t.outcome = 'open') AS is_open, bool_or(t.outcome = 'dead') AS is_dead
    FROM told t JOIN q ON q.id = t.id JOIN requests r ON r.id = t.id
    GROUP BY t.id, t.person_id, r.tenant_id, q.stage
)
SELECT q.id, count(p.person_id) AS asked, count(*) FILTER (WHERE p.is_reached) AS reached,
    count(*) FILTER (WHERE p.is_open AND NOT p.is_reached) AS waiting,
    count(*) FILTER (WHERE p.is_dead AND NOT p.is_reached AND NOT p.is_open) AS unreached,
    coalesce(array_agg(p.person_id) FILTER (WHERE p.person_id IS NOT NULL), '{}') AS people
FROM q LEFT JOIN people p ON p.id = q.id GROUP BY q.id
""")


@dataclass(frozen=True)
class Reach:
    """How many people were asked: of them some were reached, some are still being tried, and some could not be.

    What is left of `asked` no longer had to be told. `people` are all who were asked.
    """

    stage: str
    asked: int
    reached: int
    waiting: int
    unreached: int
    people: frozenset[UUID] = frozenset()

    @property
    def nobody(self) -> bool:
        """Whether not one person was told or still may be."""
        return not self.reached and not self.waiting

    def sentence(self) -> str:
        """Say how many could not be reached, such as "Two of three approvers could not be reached."; or nothing."""
        if not self.unreached:
            return ""
        if self.unreached == self.asked:
            said = in_vain(self.stage, self.asked)
            return f"{said[0].upper()}{said[1:]}."
        said = f"{number(self.unreached)} of {number(self.asked)} {WHOM[self.stage]}s could not be reached"
        still = f"; {number(self.waiting)} {'is' if self.waiting == 1 else 'are'} still being tried"
        return f"{said[0].upper()}{said[1:]}{still if self.waiting else ''}."

    def of_the_past(self) -> "Reach":
        """Return it as it is once the time is over: who had not been told by then could not be reached."""
        return Reach(self.stage, self.asked, self.reached, 0, self.asked - self.reached, self.people)


def of_requests(session: Session, stages: Mapping[UUID, str]) -> dict[UUID, Reach]:
    """Return the reach of each of these requests in that stage, `reviewing` or `pending`, by one query."""
    kinds = [(template, stage) for stage, templates in ASKING.items() for template in templates]
    values = {
        "ids": list(stages),
        "stages": list(stages.values()),
        "templates": [template for template, _ in kinds],
        "asking": [stage for _, stage in kinds],
    }
    rows = session.connection().execute(OF_REQUESTS, values) if stages else ()
    return {
        row.id: Reach(stages[row.id], row.asked, row.reached, row.waiting, row.unreached, frozenset(row.people))
        for row in rows
    }


def in_vain(stage: str, asked: int) -> str:
    """Say that nobody could be told of what was asked: who they would have been, and how many."""
    whom = WHOM[stage]
    if asked == 0:
        return f"there was no {whom} to ask"
    return (
        f"none of {number(asked)} {whom}s could be reached" if asked > 1 else f"the one {whom} could not be reached"
    )


def number(count: int) -> str:
    """Return a small number as a word."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def of_request(session: Session, request_id: UUID, state: str, *, customer_knows: bool) -> Reach:
    """Return the reach of one request in its present stage, or its last where it waits for nobody any more."""
    stage = "pending" if state != "reviewing" and customer_knows else "reviewing"
    found = of_requests(session, {request_id: stage})[request_id]
    return found.of_the_past() if state == "timed_out" else found
