"""The trail of every customer, exported through the API once it is sealed, and verified as anybody would offline."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from chaos.people import House
from chaos.stage import Stage
from cli.stack import APPROVAL_KEY
from lockbox.audit import keys, verify
from lockbox.audit.approvals import Approvals
from lockbox.audit.checkpoint import VerifierKey
from lockbox.audit.findings import Kind

SEALED_SECONDS = 30.0
LOOK_SECONDS = 0.3
ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Verified:
    """One export: whose, how many events it has, and what the verifier found wrong."""

    slug: str
    events: int
    found: tuple[str, ...] = ()


def verified(stage: Stage) -> list[Verified]:
    """Verify the trail of each customer, against the checkpoint of that moment; what is the vendor's is withheld."""
    approvals = Approvals(keys.read([stage.plan.keys / APPROVAL_KEY])).public
    return [_of(stage, house, [stage.plan.audit_key, approvals]) for house in stage.cast.houses]


def _of(stage: Stage, house: House, trusted: Sequence[VerifierKey]) -> Verified:
    headers = {"authorization": f"Bearer {house.tokens['tara']}"}
    address = stage.plan.public_url
    with httpx.Client(base_url=address, headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as admin:
        until = time.monotonic() + SEALED_SECONDS
        while time.monotonic() < until:
            said = admin.get("/v1/audit/checkpoint").raise_for_status().json()
            exported = admin.get("/v1/audit/export").raise_for_status().content
            verdict = verify.verify(_lines(exported), trusted, [said["note"]], [Kind.WITHHELD])
            # That the trail is read is an event too, sealed a moment later: both are asked for until they meet.
            if verdict.header.size == said["size"]:
                found = tuple(f"{one.kind}: {one.message}" for one in verdict.findings.first)
                return Verified(house.slug, verdict.events, found)
            time.sleep(LOOK_SECONDS)
    return Verified(house.slug, 0, ("it was never sealed",))


def _lines(exported: bytes) -> Iterator[bytes]:
    return iter(exported.splitlines(keepends=True))
