"""The trail of every customer, exported through the API once it is sealed, and verified as anybody would offline."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from chaos.people import House
from chaos.stage import Stage
from cli.stack import AUDIT_KEY
from lockbox.audit import keys, verify
from lockbox.audit.checkpoint import VerifierKey

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
    """Verify the trail of each customer, against the checkpoint of that moment and the one before the faults."""
    key = public(stage)
    return [_of(stage, house, key) for house in stage.cast.houses]


def public(stage: Stage) -> VerifierKey:
    """Return the key as whoever set the stack up has it, not as the API tells it."""
    (key,) = keys.read([stage.plan.keys / AUDIT_KEY])
    name = str(urlsplit(stage.plan.public_url).hostname)
    return VerifierKey(name, key.public_key().public_bytes_raw())


def _of(stage: Stage, house: House, key: VerifierKey) -> Verified:
    headers = {"authorization": f"Bearer {house.tokens['tara']}"}
    address = stage.plan.public_url
    with httpx.Client(base_url=address, headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as admin:
        until = time.monotonic() + SEALED_SECONDS
        while time.monotonic() < until:
            said = admin.get("/v1/audit/checkpoint").raise_for_status().json()
            exported = admin.get("/v1/audit/export").raise_for_status().content
            verdict = verify.verify(_lines(exported), [key], [said["note"]])
            # That the trail is read is an event too, sealed a moment later: both are asked for until they meet.
            if verdict.header.size == said["size"]:
                found = tuple(f"{one.kind}: {one.message}" for one in verdict.findings.first)
                return Verified(house.slug, verdict.events, found)
            time.sleep(LOOK_SECONDS)
    return Verified(house.slug, 0, ("it was never sealed",))


def _lines(exported: bytes) -> Iterator[bytes]:
    return iter(exported.splitlines(keepends=True))
