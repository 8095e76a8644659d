"""Export every customer's audit log through the API once it is sealed, and verify it offline."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from chaos.people import ChaosCustomer
from chaos.stage import ChaosStack
from harness.export import export_sealed
from harness.people import client_of
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier import export_format as lines
from lockbox.audit.verifier import verify
from lockbox.audit.verifier.export_format import EventLine, Unreadable

SEALED_SECONDS = 30.0
# The events of a customer's log so far. Events of which no one at the customer is notified are in the vendor's log.
HAPPENED = text("SELECT e.id FROM events e WHERE e.log_id = :tenant_id")


@dataclass(frozen=True)
class VerifiedExport:
    """One export: its customer, how many events it has, and what the verifier found wrong."""

    slug: str
    events: int
    found: tuple[str, ...] = ()


def verified(stage: ChaosStack) -> list[VerifiedExport]:
    """Verify the audit log of each customer against the checkpoint of that moment.

    All events so far must be in the export: an event that is never sealed is in no export, and nothing else would
    reveal that. A customer for whom nothing was ever requested may have no log yet.
    """
    trusted = [stage.plan.audit_key, stage.plan.approval_key]
    return [_of(stage, customer, trusted) for customer in stage.cast.customers]


def _of(stage: ChaosStack, customer: ChaosCustomer, trusted: Sequence[VerifierKey]) -> VerifiedExport:
    with stage.superuser.connect() as connection:
        happened = connection.execute(HAPPENED, {"tenant_id": customer.tenant_id}).all()
    if not happened:
        return VerifiedExport(customer.slug, 0)
    with client_of(stage.plan, customer.tokens["tara"]) as admin:
        found = export_sealed(admin, SEALED_SECONDS, lambda exported: not any(missed(happened, exported)))
    if found is None:
        return VerifiedExport(customer.slug, 0, ("it was never sealed",))
    result = verify.verify(_lines(found.content), trusted, [found.note])
    wrong = [f"{one.kind}: {one.message}" for one in result.findings.first]
    if found.agrees:
        return VerifiedExport(customer.slug, result.events, tuple(wrong))
    missing = [*missed(happened, found.content)] or ["it never agreed with its checkpoint"]
    return VerifiedExport(customer.slug, 0, (*wrong, *missing))


def missed(happened: Iterable[Any], exported: bytes) -> Iterator[str]:
    """Yield a line for each event that an export lacks."""
    shown = set(_shown(exported))
    yield from (f"it lacks the event {event.id}" for event in happened if str(event.id) not in shown)


def _shown(exported: bytes) -> Iterator[str]:
    """Yield the ids of the events in an export; the verifier reports lines that cannot be read."""
    for line in _lines(exported):
        with contextlib.suppress(Unreadable, ValueError, KeyError, TypeError):
            if isinstance(one := lines.read(line), EventLine):
                yield str(json.loads(one.body)["id"])


def _lines(exported: bytes) -> Iterator[bytes]:
    return iter(exported.splitlines(keepends=True))
