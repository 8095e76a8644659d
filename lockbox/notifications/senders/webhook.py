"""Webhook calls by the Standard Webhooks specification: signed, sent by safe_http, delivered only by a 2xx."""

import base64
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

from lockbox import safe_http
from lockbox.failpoints import failpoint
from lockbox.notifications.endpoints import PRIVATE_KEY
from lockbox.notifications.senders.protocol import SEND_SECONDS, Reply, SendFailed, WebhookCall
from lockbox.safe_http import FetchFailed, FetchFailure, FetchResponse

MOST_ANSWER_BYTES = 1024
GONE = 410
ASKS_TO_WAIT = frozenset({429, 503})
LONGEST_WAIT = timedelta(days=1)


class HttpWebhooks:
    """Calls webhooks over HTTPS; plain HTTP, and only to loopback, where a development setting allows it."""

    def __init__(
        self, *, allow_http: bool = False, tls: ssl.SSLContext | None = None, seconds: float = SEND_SECONDS
    ) -> None:
        self._seconds = seconds
        self._allow_http = allow_http
        self._tls = tls

    async def send(self, hook: WebhookCall) -> Reply:
        """Deliver the call; only a 2xx answer counts, and redirects are not followed.

        Raises:
            SendFailed: it was not taken; permanent if the address is of a form that is never called, gone on 410.
        """
        at = datetime.fromtimestamp(int(time.time()), tz=UTC)
        failpoint("webhook.before_call")
        try:
            answer = await safe_http.post(
                hook.url,
                hook.body,
                signed(hook, at),
                most_bytes=MOST_ANSWER_BYTES,
                seconds=self._seconds,
                allow_loopback=self._allow_http,
                tls=self._tls,
            )
        except FetchFailed as failed:
            permanent = failed.trouble is FetchFailure.FORM
            raise SendFailed(failed.reason, permanent=permanent, kind=failed.trouble.value) from None
        failpoint("webhook.after_response")
        reply = Reply(answer.status, answer.body.decode(errors="replace"))
        if not httpx.codes.is_success(answer.status):
            raise SendFailed(
                f"the endpoint answered {answer.status}",
                gone=answer.status == GONE,
                kind="status",
                reply=reply,
                wait=_wait(answer, at),
            )
        return reply


def signed(hook: WebhookCall, at: datetime) -> dict[str, str]:
    """Return the headers: the id is that of the notification for every try, the time-stamp that of this one.

    Each secret signs: `v1` is HMAC-SHA256, `v1a` Ed25519, both over id, time-stamp and body.
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
    """Return how long the endpoint asks us to wait (RFC 9110 section 10.2.3): seconds, or a date."""
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
