"""Ask a ticket system's adapter whether a case is open and assigned to the engineer; signed both ways."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from standardwebhooks import Webhook, WebhookVerificationError

from lockbox import safe_http
from lockbox.audit.canonical import instant
from lockbox.notifications.senders.protocol import WebhookCall
from lockbox.notifications.webhook import signed
from lockbox.requests.cases import CaseNotConfirmed, CaseSystemDown, CaseUnchecked
from lockbox.requests.policy_parts import CaseCheck, UnconfirmedCase
from lockbox.safe_http import FetchFailed, FetchResponse

SECONDS = 3.0
"""How long an adapter may take: an engineer waits for it."""
MOST_BYTES = 4096
TYPE = "case.check"
OK = 200
DOWN = "The ticket system could not be asked about the case. Try again, or submit once it answers."
CLOSED = "The ticket system says that this case is not open. Name an open one."
NOT_YOURS = "The ticket system says that this case is not assigned to the engineer. Have it assigned, and try again."


class AdapterSilent(Exception):  # noqa: N818 - it is an outcome that is planned for
    """The adapter is not set up, or did not answer as it has to; the message says which, for the log."""


@dataclass(frozen=True)
class CaseAdapter:
    """Where the adapter of a ticket system is, the secret that signs its calls and answers, and how it may be called.

    With `allow_http` it may be on this machine, without TLS.
    """

    url: str | None
    secret: str | None
    allow_http: bool = False


async def check(adapter: CaseAdapter, unchecked: CaseUnchecked) -> CaseCheck:
    """Return whether the case of a submission is confirmed; no transaction is open and no row locked meanwhile.

    Raises:
        CaseNotConfirmed: the case is not open, or not assigned to the engineer.
        CaseSystemDown: nobody could be asked, and the policy refuses what is not confirmed.
    """
    try:
        is_open, is_assigned = await _asked(adapter, unchecked.question)
    except AdapterSilent:
        if unchecked.demand == UnconfirmedCase.REFUSE:
            raise CaseSystemDown(DOWN, field="case_ref") from None
        return CaseCheck.UNCONFIRMED
    if not is_open or not is_assigned:
        raise CaseNotConfirmed(NOT_YOURS if is_open else CLOSED, field="case_ref")
    return CaseCheck.CONFIRMED


async def _asked(adapter: CaseAdapter, question: dict[str, Any]) -> tuple[bool, bool]:
    """Return what the adapter says: whether the case is open, and whether it is the engineer's.

    Raises:
        AdapterSilent: it says nothing that counts.
    """
    if adapter.url is None or adapter.secret is None:
        raise AdapterSilent("there is no adapter")
    at = datetime.fromtimestamp(int(time.time()), tz=UTC)
    number = str(uuid4())
    body = json.dumps({"id": number, "type": TYPE, "timestamp": instant(at), "data": question}).encode()
    call = WebhookCall(hook_id=number, url=adapter.url, body=body, secrets=(adapter.secret,))
    try:
        answer = await safe_http.post(
            adapter.url,
            body,
            signed(call, at),
            most_bytes=MOST_BYTES,
            seconds=SECONDS,
            allow_loopback=adapter.allow_http,
        )
    except FetchFailed as failed:
        raise AdapterSilent(failed.reason) from None
    return _verified(adapter.secret, number, answer)


def _verified(secret: str, number: str, answer: FetchResponse) -> tuple[bool, bool]:
    if answer.status != OK or answer.signed.get("webhook-id") != number:
        raise AdapterSilent(f"it answered {answer.status}, or another question")
    try:
        said = Webhook(secret).verify(answer.body, dict(answer.signed))
    except (WebhookVerificationError, ValueError):
        raise AdapterSilent("its answer is not signed, or no JSON") from None
    match said:
        case {"open": bool(is_open), "assigned": bool(is_assigned)}:
            return is_open, is_assigned
    raise AdapterSilent("its answer lacks open or assigned")
