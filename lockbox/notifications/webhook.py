"""Webhook calls in the endpoint's format, signed as the Standard Webhooks specification demands."""

import base64
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import httpx
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from standardwebhooks import Webhook

from config.outbound import OutboundRoute
from config.traces import SpanKind, propagated, span
from lockbox import safe_http
from lockbox.audit.canonical import instant
from lockbox.database import UnitOfWork
from lockbox.facts.ask import Ask
from lockbox.facts.fact import WEBHOOK, given
from lockbox.facts.window import Window
from lockbox.failpoints import failpoint
from lockbox.notifications import account_mail, chat_message
from lockbox.notifications.account_mail import AccountMail
from lockbox.notifications.audience import OPEN
from lockbox.notifications.endpoints import PRIVATE_KEY, SecretVault, signers
from lockbox.notifications.models import Format
from lockbox.notifications.request_mail import RequestMail, portal_address
from lockbox.notifications.senders.protocol import SEND_SECONDS, Reply, SendFailed, WebhookCall
from lockbox.notifications.target_failure import TargetFailure
from lockbox.safe_http import FetchFailed, FetchFailure, FetchResponse
from lockbox.text_rules import mixed

TEST = "endpoint_tested"
TEST_TYPE = "endpoint.test"
MOST_ANSWER_BYTES = 1024
GONE = 410
WORTH_ANOTHER_TRY = frozenset({408, 425, 429})
"""The client errors after which the call is tried again; all others are final."""
ASKS_TO_WAIT = frozenset({429, 503})
WAITING = frozenset({"reviewing", "pending"})
LONGEST_WAIT = timedelta(days=1)

READ = text("""
SELECT n.id, n.sequence, h.id AS endpoint_id, h.url, h.format, h.secret,
    (SELECT p.id FROM notifications p
        WHERE p.endpoint_id = n.endpoint_id AND p.sequence = n.sequence - 1) AS previous,
    h.tenant_id IS NOT NULL AND h.with_justification AS with_justification, h.tenant_id IS NULL AS is_vendors,
    CASE WHEN h.old_secret_until > clock_timestamp() THEN h.old_secret END AS old_secret
FROM notifications n JOIN endpoints h ON h.id = n.endpoint_id WHERE n.id = ANY(:ids)
""")


@dataclass(frozen=True)
class WebhookTarget:
    """An endpoint to call; its secrets are encrypted.

    `sequence` counts the calls of the endpoint without a gap; `previous` is the id of the call before. The vendor's
    endpoints (`is_vendors`) never get the justification; they get the case, so that the ticket system can comment on
    it.
    """

    endpoint_id: UUID
    url: str
    format: Format
    with_justification: bool
    secret: bytes
    old_secret: bytes | None
    sequence: int | None = None
    previous: UUID | None = None
    is_vendors: bool = False

    @property
    def place(self) -> dict[str, Any]:
        return {"sequence": self.sequence, "previous": self.previous and str(self.previous)}


def targets(session: UnitOfWork, ids: Sequence[UUID]) -> Mapping[UUID, WebhookTarget]:
    rows = session.execute(READ, {"ids": list(ids)})
    return {
        row.id: WebhookTarget(
            row.endpoint_id,
            row.url,
            Format(row.format),
            row.with_justification,
            row.secret,
            row.old_secret,
            row.sequence,
            row.previous,
            row.is_vendors,
        )
        for row in rows
    }


def event_type(template: str, of_request: str | None) -> str:
    return TEST_TYPE if template == TEST else of_request or account_mail.type_of(template)


def call(notification_id: UUID, target: WebhookTarget, body: bytes, vault: SecretVault) -> WebhookCall:
    try:
        secrets = signers(vault, target.secret, target.old_secret)
    except InvalidToken:
        raise SendFailed("no key opens the endpoint's secret", kind="secret") from None
    return WebhookCall(str(notification_id), target.url, body, secrets, is_vendors=target.is_vendors)


