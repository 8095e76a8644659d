"""The trail of every customer, exported through the API once it is sealed, and verified as anybody would offline."""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text

from chaos.people import ChaosCustomer
from chaos.stage import ChaosStack
from cli.stack import APPROVAL_KEY
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.log.signing_keys import ApprovalKeys
from lockbox.audit.verifier import export_format as lines
from lockbox.audit.verifier import verify
from lockbox.audit.verifier.export_format import EventLine, Unreadable

SEALED_SECONDS = 30.0
LOOK_SECONDS = 0.3
ANSWER_SECONDS = 20.0
NOT_SEALED = 404
# Of what is here so far; what nobody at the customer was told of is in the vendor's log.
HAPPENED = text("SELECT e.id FROM events e WHERE e.log_id = :tenant_id")


@dataclass(frozen=True)
class VerifiedExport:
    """One export: whose, how many events it has, and what the verifier found wrong."""

    slug: str
    events: int
    found: tuple[str, ...] = ()


def verified(stage: ChaosStack) -> list[VerifiedExport]:
    """Verify the trail of each customer, against the checkpoint of that moment.

    Whatever happened before must be in it: an event that is never sealed stands in no export, and none of its own
    accord says so. A customer who was never asked for anything may have no log yet.
    """
    approvals = ApprovalKeys(signing_keys.read([stage.plan.keys / APPROVAL_KEY])).public
    return [_of(stage, customer, [stage.plan.audit_key, approvals]) for customer in stage.cast.customers]


def _of(stage: ChaosStack, customer: ChaosCustomer, trusted: Sequence[VerifierKey]) -> VerifiedExport:
    headers = {"authorization": f"Bearer {customer.tokens['tara']}"}
    address = stage.plan.public_url
    with stage.superuser.connect() as connection:
        happened = connection.execute(HAPPENED, {"tenant_id": customer.tenant_id}).all()
    missing, found = ["it was never sealed"], list[str]()
    with httpx.Client(base_url=address, headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as admin:
        until = time.monotonic() + SEALED_SECONDS
        while time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            answer = admin.get("/v1/audit/checkpoint")
            if answer.status_code == NOT_SEALED and not happened:
                return VerifiedExport(customer.slug, 0)
            if answer.status_code == NOT_SEALED:
                continue
            said = answer.raise_for_status().json()
            exported = admin.get("/v1/audit/export").raise_for_status().content
            verdict = verify.verify(_lines(exported), trusted, [said["note"]])
            missing = list(missed(happened, exported))
            found = [f"{one.kind}: {one.message}" for one in verdict.findings.first]
            # That the trail is read is an event too, sealed a moment later: both are asked for until they meet.
            if verdict.header.size == said["size"] and not missing:
                return VerifiedExport(customer.slug, verdict.events, tuple(found))
    return VerifiedExport(customer.slug, 0, (*found, *(missing or ["it never agreed with its checkpoint"])))


def missed(happened: Iterable[Any], exported: bytes) -> Iterator[str]:
    """Yield a line for each event that an export lacks."""
    shown = set(_shown(exported))
    yield from (f"it lacks the event {event.id}" for event in happened if str(event.id) not in shown)


def _shown(exported: bytes) -> Iterator[str]:
    """Yield the ids of the events in an export; of what cannot be read the verifier speaks."""
    for line in _lines(exported):
        with contextlib.suppress(Unreadable, ValueError, KeyError, TypeError):
            if isinstance(one := lines.read(line), EventLine):
                yield str(json.loads(one.body)["id"])


def _lines(exported: bytes) -> Iterator[bytes]:
    return iter(exported.splitlines(keepends=True))
