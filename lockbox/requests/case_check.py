"""Have a ticket system say whether a case is open and the engineer's: the API writes a row, a worker answers it.

The worker calls the system's adapter, signed both ways. An answer counts for one request, and only that to its own
question: a trigger holds that. Who gets none in time is told what the policy says of a system that is down.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from standardwebhooks import Webhook, WebhookVerificationError

from config.service_catalogue import CaseSystem
from lockbox import safe_http
from lockbox.audit.canonical import instant
from lockbox.database import Database, UnitOfWork, arm_after_commit
from lockbox.errors import TooMany
from lockbox.failpoints import failpoint
from lockbox.identity import authentication
from lockbox.notifications.senders.protocol import WebhookCall
from lockbox.notifications.webhook import signed
from lockbox.requests.cases import CaseNotConfirmed, CaseQuestion, CaseSystemDown
from lockbox.requests.policy_parts import CaseCheck, UnconfirmedCase
from lockbox.safe_http import FetchFailed, FetchResponse
from lockbox.schedule import BEFORE_OTHERS, NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id

log = structlog.get_logger(__name__)

KIND = "case_check"
SECONDS = 3.0
"""How long the engineer waits, from the question on; the adapter has what is left of it."""
TO_RECORD = 0.1
"""How much of that is left for recording the answer, and for reading it."""
MOST_BYTES = 4096
TYPE = "case.check"
OK = 200
DOWN = "The ticket system could not be asked about the case. Try again, or submit once it answers."
CLOSED = "The ticket system says that this case is not open. Name an open one."
NOT_YOURS = "The ticket system says that this case is not assigned to the engineer. Have it assigned, and try again."

ASK = text("""
INSERT INTO case_checks (id, tenant_id, engineer_id, asked_by, case_system, case_ref)
VALUES (:id, :tenant_id, :engineer_id, :asked_by, :case_system, :case_ref)
""")
LATELY = text("""
SELECT count(*) FROM case_checks
WHERE asked_by = at_person() AND asked_at > clock_timestamp() - interval '1 minute'
""")
ANSWER = text("SELECT is_open, is_assigned FROM case_checks WHERE id = :id AND answered_at IS NOT NULL")
QUESTION = text("""
SELECT c.id, c.case_system, c.case_ref, c.engineer_id, p.email, t.slug AS tenant,
    extract(epoch FROM c.asked_at + CAST(:within AS interval) - clock_timestamp())::float AS seconds
FROM case_checks c JOIN people p ON p.id = c.engineer_id JOIN tenants t ON t.id = c.tenant_id
WHERE c.id = :id AND c.answered_at IS NULL
""")
RECORD = text("""
UPDATE case_checks SET answered_at = clock_timestamp(), is_open = :is_open, is_assigned = :is_assigned,
    failure = :failure
