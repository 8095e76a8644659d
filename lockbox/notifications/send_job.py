"""One claimed notification in its slot, and the webhook calls that follow it."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from config.traces import SpanKind, caused_by, span
from lockbox.database import Database
from lockbox.failpoints import failpoint
from lockbox.identity.keyring import CodeKeys
from lockbox.notifications import account_mail, load, request_mail, results, webhook
from lockbox.notifications.checkpoint_digest import Keys
from lockbox.notifications.circuit_breaker import NotSent, PeerResponse
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.load import AccountNotification, Wordings
from lockbox.notifications.models import Outcome
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.queue import NotificationClaim, ReturnedClaim
from lockbox.notifications.request_mail import LoadedNotification, RequestMail
from lockbox.notifications.results import LONGEST_ERROR, TOO_LATE, AttemptResult, ClaimResult, ResultRecorder
from lockbox.notifications.senders.protocol import (
    NOTHING,
    MailSender,
    OutgoingMail,
    Reply,
    SendFailed,
    WebhookCall,
    WebhookSender,
)
from lockbox.notifications.sending_pool import LONGEST_IN_QUEUE, SendingPool
from lockbox.notifications.webhook import WebhookTarget

log = structlog.get_logger(__name__)

NO_ROOM = "not tried in time: its server does not answer, or takes too long"


@dataclass(frozen=True)
class Senders:
    """The senders, and everything needed to render mails and webhook bodies; `sender` is the From header of mails.

    `wordings` looks up what the customers' policies allow in mails about a request.
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


