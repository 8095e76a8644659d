"""On whose behalf a move was made: the engineer of a system, or the principals of a delegate."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from lockbox.audit.event_search import EventRow
from lockbox.database import UnitOfWork

NAMES = text("SELECT id, name FROM people WHERE id = ANY(:ids)")
PRINCIPAL = "principal_"
"""The prefix of personal fields with the names of a delegate's principals, numbered from 1 in the order of ids."""


@dataclass(frozen=True)
class EventPerson:
    """`name` is None if it was erased or the reader may not know the person."""

    id: UUID
    name: str | None


@dataclass(frozen=True)
class OnBehalfOf:
    """`means` is how the person who made the move had signed in.

    `proof` is who vouches for an approval: the approver (`passkey-signed`) or the vendor's server (`attested`).
    """

    on_behalf_of: EventPerson | None = None
    principals: tuple[EventPerson, ...] = ()
    means: str | None = None
    proof: str | None = None

    @property
    def others(self) -> tuple[EventPerson, ...]:
        return self.principals or ((self.on_behalf_of,) if self.on_behalf_of else ())


def names_of(session: UnitOfWork, people: Iterable[UUID]) -> dict[UUID, str]:
    """The names of the people whom the reader may know."""
    wanted = list(set(people))
    return {row.id: row.name for row in session.execute(NAMES, {"ids": wanted})} if wanted else {}


def personal_names(people: Sequence[UUID], names: Mapping[UUID, str]) -> dict[str, str | None]:
    return {field: names.get(person) for person, field in _fields(people)}


def on_behalf_of(session: UnitOfWork, moves: Sequence[EventRow]) -> dict[int, OnBehalfOf]:
    """Return for whom each move of a timeline was made, by the move's seq.

    If an event never held names, the people's current names are returned, as far as the reader may know them.
    """
    bodies = {move.seq: json.loads(move.body) if move.body else {} for move in moves}
    unnamed = {person for body in bodies.values() if not _holds_names(body) for person in _people(body)}
    known = names_of(session, unnamed)
    return {move.seq: _on_behalf_of(bodies[move.seq], move.principals or {}, known) for move in moves}


def _on_behalf_of(body: Mapping[str, Any], principals: Mapping[str, str], known: Mapping[UUID, str]) -> OnBehalfOf:
    stood_for = [UUID(one) for one in body.get("principals", ())]
    names = dict(known)
    if _holds_names(body):
        names = {one: principals[field] for one, field in _fields(stood_for) if field in principals}
    named = body.get("on_behalf_of")
    return OnBehalfOf(
        on_behalf_of=EventPerson(UUID(named), names.get(UUID(named))) if named else None,
        principals=tuple(EventPerson(one, names.get(one)) for one in stood_for),
        means=body.get("means"),
        proof=body.get("proof"),
    )


def _fields(people: Sequence[UUID]) -> Iterable[tuple[UUID, str]]:
    return ((person, f"{PRINCIPAL}{number}") for number, person in enumerate(people, 1))


def _holds_names(body: Mapping[str, Any]) -> bool:
    return any(field.startswith(PRINCIPAL) for field in body.get("personal", ()))


def _people(body: Mapping[str, Any]) -> set[UUID]:
    named = [body.get("on_behalf_of"), *body.get("principals", ())]
    return {UUID(one) for one in named if one}