WHERE id = :id AND answered_at IS NULL
""")


class AdapterSilent(Exception):  # noqa: N818 - it is an outcome that is planned for
    """The adapter is not set up, or did not answer as it has to; the message is a word that says which."""


@dataclass(frozen=True)
class CaseAnswer:
    """Whether the case is open, and assigned to the engineer; both None where the adapter did not say."""

    is_open: bool | None = None
    is_assigned: bool | None = None


@dataclass(frozen=True)
class CaseAdapters:
    """The ticket systems with the addresses of their adapters, and the secret that signs calls and answers.

    With `allow_http` they may be on this machine, without TLS.
    """

    systems: Mapping[str, CaseSystem]
    secret: str | None
    allow_http: bool = False


def ask(session: UnitOfWork, question: CaseQuestion, most: int) -> UUID:
    """Write the question for a worker, and return its id; `most` is how many one person may ask in a minute.

    Raises:
        TooMany: so many were asked.
    """
    number = new_id()
    authentication.enter(session, question.caller)
    if session.execute(LATELY).scalar_one() >= most:
        raise TooMany(f"At most {most} cases a minute can be checked for you. Wait and try again.", retry_after=60)
    authentication.turn_to(session, question.tenant_id)
    session.write(
        ASK,
        {
            "id": number,
            "tenant_id": question.tenant_id,
            "engineer_id": question.engineer_id,
            "asked_by": question.caller.person_id,
            "case_system": question.case_system,
            "case_ref": question.case_ref,
        },
    )
    arm_after_commit(session, NOTIFICATIONS, [IndexEntry(str(number), KIND, -BEFORE_OTHERS)])
    return number


def read(session: UnitOfWork, number: UUID, question: CaseQuestion) -> CaseAnswer | None:
    """Return the answer to a question, None while there is none."""
    values = {"id": number}
    session.foresee([(ANSWER, values)])
    authentication.enter(session, question.caller)
    row = session.execute(ANSWER, values).one_or_none()
    return CaseAnswer(row.is_open, row.is_assigned) if row else None


def judged(answer: CaseAnswer | None, demand: UnconfirmedCase) -> CaseCheck:
    """Return whether the case of a submission is confirmed.

    Raises:
        CaseNotConfirmed: the case is not open, or not assigned to the engineer.
        CaseSystemDown: nobody has said so, and the policy refuses what is not confirmed.
    """
    if answer is None or answer.is_open is None:
        if demand is UnconfirmedCase.REFUSE:
            raise CaseSystemDown(DOWN, field="case_ref")
        return CaseCheck.UNCONFIRMED
    if not answer.is_open or not answer.is_assigned:
        raise CaseNotConfirmed(NOT_YOURS if answer.is_open else CLOSED, field="case_ref")
    return CaseCheck.CONFIRMED


def run(database: Database, number: UUID, adapters: CaseAdapters) -> str:
    """Ask the adapter, and record once what it says; return that in a word. Nothing is locked meanwhile.

    A question that somebody has answered, or for whose answer nobody waits any more, is `skipped`.
    """
    settled = [IndexEntry(str(number), KIND, None)]
    with database.transaction() as session:
        row = session.execute(QUESTION, {"id": number, "within": f"{SECONDS - TO_RECORD} s"}).one_or_none()
        if row is None or row.seconds <= 0:
            arm_after_commit(session, NOTIFICATIONS, settled)
            return "skipped"
    failpoint("case_check.before_call")
    answer, failure = _answered(row, adapters)
    failpoint("case_check.after_answer")
    with database.transaction() as session:
        session.execute(RECORD, {"id": number, **vars(answer), "failure": failure})
        arm_after_commit(session, NOTIFICATIONS, settled)
    failpoint("case_check.after_record")
    return "failed" if failure else "confirmed" if answer.is_open and answer.is_assigned else "refused"


def _answered(row: Row[Any], adapters: CaseAdapters) -> tuple[CaseAnswer, str | None]:
    """Return what the adapter says, or a word for why it says nothing."""
    try:
        return asyncio.run(_asked(row, adapters)), None
    except AdapterSilent as silent:
        log.warning("case_check.failed", system=row.case_system, failure=str(silent))
        return CaseAnswer(), str(silent)


async def _asked(row: Row[Any], adapters: CaseAdapters) -> CaseAnswer:
    """Return what the adapter says.

    Raises:
        AdapterSilent: it says nothing that counts.
    """
    system = adapters.systems.get(row.case_system)
    if system is None or system.adapter is None or adapters.secret is None:
        raise AdapterSilent("no_adapter")
    at, number = datetime.fromtimestamp(int(time.time()), tz=UTC), str(row.id)
    question = {
        "tenant": row.tenant,
        "case_system": row.case_system,
        "case_ref": row.case_ref,
        "engineer": {"id": str(row.engineer_id), "email": row.email},
    }
    body = json.dumps({"id": number, "type": TYPE, "timestamp": instant(at), "data": question}).encode()
    call = WebhookCall(hook_id=number, url=system.adapter, body=body, secrets=(adapters.secret,))
    try:
        answer = await safe_http.post(
            call.url,
            body,
            signed(call, at),
            most_bytes=MOST_BYTES,
            seconds=row.seconds,
            allow_loopback=adapters.allow_http,
        )
    except FetchFailed as failed:
        raise AdapterSilent(failed.trouble.value) from None
    return _verified(adapters.secret, number, answer)


def _verified(secret: str, number: str, answer: FetchResponse) -> CaseAnswer:
    if answer.status != OK:
        raise AdapterSilent("status")
    if answer.signed.get("webhook-id") != number:
        raise AdapterSilent("another_question")
    try:
        said = Webhook(secret).verify(answer.body, dict(answer.signed))
    except (WebhookVerificationError, ValueError):
        raise AdapterSilent("not_signed") from None
    match said:
        case {"open": bool(is_open), "assigned": bool(is_assigned)}:
            return CaseAnswer(is_open, is_assigned)
    raise AdapterSilent("unreadable")
