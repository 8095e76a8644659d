"""The case of a submission: its ticket system, its page, and the ticket system's answer about it.

The API writes a question as a row, and a worker calls the adapter of the ticket system. Both call and answer are
signed. An answer counts only for its own question and for one request; a database trigger enforces this. Without an
answer in time, the policy's term for a ticket system that is down applies.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlmodel import Field, SQLModel
from standardwebhooks import Webhook, WebhookVerificationError

from catalogue.service_catalogue import CaseSystem
from config.outbound import OutboundRoute
from lockbox import safe_http
from lockbox.audit.canonical import instant
from lockbox.database import Database, UnitOfWork, arm_after_commit
from lockbox.errors import Busy, Conflict, Invalid, TooMany
from lockbox.facts.enumerations import CaseCheck
from lockbox.failpoints import failpoint
from lockbox.identity import authentication
from lockbox.identity.roles import Caller
from lockbox.notifications.circuit_breaker import NotSent, PeerResponse, host_of
from lockbox.notifications.senders.protocol import SILENT, WebhookCall
from lockbox.notifications.sending_pool import ChannelPool
from lockbox.notifications.webhook import signed
from lockbox.requests.policy_parts import UnconfirmedCase
from lockbox.requests.request_input import RequestInput
from lockbox.safe_http import FetchFailed, FetchResponse
from lockbox.schedule import BEFORE_OTHERS, NOTIFICATIONS, IndexEntry
from lockbox.sql import Instant, insert, new_id

DUPLICATE = (
    "You have an open request for this case and one of these resources. Follow that one, or say in "
    "`duplicate_reason` why you need another one: the approvers read it."
)
UNCHECKED = "The ticket system has to confirm the case first: submit a new request."


class DuplicateRequest(Conflict):
    """The engineer has an open request, `request_id`, for the same case and resource; another one needs a reason."""

    code = "duplicate-request"


@dataclass(frozen=True)
class CaseQuestion:
    """`caller` is the submitter."""

    tenant_id: UUID
    case_system: str | None
    case_ref: str
    engineer_id: UUID
    caller: Caller


class CaseCheckRow(SQLModel, table=True):
    """`request_id` is the request for which the answer was used."""

    __tablename__ = "case_checks"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    engineer_id: UUID = Field(foreign_key="people.id")
    asked_by: UUID = Field(foreign_key="people.id")
    case_system: str = Field(max_length=63)
    case_ref: str = Field(max_length=100)
    asked_at: datetime = Field(sa_type=Instant)
    answered_at: datetime | None = Field(default=None, sa_type=Instant)
    is_open: bool | None = None
    is_assigned: bool | None = None
    failure: str | None = Field(default=None, max_length=24)
    request_id: UUID | None = Field(default=None, foreign_key="requests.id", unique=True)


class CaseUnchecked(Invalid):
    """The policy demands that the ticket system confirms the case, and the ticket system has not been asked yet.

    The caller of `submit` must get the ticket system's answer, outside a transaction, and submit again.
    """

    def __init__(self, question: CaseQuestion, demand: UnconfirmedCase) -> None:
        super().__init__(UNCHECKED, field="case_ref")
        self.question = question
        self.demand = demand


class CaseNotConfirmed(Invalid):
    """The ticket system says that the case is not open, or not assigned to the engineer."""

    code = "case-not-confirmed"


class CaseSystemDown(Busy):
    """The ticket system could not be asked about the case, and the policy demands its confirmation."""

    code = "case-system-down"


def in_its_system(submission: RequestInput, systems: Mapping[str, CaseSystem]) -> RequestInput:
    """A single configured ticket system is the default. Raises Invalid."""
    if submission.case_ref is None:
        raise Invalid("Name the case too.", field="case_ref")
    if submission.case_url and not systems:
        raise Invalid("No ticket system is configured. Remove the page of the case.", field="case_url")
    only = next(iter(systems)) if len(systems) == 1 else ""
    named = submission.case_system or only
    system = systems.get(named)
    if system is None:
        choice = (
            f"Choose one of {', '.join(sorted(systems))}." if systems else "The catalogue has none: leave it out."
        )
        said = "There is no such ticket system." if named else "Name the ticket system of this page."
        raise Invalid(f"{said} {choice}", field="case_system")
    if submission.case_url and not submission.case_url.startswith(system.address):
        raise Invalid(f"Pages of {system.title} begin with {system.address}", field="case_url")
    return submission.in_system(named)


CHANNEL = "case_check"
MOST_AT_ONCE = 8
LEAST_SECONDS = 1.0
"""An unanswered call that had less time than this does not count as a failure of the adapter."""
SPARE_SECONDS = 1.0
MOST_BYTES = 4096
TYPE = "case.check"
OK = 200


class AdapterSilent(Exception):  # noqa: N818 - it is an outcome that is planned for
    """The adapter is not set up, or gave no valid answer; the message is a code for the reason."""


@dataclass(frozen=True)
class CaseAnswer:
    is_open: bool | None = None
    is_assigned: bool | None = None


@dataclass(frozen=True)
class AdapterQuestion:
    """`seconds` is how long the submitter still waits for the answer."""

    number: UUID
    tenant: str
    case_system: str
    case_ref: str
    engineer_id: UUID
    email: str
    seconds: float

    def body(self, at: datetime) -> bytes:
        asked = {
            "tenant": self.tenant,
            "case_system": self.case_system,
            "case_ref": self.case_ref,
            "engineer": {"id": str(self.engineer_id), "email": self.email},
        }
        return json.dumps({"id": str(self.number), "type": TYPE, "timestamp": instant(at), "data": asked}).encode()


class AdapterCall:
    """`response` returns the adapter's answer or raises `AdapterSilent`."""

    def __init__(
        self,
        call: WebhookCall,
        headers: Mapping[str, str],
        seconds: float,
        *,
        allow_http: bool,
        route: OutboundRoute = safe_http.NO_WAY_ASIDE,
    ) -> None:
        self.response: Future[FetchResponse] = Future()
        self._call = call
        self._headers = headers
        self._until = time.monotonic() + seconds
        self._allow_http = allow_http
        self._route = route
        self._failure: Exception = AdapterSilent("time")
        self._answer: FetchResponse | None = None

    async def run(self) -> PeerResponse:
        left = self._until - time.monotonic()
        try:
            self._answer = await safe_http.post(
                self._call.url,
                self._call.body,
                self._headers,
                most_bytes=MOST_BYTES,
                seconds=left,
                allow_loopback=self._allow_http,
                route=self._route,
            )
        except FetchFailed as failed:
            self._failure = AdapterSilent(failed.trouble.value)
            is_silent = failed.trouble.value in SILENT and left >= LEAST_SECONDS
            return PeerResponse.SILENCE if is_silent else PeerResponse.NOTHING
        except Exception as error:  # noqa: BLE001 - the waiting caller raises it; the loop serves others after this
            self._failure = error
            return PeerResponse.NOTHING
        return PeerResponse.ANSWER

    def finish(self, recorded: Callable[[], None]) -> None:
        recorded()
        if self._answer:
            self.response.set_result(self._answer)
        else:
            self.response.set_exception(self._failure)

    def give_back(
        self,
        why: NotSent,
        seconds: float,  # noqa: ARG002 - the pool passes it
        others: "Sequence[AdapterCall]" = (),
    ) -> None:
        for one in (self, *others):
            one.response.set_exception(AdapterSilent(why))

    async def rest(self) -> None: ...


