"""Audit logs for tests of verifiers, sealed by a real database or, as an honest vendor would, in memory."""

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockbox.audit.canonical import Value, canonical, commitment
from lockbox.audit.log import merkle
from lockbox.audit.log.checkpoint import Checkpoint, VerifierKey, sign
from lockbox.audit.log.merkle import Subtree, leaf_hash, root_of
from lockbox.audit.log.sealer import Signer, seal
from lockbox.audit.verifier.export_format import parts
from lockbox.database import Database

NAME = "lockbox.test"
TENANT = UUID(int=7)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
SALT = bytes(range(16))
WIDTH = 256


def public(key: Ed25519PrivateKey = KEY) -> VerifierKey:
    return VerifierKey(NAME, key.public_key().public_bytes_raw())


def sealed(worker: Database) -> None:
    for _ in seal(worker, Signer(NAME, [KEY])):
        pass


def subtree_of(leaves: Sequence[bytes]) -> Subtree:
    return lambda level, number: root_of(leaves[number << level : (number + 1) << level])


@dataclass(frozen=True)
class SealedEvent:
    """One event: its exact body, and the personal values to which it has commitments."""

    body: bytes
    personal: dict[str, str]

    @property
    def shown(self) -> dict[str, Any]:
        return {name: {"salt": text(SALT), "value": value} for name, value in self.personal.items()}


def event(number: int, personal: dict[str, str] | None = None, **changes: Value) -> SealedEvent:
    """Return an event of the tenant's log; by default the only move of a new request."""
    personal = {"name": f"Erin {number}"} if personal is None else personal
    facts: dict[str, Value] = {
        "format": 1,
        "id": UUID(int=1_000 + number),
        "log": TENANT,
        "tenant_id": TENANT,
        "request_id": UUID(int=100_000 + number),
        "seq": 1,
        "at": f"2026-01-01T00:00:{number % 60:02}.000000Z",
        "action": "submit",
        "to_state": "pending",
        "personal": {name: commitment(SALT, value) for name, value in personal.items()},
    }
    return SealedEvent(canonical(facts | changes), personal)


def text(hashed: bytes) -> str:
    return base64.b64encode(hashed).decode()


def line(members: object) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@dataclass
class Log:
    """A log of these events; `removed` are the ranges that its exports omit.

    `generation` is above 1 if the log began again after a back-up was restored.
    """

    events: list[SealedEvent]
    key: Ed25519PrivateKey = KEY
    whose: str = str(TENANT)
    removed: list[range] = field(default_factory=list)
    generation: int = 1
    name: str = NAME
    at: str = "2026-01-01T00:00:00.000000Z"

    @property
    def leaves(self) -> list[bytes]:
        return [leaf_hash(one.body) for one in self.events]

    @property
    def origin(self) -> str:
        return f"{self.name}/audit/{self.whose}" + (f"/{self.generation}" if self.generation > 1 else "")

    def note(self, size: int | None = None) -> str:
        """Return the checkpoint of the log when it had that size."""
        leaves = self.leaves[:size]
        said = Checkpoint(self.origin, len(leaves), root_of(leaves), self.at)
        return sign(said, self.name, [self.key])

    def whole(self, since: Iterable[int] = ()) -> bytes:
        rows = [self._first(whole=True, since=since)]
        leaves, count = self.leaves, (len(self.events) + WIDTH - 1) // WIDTH
        roots = [root_of(leaves[at : at + WIDTH]) for at in range(0, len(leaves), WIDTH)]
        for tile in range(count):
            if gone := self._whole_tiles(tile):
                rows += [gone] if tile == 0 or self._whole_tiles(tile - 1) != gone else []
                continue
            span = range(tile * WIDTH, min(len(leaves), (tile + 1) * WIDTH))
            proof = merkle.inclusion(subtree_of(roots), tile, count)
            rows.append(line({"tile": tile, "leaves": [text(leaves[n]) for n in span], "proof": [*map(text, proof)]}))
            rows += [row for number in span if (row := self._row(number))]
        return b"".join([*rows, line({"end": {"events": sum(b'{"number"' in row for row in rows)}})])

    def filtered(self, wanted: Callable[[int], bool], since: Iterable[int] = ()) -> bytes:
        rows = [self._first(whole=False, since=since)]
        numbers = [number for number in range(len(self.events)) if wanted(number)]
        subtree = subtree_of(self.leaves)
        for number in numbers:
            proof = merkle.inclusion(subtree, number, len(self.events))
            one = self.events[number]
            members = {"number": number, "body": one.body.decode(), "personal": one.shown}
            rows.append(line(members | {"proof": [*map(text, proof)]}))
        return b"".join([*rows, line({"end": {"events": len(numbers)}})])

    def _whole_tiles(self, tile: int) -> bytes | None:
        """Return the line that replaces a range of whole removed tiles, if the tile is in such a range."""
        for span in self.removed:
            start, end = -(-span.start // WIDTH) * WIDTH, span.stop // WIDTH * WIDTH
            if start <= tile * WIDTH < end:
                hashes = [text(subtree_of(self.leaves)(*part)) for part in parts(start, end)]
                return line({"removed": {"from": start, "to": end, "hashes": hashes}})
        return None

    def _row(self, number: int) -> bytes | None:
        for span in self.removed:
            if number in span:
                start = max(span.start, number // WIDTH * WIDTH)
                end = min(span.stop, number // WIDTH * WIDTH + WIDTH)
                return line({"removed": {"from": start, "to": end, "hashes": []}}) if number == start else None
        one = self.events[number]
        return line({"number": number, "body": one.body.decode(), "personal": one.shown})

    def _first(self, *, whole: bool, since: Iterable[int]) -> bytes:
        size = len(self.events)
        proofs = [{"from": old, "proof": self._grown(old, size)} for old in since]
        return line(
            {
                "export": "lockbox-audit-export/1",
                "origin": self.origin,
                "log": self.whose,
                "generation": self.generation,
                "size": size,
                "checkpoint": self.note(),
                "whole": whole,
                "asked": {},
                "consistency": proofs,
            }
        )

    def _grown(self, old: int, new: int) -> list[str]:
        return [*map(text, merkle.consistency(subtree_of(self.leaves), old, new))]
