"""Have a ticket system say whether a case is open and the engineer's: the API writes a row, a worker answers it.

The worker calls the system's adapter, signed both ways. An answer counts for one request, and only that to its own
question: a trigger holds that. Who gets none in time is told what the policy says of a system that is down.
"""

from uuid import UUID

import structlog
from sqlalchemy import text

from lockbox.database import Database, UnitOfWork, arm_after_commit
from lockbox.errors import TooMany
from lockbox.facts.enumerations import CaseCheck
from lockbox.failpoints import failpoint
from lockbox.identity import authentication
from lockbox.requests.case_adapter import AdapterQuestion, AdapterSilent, CaseAdapters, CaseAnswer
from lockbox.requests.cases import CaseCheckRow, CaseNotConfirmed, CaseQuestion, CaseSystemDown
from lockbox.requests.policy_parts import UnconfirmedCase
from lockbox.schedule import BEFORE_OTHERS, NOTIFICATIONS, IndexEntry
from lockbox.sql import insert, new_id

log = structlog.get_logger(__name__)

KIND = "case_check"
SECONDS = 3.0
"""How long the engineer waits, from the question on; the adapter has what is left of it."""
TO_RECORD = 0.1
"""How much of that is left for recording the answer, and for reading it."""
BUSY = "busy"
DOWN = "The ticket system could not be asked about the case. Try again, or submit once it answers."
CLOSED = "The ticket system says that this case is not open. Name an open one."
NOT_YOURS = "The ticket system says that this case is not assigned to the engineer. Have it assigned, and try again."

ANSWERED = {"answered_at", "is_open", "is_assigned", "failure"}
ASK = text(insert(CaseCheckRow, but={"asked_at", "request_id", *ANSWERED}))
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


def read_last(session: UnitOfWork, number: UUID, question: CaseQuestion) -> CaseAnswer | None:
    """Return the same for the last time: where there is no answer, no worker is told of the question any more."""
    answer = read(session, number, question)
    if answer is None:
        _settle(session, number)
    return answer


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


def run(database: Database, number: UUID, adapters: CaseAdapters, *, may_wait: bool = True) -> str:
    """Ask the adapter, and record once what it says; return that in a word. Nothing is locked meanwhile.

    A question that somebody has answered, or for whose answer nobody waits any more, is `skipped`. Without `may_wait`
    no adapter is called, and it is recorded that there was no room for that: whoever waits is told at once.
    """
    with database.transaction() as session:
        row = session.execute(QUESTION, {"id": number, "within": f"{SECONDS - TO_RECORD} s"}).one_or_none()
        if row is None or row.seconds <= 0:
            _settle(session, number)
            return "skipped"
    question = AdapterQuestion(
        row.id, row.tenant, row.case_system, row.case_ref, row.engineer_id, row.email, row.seconds
    )
    failpoint("case_check.before_call")
    answer, failure = _answered(question, adapters, may_wait=may_wait)
    failpoint("case_check.after_answer")
    with database.transaction() as session:
        session.execute(RECORD, {"id": number, **vars(answer), "failure": failure})
        _settle(session, number)
    failpoint("case_check.after_record")
    return "failed" if failure else "confirmed" if answer.is_open and answer.is_assigned else "refused"


def _settle(session: UnitOfWork, number: UUID) -> None:
    arm_after_commit(session, NOTIFICATIONS, [IndexEntry(str(number), KIND, None)])


def _answered(question: AdapterQuestion, adapters: CaseAdapters, *, may_wait: bool) -> tuple[CaseAnswer, str | None]:
    """Return what the adapter says, or a word for why it says nothing."""
    failure = BUSY
    if may_wait:
        try:
            return adapters.ask(question), None
        except AdapterSilent as silent:
            failure = str(silent)
    log.warning("case_check.failed", system=question.case_system, failure=failure)
    return CaseAnswer(), failure