def request_payload(
    mail: RequestMail, target: WebhookTarget, *, public_url: str, services: Mapping[str, str]
) -> bytes:
    """The body has the justification only if both the endpoint and the policy allow it."""
    justification = mail.ask.justification if target.with_justification and mail.wording.justification else None
    if target.format is Format.SLACK:
        return _json(chat_message.of_request(mail, justification, public_url=public_url, services=services))
    content = _event_of(mail).body(mail.notification_id, target.place, public_url)
    if justification is not None:
        content["data"]["justification"] = justification
    if target.is_vendors and mail.ask.case_ref:
        case = {"system": mail.ask.case_system, "ref": mail.ask.case_ref, "url": mail.ask.case_url}
        content["data"]["case"] = case
    return _json(content)


@dataclass(frozen=True, kw_only=True)
class RequestEvent:
    """The content of a webhook about a request's event: ids, states and times, but no reason and no names of people.

    Only the keys of the request's context are listed, because the values are personal.
    """

    event_id: UUID
    event_type: str
    at: datetime
    request_id: UUID
    tenant: str
    tenant_id: UUID
    state: str
    deadline_at: datetime | None
    nobody_notified: bool
    ask: Ask
    window: Window
    connection: TargetFailure | None = None
    held_back: str | None = None

    def body(self, call_id: UUID, place: Mapping[str, Any], public_url: str) -> dict[str, Any]:
        return {
            **head(call_id, self.event_type, self.at, self.event_id, place),
            "data": {
                "request_id": str(self.request_id),
                "tenant": self.tenant,
                "tenant_id": str(self.tenant_id),
                "state": self.state,
                **given(self.ask, WEBHOOK),
                **({"context_names": sorted(self.ask.context)} if self.ask.context else {}),
                **({"mixed_alphabets": True} if mixed(self.window.resources_of(self.ask)) else {}),
                **({"nobody_notified": self.nobody_notified} if self.state == "timed_out" else {}),
                **({"break_glass": True} if self.window.break_glass else {}),
                **({"connection": asdict(self.connection)} if self.connection else {}),
                **({"extends": str(self.window.extends)} if self.window.extends else {}),
                **self._opening(),
                **({"held_back": self.held_back} if self.held_back else {}),
                "answer_by": self._deadline(*WAITING),
                "open_until": self._deadline(OPEN),
                "url": portal_address(public_url, self.request_id),
            },
        }

    def _opening(self) -> dict[str, str]:
        by = self.window.pre_approval_id if self.state not in WAITING else None
        begins = self.window.opens_at if self.state == OPEN else None
        return {
            **({"pre_approval_id": str(by)} if by else {}),
            **({"opens_at": instant(begins)} if begins else {}),
        }

    def _deadline(self, *states: str) -> str | None:
        return instant(self.deadline_at) if self.state in states and self.deadline_at else None


def _event_of(mail: RequestMail) -> RequestEvent:
    return RequestEvent(
        event_id=mail.event_id,
        event_type=mail.event_type,
        at=mail.at,
        request_id=mail.request_id,
        tenant=mail.slug,
        tenant_id=mail.tenant_id,
        state=mail.to_state,
        deadline_at=mail.deadline_at,
        nobody_notified=mail.nobody_notified,
        ask=mail.ask,
        window=mail.window,
        connection=mail.connection,
        held_back=mail.held_back,
    )


def head(
    call_id: UUID, event_type: str, at: datetime, event_id: UUID | None, place: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "id": str(call_id),
        "type": event_type,
        "timestamp": instant(at),
        "event_id": event_id and str(event_id),
        **place,
    }


def account_data(slug: str | None, tenant_id: UUID | None, changes: Mapping[str, str]) -> dict[str, Any]:
    """Return the tenant and the diff, without names of people."""
    return {"data": {"tenant": slug, "tenant_id": tenant_id and str(tenant_id), "changes": dict(changes)}}


def account_payload(
    mail: AccountMail, target: WebhookTarget, *, public_url: str, services: Mapping[str, str]
) -> bytes:
    if mail.template == TEST:
        return _test(mail, target)
    if target.format is Format.JSON:
        begun = head(mail.notification_id, account_mail.type_of(mail.template), mail.at, mail.event_id, target.place)
        return _json(begun | account_data(mail.slug, mail.tenant_id, mail.changes))
    return _json(chat_message.of_account(mail, public_url=public_url, services=services))