@dataclass
class NotificationSendJob:
    """A claimed notification to send.

    `at` is when it was claimed; `began` is the same time by the pool's clock. `behind` is the queue of later calls to
    the same endpoint; all these calls have the same queue.
    """

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
    behind: "deque[NotificationSendJob]" = field(default_factory=deque)

    def without_sending(self) -> ClaimResult | None:
        one, slot = self.loaded, self.claim.slot
        if one.is_unreachable or (self.target is None and one.is_moot):
            ended = AttemptResult(
                one.notification_id, self.claim.lease, Outcome.MOOT, self.at, endpoint_id=self._endpoint_id
            )
        elif slot is None:
            why = TOO_LATE if self.at >= one.until_at else NO_ROOM
            ended = AttemptResult(
                one.notification_id, self.claim.lease, Outcome.DEAD, self.at, why, endpoint_id=self._endpoint_id
            )
        else:
            return None
        self.result = ended
        if slot and not self.claim.follows:
            slot.leave()
        return ClaimResult(self.database, ended, self.recorded, self.lease_ends)

    def prepare(self) -> None:
        if self.claim.slot is None or self.result is not None:
            return
        try:
            self.parcel = _parcel(self.database, self.loaded, self.target, self._now(), self.senders)
        except Exception as error:  # noqa: BLE001 - a failed try of this job only
            self.fault = error

    def set_out(self) -> None:
        if self.claim.follows:
            return
        slot = self.claim.slot
        if slot is None or self.result is not None:
            self._go_on()
        else:
            slot.pool.send(slot.destination, self, urgent=slot.is_urgent)

    async def run(self) -> PeerResponse:
        told = {"lockbox.channel": self.loaded.channel, "lockbox.template": self.loaded.template}
        try:
            with caused_by(self.loaded.origin), span("notification", SpanKind.INTERNAL, **told) as later:
                self.result, said = await self._tried()
                later["lockbox.outcome"] = self.result.outcome or "deferred"
        except BaseException as error:  # noqa: BLE001 - the loop serves others after this
            self.died = error
            return PeerResponse.NOTHING
        return said

    def finish(self, then: Callable[[], None]) -> None:
        """Record the result; a job that died half-way stays claimed until its lease ends."""
        self.recorded.add_done_callback(lambda _: then())
        if self.result:
            self.senders.recorder.record([ClaimResult(self.database, self.result, self.recorded, self.lease_ends)])
        elif self.died:
            self.senders.recorder.drop()
            self.recorded.set_exception(self.died)
        self._go_on()

    def stop(self) -> None:
        self._give_back(self.take_behind(), 0.0)

    def _go_on(self) -> None:
        is_settled = self.result is not None and self.result.outcome is not None
        if not is_settled or self.senders.sending_pool.clock() - self.began > LONGEST_IN_QUEUE:
            self.stop()
            return
        following = next((one for one in self._taken() if one.result is None), None)
        if following is None or (slot := following.claim.slot) is None:
            return
        if wait := slot.pool.enter(slot.destination):
            self._give_back([following, *self.take_behind()], wait)
        else:
            slot.pool.send(slot.destination, following, urgent=slot.is_urgent)

    def _taken(self) -> "Iterator[NotificationSendJob]":
        """Remove and yield the calls behind this one; another thread may remove some of them at the same time."""
        with suppress(IndexError):
            while True:
                yield self.behind.popleft()

    def take_behind(self) -> "list[NotificationSendJob]":
        return [one for one in self._taken() if one.result is None]

    def give_back(
        self,
        why: NotSent,  # noqa: ARG002 - the pool passes it
        seconds: float,
        others: Sequence["NotificationSendJob"] = (),
    ) -> None:
        ours = (self, *others)
        self._give_back([*ours, *(behind for one in ours for behind in one.take_behind())], seconds)

    def _give_back(self, jobs: "Sequence[NotificationSendJob]", seconds: float) -> None:
        if not jobs:
            return
        wait = timedelta(seconds=seconds)
        for one in jobs:
            one.is_returned = True
        back = [(job, ReturnedClaim(job.claim.notification_id, job.claim.lease, wait)) for job in jobs]
        self.senders.recorder.record(
            [ClaimResult(one.database, returned, one.recorded, one.lease_ends) for one, returned in back]
        )

    async def rest(self) -> None:
        await self.senders.mail.close()

    async def _tried(self) -> tuple[AttemptResult, PeerResponse]:
        one, lease, at = self.loaded, self.claim.lease, self._now()
        if at >= one.until_at:
            late = AttemptResult(
                one.notification_id, lease, Outcome.DEAD, at, TOO_LATE, endpoint_id=self._endpoint_id
            )
            return late, PeerResponse.NOTHING
        event_type = webhook.event_type(one.template, one.event_type if isinstance(one, RequestMail) else None)
        blank = DeliveryAttempt(one.notification_id, self._endpoint_id, event_type, at, timedelta(0))
        failpoint("notify.before_send")
        try:
            reply = await self._sent()
        except SendFailed as failure:
            return _failed(one, lease, self._now(), failure, blank), failure.said
        except Exception as error:
            log.exception("notification.failed", notification_id=str(one.notification_id))
            return _failed(one, lease, self._now(), SendFailed(type(error).__name__), blank), PeerResponse.NOTHING
        log.info("notification.sent", notification_id=str(one.notification_id), channel=one.channel)
        sent = replace(blank, took=self._now() - at, status=reply.status, answer=reply.text)
        arrived = AttemptResult(
            one.notification_id, lease, Outcome.SENT, at, attempt=sent, endpoint_id=self._endpoint_id
        )
        return arrived, PeerResponse.ANSWER

    async def _sent(self) -> Reply:
        if self.fault:
            raise self.fault
        if isinstance(self.parcel, WebhookCall):
            return await self.senders.hooks.send(self.parcel)
        if isinstance(self.parcel, OutgoingMail):
            await self.senders.mail.send(self.parcel)
        return NOTHING

    @property
    def _endpoint_id(self) -> UUID | None:
        return self.target.endpoint_id if self.target else None

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.is_returned or self.recorded.done()

    @property
    def standing(self) -> str:
        if not self.recorded.done():
            return "unrecorded" if self.result or self.is_returned else "unfinished"
        if self.recorded.exception():
            return "unrecorded"
        result = self.recorded.result()
        return result.outcome.value if result and result.outcome else "deferred"

    @property
    def lease_ends(self) -> float:
        """By this process' monotonic clock."""
        return self.began + (self.claim.lease - self.at).total_seconds()

    def _now(self) -> datetime:
        """Estimate the database's time; the error is the drift of two clocks within a minute."""
        return self.at + timedelta(seconds=self.senders.sending_pool.clock() - self.began)


def _parcel(
    database_: Database, one: LoadedNotification, target: WebhookTarget | None, at: datetime, senders: Senders
) -> OutgoingMail | WebhookCall:
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
        return account_mail.render(
            prepared, public_url=senders.public_url, services=senders.services, sender=senders.sender
        )
    body = webhook.account_payload(prepared, target, public_url=senders.public_url, services=senders.services)
    return webhook.call(one.notification_id, target, body, senders.vault)


def _of_request(mail: RequestMail, target: WebhookTarget | None, senders: Senders) -> OutgoingMail | WebhookCall:
    url, services = senders.public_url, senders.services
    if target is None:
        return request_mail.render(mail, public_url=url, services=services, sender=senders.sender)
    body = webhook.request_payload(mail, target, public_url=url, services=services)
    return webhook.call(mail.notification_id, target, body, senders.vault)


def _failed(
    one: LoadedNotification, lease: datetime, at: datetime, failure: SendFailed, attempt: DeliveryAttempt
) -> AttemptResult:
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
    why = failure.reason[:LONGEST_ERROR]
    return AttemptResult(one.notification_id, lease, outcome, again or at, why, logged, attempt.endpoint_id)