@dataclass(frozen=True)
class CaseAdapters:
    """`secret` signs calls and answers. `pool` has a circuit breaker for each host.

    `allow_http` permits adapters on this machine without TLS. `route` permits adapters in a private network.
    """

    systems: Mapping[str, CaseSystem]
    secret: str | None = field(repr=False)
    allow_http: bool = False
    route: OutboundRoute = safe_http.NO_WAY_ASIDE
    pool: ChannelPool = field(default_factory=lambda: ChannelPool(CHANNEL, MOST_AT_ONCE), repr=False)

    def ask(self, question: AdapterQuestion) -> CaseAnswer:
        """Raises AdapterSilent if there is no adapter or no valid answer, or if the circuit breaker is open."""
        system = self.systems.get(question.case_system)
        if system is None or system.adapter is None or self.secret is None:
            raise AdapterSilent("no_adapter")
        at, host = datetime.fromtimestamp(int(time.time()), tz=UTC), host_of(system.adapter)
        call = WebhookCall(str(question.number), system.adapter, question.body(at), (self.secret,))
        job = AdapterCall(call, signed(call, at), question.seconds, allow_http=self.allow_http, route=self.route)
        if self.pool.enter(host):
            raise AdapterSilent(self.pool.obstacle(host))
        self.pool.send(host, job)
        try:
            answer = job.response.result(question.seconds + SPARE_SECONDS)
        except TimeoutError:
            raise AdapterSilent("time") from None
        return _verified(self.secret, call.hook_id, answer)


