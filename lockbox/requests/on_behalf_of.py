"""Look up on whose behalf each move was made: a system's engineer, or a delegate's principals."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from lockbox.audit.event_search import EventRow
from lockbox.database import UnitOfWork
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import fewest

NAMES = text("SELECT id, name FROM people WHERE id = ANY(:ids)")
PRINCIPAL = "principal_"
"""How the personal field begins that holds the name of whom a delegate stood in for, counted from 1 by their ids."""


@dataclass(frozen=True)
class EventPerson:
    """A person in the audit log; the name is None where it was erased, or the reader may not know them."""

    id: UUID
    name: str | None


@dataclass(frozen=True)
class OnBehalfOf:
    """For whom a move was made beside the one who made it, and by what means they had shown who they are.

    `proof` is whose word an approval is: `passkey-signed` is the approver's own, `attested` the vendor's server's.
    """

    on_behalf_of: EventPerson | None = None
    principals: tuple[EventPerson, ...] = ()
    means: str | None = None
    proof: str | None = None

    @property
    def others(self) -> tuple[EventPerson, ...]:
        """Everybody for whom it was made."""
        return self.principals or ((self.on_behalf_of,) if self.on_behalf_of else ())


@dataclass(frozen=True)
class ApprovalLimits:
    """How an approval narrows what was asked: the window in seconds, what it keeps; None is as asked.

    `max_uses` is for how many uses it is, None for any number, and `opens_at` from when, None for at once.
    """

    access_window: int | None
    resources: list[str] | None
    actions: list[str] | None
    max_uses: int | None = None
    opens_at: datetime | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return any(one is not None for one in vars(self).values())

    def is_less_than(self, request: AccessRequest) -> bool:
        """Whether it narrows what the request is for."""
        kept = (self.access_window, self.resources, self.actions)
        return any(one is not None for one in kept) or fewest(request.max_uses, self.max_uses) != request.max_uses


def approval_limits(move: EventRow) -> ApprovalLimits:
    """Return how a move of a timeline narrows what was asked; resources that were erased are as asked."""
    body = json.loads(move.body) if move.body and move.action == Action.APPROVE else {}
    resources = json.loads(move.kept_resources) if move.kept_resources else None
    opens_at = body.get("kept_opens_at")
    return ApprovalLimits(
        body.get("access_window"),
        resources,
        body.get("kept_actions"),
        body.get("kept_max_uses"),
        datetime.fromisoformat(opens_at) if opens_at else None,
    )


def names_of(session: UnitOfWork, people: Iterable[UUID]) -> dict[UUID, str]:
    """Return the names of these people, as far as whoever asks may know them."""
    wanted = list(set(people))
    return {row.id: row.name for row in session.execute(NAMES, {"ids": wanted})} if wanted else {}


def personal_names(people: Sequence[UUID], names: Mapping[UUID, str]) -> dict[str, str | None]:
    """Return the personal fields in which an event keeps whom a delegate stood in for."""
    return {field: names.get(person) for person, field in _fields(people)}


def on_behalf_of(session: UnitOfWork, moves: Sequence[EventRow]) -> dict[int, OnBehalfOf]:
    """Return the voice of each move of a timeline, by its seq.

    A name is what the event holds; where it never held one, as with an engineer for whom a system submitted, it is
    the person's of today, as far as the reader may know them.
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
