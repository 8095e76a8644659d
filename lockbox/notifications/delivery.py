"""Deliver notifications: claim those that find a free slot, render them, send them, and record the results."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockbox.database import Database, async_commit
from lockbox.failpoints import failpoint
from lockbox.identity.keyring import CodeKeys
from lockbox.notifications import account_mail, fan_out, load, queue, request_mail, results, webhook
from lockbox.notifications.checkpoint_digest import Keys
from lockbox.notifications.circuit_breaker import PeerResponse
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.load import AccountNotification, Wordings
from lockbox.notifications.models import Outcome
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.queue import NotificationClaim, ReturnedClaim, Slot
from lockbox.notifications.request_mail import LoadedNotification, RequestMail
from lockbox.notifications.results import LONGEST_ERROR, TOO_LATE, AttemptResult, ClaimResult, ResultRecorder
from lockbox.notifications.senders.protocol import (
    NOTHING,
    SEND_SECONDS,
    MailSender,
    OutgoingMail,
    Reply,
    SendFailed,
    WebhookCall,
    WebhookSender,
)
from lockbox.notifications.sending_pool import LONGEST_IN_QUEUE, ChannelPool, SendingPool
from lockbox.notifications.webhook import WebhookTarget

log = structlog.get_logger(__name__)

LEASE = queue.LEASE
RECORD_SECONDS = 1.0
NO_ROOM = "not tried in time: its server does not answer, or takes too long"


class NotRecorded(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """It could not be written how sends went, or what to send; the claims on these stand until their leases end."""


@dataclass(frozen=True)
class Senders:
    """The ways out, and what every text needs to know; `sender` is the From header of mails.

    `wordings` looks up, for requests by id, what the customers' policies let a mail about them say, and `audit_keys`
    are those by which a checkpoint is believed; digests also name `approval_keys`, the public keys of approvals.
    `codes` make the codes that are mailed. `sending_pool` is where the sends of this process take turns, and
    `recorder` writes down how they went.
    """

    mail: MailSender
    hooks: WebhookSender
    vault: SecretVault
    public_url: str
    services: Mapping[str, str]
    wordings: Wordings
    sender: str
    audit_keys: Keys
    codes: CodeKeys
    approval_keys: tuple[str, ...] = ()
    sending_pool: SendingPool = field(default_factory=SendingPool)
    recorder: ResultRecorder = field(default_factory=ResultRecorder)


def deliver(database_: Database, ids: Iterable[UUID], senders: Senders) -> list[AttemptResult]:
    """Dispatch these notifications, wait until it is recorded, and return how each went that was not given back."""
    results = [one.result() for one in dispatch(database_, ids, senders)]
    return [one for one in results if one]


def notify(database_: Database, ids: Sequence[UUID], senders: Senders, stall: float = SEND_SECONDS) -> Counter[str]:
    """Dispatch these notifications and wait, for fifteen seconds at most, until how each went is recorded.

    What is not begun after four seconds, or once nothing has ended for so long as `stall` says, in seconds, is given
    back; with a short one what is on its way by then is not waited for.

    Returns:
        How many were `sent`, `moot` (nobody needs them any more), `dead` (given up) and `deferred` (their next try is
        promised); `unfinished` are still being sent, and promised after their lease; `skipped` were not due.

    Raises:
        NotRecorded: it could not be written how some of them went.
        sqlalchemy.exc.OperationalError: Postgres is away; nothing was sent.
    """
    batch = _dispatched(database_, ids, senders)
    goes_on = batch.wait(LONGEST_IN_QUEUE, stall)
    batch.withdraw()
    if goes_on:
        batch.wait(SEND_SECONDS, stall)
    senders.recorder.hasten()
    wait([job.recorded for job in batch.jobs if job.is_over], RECORD_SECONDS)
    counts = Counter(job.standing for job in batch.jobs)
    counts.update(deferred=batch.put_off, skipped=batch.skipped)
    if batch.failed:
        raise NotRecorded(f"{batch.failed} of {len(ids)} could not be claimed; they come again")
    if unrecorded := counts["unrecorded"]:
        raise NotRecorded(
            f"{unrecorded} of {len(ids)} results are not recorded; these are sent again after their lease"
        )
    return +counts


def dispatch(database_: Database, ids: Iterable[UUID], senders: Senders) -> "list[Future[AttemptResult | None]]":
    """Send those of the notifications that are due and find a slot; settle the schedule for all of them.

    A claim is a commit of its own that moves the next try past a lease; so nobody else sends meanwhile, and a
    process that dies leaves the notification to the next one. Nothing is locked while sending. At least once: the
    same Message-ID or webhook-id each time. Nobody waits here for a server: the loop of the sending pool does.

    Returns:
        For each notification that was claimed how it went, once that is recorded: None if it was given back untried.
    """
    return [job.recorded for job in _dispatched(database_, ids, senders).jobs]


def _dispatched(database_: Database, ids: Iterable[UUID], senders: Senders) -> "_DispatchedBatch":
    failpoint("notify.before_claim")
    batch = _claimed_apart(database_, sorted(set(ids)), senders)
    failpoint("notify.after_claim")
    senders.recorder.expect(len(batch.jobs))
    senders.recorder.record([ended for job in batch.jobs if (ended := job.without_sending())])
    for job in batch.jobs:
        job.set_out()
    return batch


def _claimed_apart(database_: Database, ids: Sequence[UUID], senders: Senders) -> "_DispatchedBatch":
    """Claim these; where that fails for a fault of ours, in halves, so that one bad row never holds the others."""
    try:
        return _claimed(database_, ids, senders)
    except (OperationalError, InterfaceError, PoolTimeout):
        raise
    except Exception as error:
        if len(ids) <= 1:
            log.exception("notification.not_claimed", ids=[str(one) for one in ids], error=type(error).__name__)
            return _DispatchedBatch([], failed=len(ids))
    middle = len(ids) // 2
    first, second = (_claimed_apart(database_, half, senders) for half in (ids[:middle], ids[middle:]))
    return _DispatchedBatch(
        first.jobs + second.jobs,
        first.put_off + second.put_off,
        first.skipped + second.skipped,
        first.failed + second.failed,
    )


def _claimed(database_: Database, ids: Sequence[UUID], senders: Senders) -> "_DispatchedBatch":
    promised: list[Slot] = []
    try:
        with database_.transaction() as session:
            async_commit(session)
            claims, at, put_off, skipped = fan_out.claim(session, ids, senders.sending_pool, promised)
            claimed = [one.notification_id for one in claims]
            if not claimed:
                return _DispatchedBatch([], put_off, skipped)
            loaded = {one.notification_id: one for one in load.read(session, claimed, at, senders.wordings)}
            targets = webhook.targets(session, claimed)
        began = senders.sending_pool.clock()
        jobs = [
            _NotificationSendJob(
                database_, senders, one, loaded[one.notification_id], targets.get(one.notification_id), at, began
            )
            for one in claims
        ]
        return _DispatchedBatch(jobs, put_off, skipped)
    except BaseException:
        for slot in promised:
            slot.leave()
        raise


@dataclass(frozen=True)
class _DispatchedBatch:
    """What was claimed of one message; how many found no room, were not due, or could not be claimed for a fault."""

    jobs: "list[_NotificationSendJob]"
    put_off: int = 0
    skipped: int = 0
    failed: int = 0

    def wait(self, seconds: float, stall: float) -> bool:
        """Wait that long until all is recorded; return False as soon as nothing has ended for as long as `stall`."""
        until, over = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            if not wait([job.recorded for job in self.jobs], min(left, stall)).not_done:
                break
            before, over = over, sum(job.is_over for job in self.jobs)
            if over == before and left > stall:
                return False
        return True

    def withdraw(self) -> None:
        """Give back what is not begun."""
        by_pool: dict[ChannelPool, list[_NotificationSendJob]] = {}
        for job in self.jobs:
            if job.claim.slot and not job.recorded.done():
                by_pool.setdefault(job.claim.slot.pool, []).append(job)
        for pool, jobs in by_pool.items():
            pool.withdraw(jobs)


@dataclass
class _NotificationSendJob:
    """A claimed notification in its slot; `at` is when it was claimed, `began` that by the pool's clock."""

    database: Database
    senders: Senders
    claim: NotificationClaim
    loaded: LoadedNotification
    target: WebhookTarget | None
    at: datetime
    began: float
    recorded: "Future[AttemptResult | None]" = field(default_factory=Future)
    parcel: OutgoingMail | WebhookCall | None = None
    fault: Exception | None = None
    result: AttemptResult | None = None
    died: BaseException | None = None
    is_returned: bool = False

    def without_sending(self) -> ClaimResult | None:
        """Return how it ended, where nothing is to be sent, and give its slot back."""
        one, slot = self.loaded, self.claim.slot
        if one.is_unreachable or (self.target is None and one.is_moot):
            ended = AttemptResult(one.notification_id, Outcome.MOOT, self.at)
        elif slot is None:
            why = TOO_LATE if self.at >= one.until_at else NO_ROOM
            ended = AttemptResult(one.notification_id, Outcome.DEAD, self.at, why)
        else:
            return None
        self.result = ended
        if slot:
            slot.leave()
        return ClaimResult(self.database, ended, self.recorded, self.lease_ends)

    def set_out(self) -> None:
        """Write what is to be sent, and queue it."""
        slot = self.claim.slot
        if slot is None or self.result is not None:
            return
        try:
            self.parcel = _parcel(self.database, self.loaded, self.target, self._now(), self.senders)
        except Exception as error:  # noqa: BLE001 - it is a failed try of this one alone
            self.fault = error
        slot.pool.send(slot.destination, self, urgent=slot.is_urgent)

    async def run(self) -> PeerResponse:
        """Send it."""
        try:
            self.result, said = await self._tried()
        except BaseException as error:  # noqa: BLE001 - the loop serves others after this
            self.died = error
            return PeerResponse.NOTHING
        return said

    def finish(self, then: Callable[[], None]) -> None:
        """Record how it went; what died half-way is left to its lease."""
        self.recorded.add_done_callback(lambda _: then())
        if self.result:
            self.senders.recorder.record([ClaimResult(self.database, self.result, self.recorded, self.lease_ends)])
        elif self.died:
            self.senders.recorder.drop()
            self.recorded.set_exception(self.died)

    def give_back(self, seconds: float, others: Sequence["_NotificationSendJob"] = ()) -> None:
        """Give up the claim, and those of others with it; the attempts do not count."""
        wait = timedelta(seconds=seconds)
        for one in (self, *others):
            one.is_returned = True
        back = [(one, ReturnedClaim(one.claim.notification_id, one.claim.lease, wait)) for one in (self, *others)]
        self.senders.recorder.record(
            [ClaimResult(one.database, returned, one.recorded, one.lease_ends) for one, returned in back]
        )

    async def rest(self) -> None:
        """Close the connections to the mail relay."""
        await self.senders.mail.close()

    async def _tried(self) -> tuple[AttemptResult, PeerResponse]:
        one, at = self.loaded, self._now()
        if at >= one.until_at:
            return AttemptResult(one.notification_id, Outcome.DEAD, at, TOO_LATE), PeerResponse.NOTHING
        endpoint_id = self.target.endpoint_id if self.target else None
        event_type = webhook.event_type(one.template, one.event_type if isinstance(one, RequestMail) else None)
        blank = DeliveryAttempt(one.notification_id, endpoint_id, event_type, at, timedelta(0))
        failpoint("notify.before_send")
        try:
            reply = await self._sent()
        except SendFailed as failure:
            return _failed(one, self._now(), failure, blank), failure.said
        except Exception as error:
            log.exception("notification.failed", notification_id=str(one.notification_id))
            return _failed(one, self._now(), SendFailed(type(error).__name__), blank), PeerResponse.NOTHING
        sent = replace(blank, took=self._now() - at, status=reply.status, answer=reply.text)
        return AttemptResult(one.notification_id, Outcome.SENT, at, attempt=sent), PeerResponse.ANSWER

    async def _sent(self) -> Reply:
        """Send it to its address or its endpoint.

        Raises:
            SendFailed: the server took it not.
        """
        if self.fault:
            raise self.fault
        if isinstance(self.parcel, WebhookCall):
            return await self.senders.hooks.send(self.parcel)
        if isinstance(self.parcel, OutgoingMail):
            await self.senders.mail.send(self.parcel)
        return NOTHING

    @property
    def is_over(self) -> bool:
        """Whether it has ended, though it need not be recorded yet."""
        return self.result is not None or self.is_returned or self.recorded.done()

    @property
    def standing(self) -> str:
        """How it stands, as `notify` counts it."""
        if not self.recorded.done():
            return "unrecorded" if self.result or self.is_returned else "unfinished"
        if self.recorded.exception():
            return "unrecorded"
        result = self.recorded.result()
        return result.outcome.value if result and result.outcome else "deferred"

    @property
    def lease_ends(self) -> float:
        """Until when nobody else sends it, by this process' monotonic clock."""
        return self.began + (self.claim.lease - self.at).total_seconds()

    def _now(self) -> datetime:
        """Return what the database's clock says by now, give or take what two clocks drift apart in a minute."""
        return self.at + timedelta(seconds=self.senders.sending_pool.clock() - self.began)