def _verified(secret: str, number: str, answer: FetchResponse) -> CaseAnswer:
    if answer.status != OK:
        raise AdapterSilent("status")
    if answer.signed.get("webhook-id") != number:
        raise AdapterSilent("another_question")
    try:
        Webhook(secret).verify(answer.body, dict(answer.signed), json_parse=False)
    except (WebhookVerificationError, ValueError):
        raise AdapterSilent("not_signed") from None
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise AdapterSilent("unreadable") from None
    match said:
        case {"open": bool(is_open), "assigned": bool(is_assigned)}:
            return CaseAnswer(is_open, is_assigned)
    raise AdapterSilent("unreadable")


log = structlog.get_logger(__name__)

KIND = "case_check"
SECONDS = 3.0
"""How long the engineer waits for the answer; the adapter's call gets what is left of this time."""
TO_RECORD = 0.1
"""The part of `SECONDS` that is kept for recording and reading the answer."""
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
    """Write the question for a worker and return its id; a person may ask at most `most` questions in a minute.

    Raises TooMany.
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
    values = {"id": number}
    session.foresee([(ANSWER, values)])
    authentication.enter(session, question.caller)
    row = session.execute(ANSWER, values).one_or_none()
    return CaseAnswer(row.is_open, row.is_assigned) if row else None


def read_last(session: UnitOfWork, number: UUID, question: CaseQuestion) -> CaseAnswer | None:
    """If there is no answer, the question is withdrawn from the workers."""
    answer = read(session, number, question)
    if answer is None:
        _settle(session, number)
    return answer


def judged(answer: CaseAnswer | None, demand: UnconfirmedCase) -> CaseCheck:
    """Raises CaseNotConfirmed, CaseSystemDown."""
    if answer is None or answer.is_open is None:
        if demand is UnconfirmedCase.REFUSE:
            raise CaseSystemDown(DOWN, field="case_ref")
        return CaseCheck.UNCONFIRMED
    if not answer.is_open or not answer.is_assigned:
        raise CaseNotConfirmed(NOT_YOURS if answer.is_open else CLOSED, field="case_ref")
    return CaseCheck.CONFIRMED


def run(database: Database, number: UUID, adapters: CaseAdapters, *, may_wait: bool = True) -> str:
    """Ask the adapter and record its answer once; no lock is held during the call.

    Return `confirmed`, `refused` or `failed`; `skipped` if the question was already answered or its submitter no
    longer waits. Without `may_wait`, the adapter is not called, and the recorded failure is `busy`.
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
    failure = BUSY
    if may_wait:
        try:
            return adapters.ask(question), None
        except AdapterSilent as silent:
            failure = str(silent)
    log.warning("case_check.failed", system=question.case_system, failure=failure)
    return CaseAnswer(), failure
