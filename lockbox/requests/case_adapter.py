"""Call the adapter of a ticket system, signed both ways; one that stays silent is not called for a while."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from standardwebhooks import Webhook, WebhookVerificationError

from catalogue.service_catalogue import CaseSystem
from config.outbound import OutboundRoute
from lockbox import safe_http
from lockbox.audit.canonical import instant
from lockbox.notifications.circuit_breaker import NotSent, PeerResponse, host_of
from lockbox.notifications.senders.protocol import SILENT, WebhookCall
from lockbox.notifications.sending_pool import ChannelPool
from lockbox.notifications.webhook import signed
from lockbox.safe_http import FetchFailed, FetchResponse

CHANNEL = "case_check"
MOST_AT_ONCE = 8
LEAST_SECONDS = 1.0
"""A call that had less time than this says nothing about the adapter where it got no answer."""
SPARE_SECONDS = 1.0
MOST_BYTES = 4096
TYPE = "case.check"
OK = 200


class AdapterSilent(Exception):  # noqa: N818 - it is an outcome that is planned for
    """The adapter is not set up, or did not answer as it has to; the message is a word that says which."""


@dataclass(frozen=True)
class CaseAnswer:
    """Whether the case is open, and assigned to the engineer; both None where the adapter did not say."""

    is_open: bool | None = None
    is_assigned: bool | None = None


@dataclass(frozen=True)
class AdapterQuestion:
    """What an adapter is asked; after `seconds` nobody waits for its answer any more."""

    number: UUID
    tenant: str
    case_system: str
    case_ref: str
    engineer_id: UUID
    email: str
    seconds: float

    def body(self, at: datetime) -> bytes:
        """Return what is sent."""
        asked = {
            "tenant": self.tenant,
            "case_system": self.case_system,
            "case_ref": self.case_ref,
            "engineer": {"id": str(self.engineer_id), "email": self.email},
        }
        return json.dumps({"id": str(self.number), "type": TYPE, "timestamp": instant(at), "data": asked}).encode()


class AdapterCall:
    """One call as a job of the sending pool; `response` is what came of it: an answer, or `AdapterSilent`."""

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
        """Call the adapter, and say whether it has answered at all."""
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
        except Exception as error:  # noqa: BLE001 - whoever waits raises it; the loop serves others after this
            self._failure = error
            return PeerResponse.NOTHING
        return PeerResponse.ANSWER

    def finish(self, recorded: Callable[[], None]) -> None:
        """Hand over what came of it; whoever waits for it records it."""
        recorded()
        if self._answer:
            self.response.set_result(self._answer)
        else:
            self.response.set_exception(self._failure)

    def give_back(
        self,
        why: NotSent,
        seconds: float,  # noqa: ARG002 - the pool's
        others: "Sequence[AdapterCall]" = (),
    ) -> None:
        """Say that this and the others are not made, and why."""
        for one in (self, *others):
            one.response.set_exception(AdapterSilent(why))

    async def rest(self) -> None:
        """Keep nothing open."""


@dataclass(frozen=True)
class CaseAdapters:
    """The ticket systems with the addresses of their adapters, and the secret that signs calls and answers.

    With `allow_http` they may be on this machine, without TLS, and by `route` in a private network. `pool` has a
    circuit breaker for each host.
    """

    systems: Mapping[str, CaseSystem]
    secret: str | None = field(repr=False)
    allow_http: bool = False
    route: OutboundRoute = safe_http.NO_WAY_ASIDE
    pool: ChannelPool = field(default_factory=lambda: ChannelPool(CHANNEL, MOST_AT_ONCE), repr=False)

    def ask(self, question: AdapterQuestion) -> CaseAnswer:
        """Return what the adapter of the question's system says.

        Raises:
            AdapterSilent: it says nothing that counts, or is not called, such as while its circuit breaker is open.
        """
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