def _parcel(
    database_: Database, one: LoadedNotification, target: WebhookTarget | None, at: datetime, senders: Senders
) -> OutgoingMail | WebhookCall:
    """Return the mail or the call that a notification is.

    Raises:
        SendFailed: it cannot be made.
    """
    if isinstance(one, RequestMail):
        return _of_request(one, target, senders)
    if not isinstance(one, AccountNotification):
        raise TypeError(type(one).__name__)
    prepared = load.prepared(
        database_,
        one.row,
        at,
        senders.codes,
        senders.wordings,
        audit_keys=senders.audit_keys,
        approval_keys=senders.approval_keys,
    )
    if target is None:
        return account_mail.render(prepared, public_url=senders.public_url, sender=senders.sender)
    body = webhook.account_payload(prepared, target, public_url=senders.public_url)
    return webhook.call(one.notification_id, target, body, senders.vault)


def _of_request(mail: RequestMail, target: WebhookTarget | None, senders: Senders) -> OutgoingMail | WebhookCall:
    url, services = senders.public_url, senders.services
    if target is None:
        return request_mail.render(mail, public_url=url, services=services, sender=senders.sender)
    body = webhook.request_payload(mail, target, public_url=url, services=services)
    return webhook.call(mail.notification_id, target, body, senders.vault)


def _failed(one: LoadedNotification, at: datetime, failure: SendFailed, attempt: DeliveryAttempt) -> AttemptResult:
    log.warning(
        "notification.not_sent",
        notification_id=str(one.notification_id),
        channel=one.channel,
        attempts=one.attempts,
        error=failure.reason,
    )
    again = None if failure.permanent else results.retry_at(one.attempts, at, one.until_at, failure.wait)
    logged = replace(
        attempt,
        took=at - attempt.at,
        status=failure.reply.status,
        answer=failure.reply.text,
        error=failure.kind,
        is_gone=failure.gone,
    )
    outcome = Outcome.DEAD if again is None else None
    return AttemptResult(one.notification_id, outcome, again or at, failure.reason[:LONGEST_ERROR], logged)