def _test(mail: AccountMail, target: WebhookTarget) -> bytes:
    if target.format is Format.SLACK:
        return _json(chat_message.of_test())
    data = {"endpoint_id": str(target.endpoint_id), "tenant": mail.slug}
    return _json(head(mail.notification_id, TEST_TYPE, mail.at, mail.event_id, target.place) | {"data": data})


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


class HttpWebhooks:
    """Calls webhooks over HTTPS; plain HTTP is allowed only to loopback, with a development setting."""

    def __init__(
        self,
        *,
        allow_http: bool = False,
        tls: ssl.SSLContext | None = None,
        seconds: float = SEND_SECONDS,
        route: OutboundRoute = safe_http.NO_WAY_ASIDE,
    ) -> None:
        self._seconds = seconds
        self._allow_http = allow_http
        self._tls = tls
        self._route = route

    async def send(self, hook: WebhookCall) -> Reply:
        """Call a webhook; only a 2xx answer is a success, and redirects are not followed.

        Raises:
            SendFailed: permanent if the address has a form that is never called, or for most client errors; gone on
                410.
        """
        at = datetime.fromtimestamp(int(time.time()), tz=UTC)
        failpoint("webhook.before_call")
        try:
            with span("POST", SpanKind.CLIENT, **{"http.request.method": "POST"}) as told:
                answer = await safe_http.post(
                    hook.url,
                    hook.body,
                    signed(hook, at) | propagated(),
                    most_bytes=MOST_ANSWER_BYTES,
                    seconds=self._seconds,
                    allow_loopback=self._allow_http,
                    tls=self._tls,
                    route=self._route if hook.is_vendors else self._route.to_tenants,
                )
                told["http.response.status_code"] = answer.status
        except FetchFailed as failed:
            permanent = failed.trouble is FetchFailure.FORM
            raise SendFailed(failed.reason, permanent=permanent, kind=failed.trouble.value) from None
        failpoint("webhook.after_response")
        reply = Reply(answer.status, answer.body.decode(errors="replace"))
        if not httpx.codes.is_success(answer.status):
            raise SendFailed(
                f"the endpoint answered {answer.status}",
                permanent=httpx.codes.is_client_error(answer.status) and answer.status not in WORTH_ANOTHER_TRY,
                gone=answer.status == GONE,
                kind="status",
                reply=reply,
                wait=_wait(answer, at),
            )
        return reply


def signed(hook: WebhookCall, at: datetime) -> dict[str, str]:
    """Return the headers: the notification's id, the same for every try, and this try's timestamp and signatures.

    Each secret signs the id, timestamp and body: `v1` is HMAC-SHA256, `v1a` is Ed25519.
    """
    stamp = str(int(at.timestamp()))
    return {
        "webhook-id": hook.hook_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(_signature(secret, hook, at) for secret in hook.secrets),
    }


def _signature(secret: str, hook: WebhookCall, at: datetime) -> str:
    if not secret.startswith(PRIVATE_KEY):
        return str(Webhook(secret).sign(hook.hook_id, at, hook.body.decode()))
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret.removeprefix(PRIVATE_KEY)))
    content = f"{hook.hook_id}.{int(at.timestamp())}.".encode() + hook.body
    return f"v1a,{base64.b64encode(key.sign(content)).decode()}"


def _wait(answer: FetchResponse, at: datetime) -> timedelta | None:
    """Return the wait that the endpoint asks for, in seconds or by a date (RFC 9110 section 10.2.3)."""
    said = (answer.retry_after or "").strip()
    if answer.status not in ASKS_TO_WAIT or not said:
        return None
    if said.isascii() and said.isdigit():
        return timedelta(seconds=min(int(said[:9]), LONGEST_WAIT.total_seconds()))
    try:
        until = parsedate_to_datetime(said)
        return min(max(until.replace(tzinfo=until.tzinfo or UTC) - at, timedelta(0)), LONGEST_WAIT)
    except (ValueError, OverflowError):
        return None
