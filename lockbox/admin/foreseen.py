"""What a request to a tenant would meet, as its own people see it: who is told, and where; who could decide."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from sqlmodel import Session, col, select

from config.settings import Service
from lockbox.admin import permissions
from lockbox.identity.models import Address, Person
from lockbox.identity.roles import Caller, Mode
from lockbox.notifications.models import Endpoint, Watcher
from lockbox.requests import evaluate, preview
from lockbox.requests.evaluate import Judged
from lockbox.requests.lifecycle import State
from lockbox.requests.policy import Terms, customer_decides
from lockbox.requests.policy_rules import Ask
from lockbox.requests.preview import Group, Names, Reached

NOBODY_ASKED = "Nobody would be asked: it would time out, and the answer would be no."
NOBODY_TOLD = "Nobody would be told that the vendor opened a window."
SUSPENDED = "The tenant is suspended: nothing can be asked of it."


@dataclass(frozen=True)
class Mailed:
    """Somebody who would be told by mail, and at which addresses."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Foreseen:
    """What a request would meet now, with the addresses of the tenant's own people; of the vendor only a number.

    `quiet` could decide and are not asked, for they want no prompts. `warnings` say why the answer would be nobody.
    """

    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: int
    told_first: tuple[Mailed, ...]
    could_approve: tuple[str, ...]
    quiet: tuple[str, ...]
    stages: tuple[Group, ...]
    endpoints: tuple[str, ...]
    copied: tuple[Mailed, ...]
    warnings: tuple[str, ...]


def foresee(session: Session, caller: Caller, slug: str, ask: Ask, services: Mapping[str, Service]) -> Foreseen:
    """Say to a member of a tenant what such a request would meet; nothing is written and nobody is told.

    Raises:
        Unknown, NotYours, UnknownService: as named.
    """
    tenant = permissions.readable(session, caller, slug)
    judged = evaluate.foresee(session, tenant, ask, services)
    decides, reached = customer_decides(judged.mode), preview.reached(judged)
    people = _people(session, judged.able | reached.people.keys())
    names = Names({one.id: one.name for one in people.values()})
    quiet = judged.able & judged.known.quiet - reached.people.keys()
    return Foreseen(
        policy_version=tenant.policy_version,
        mode=judged.mode,
        first_state=judged.first_state,
        terms=judged.terms,
        reviewers=len(judged.managers) if judged.first_state is State.REVIEWING else 0,
        told_first=_mailed(session, reached, people, names),
        could_approve=names(judged.able) if decides else (),
        quiet=names(quiet) if decides else (),
        stages=preview.stages(judged, names) if decides else (),
        endpoints=_endpoints(session, reached.endpoints),
        copied=_copied(session, reached.watchers),
        warnings=tuple(_warnings(judged, reached, decides=decides)),
    )


def _warnings(judged: Judged, reached: Reached, *, decides: bool) -> Iterable[str]:
    if judged.tenant.suspended:
        yield SUSPENDED
    yield from judged.obstacles()
    if not reached.people:
        yield NOBODY_ASKED if decides else NOBODY_TOLD


def _people(session: Session, ids: Iterable[UUID]) -> dict[UUID, Person]:
    return {one.id: one for one in session.exec(select(Person).where(col(Person.id).in_(set(ids))))}


def _mailed(session: Session, reached: Reached, people: Mapping[UUID, Person], names: Names) -> tuple[Mailed, ...]:
    boxes = {box for held in reached.people.values() for box in held if box}
    query = select(Address.id, Address.email).where(col(Address.id).in_(boxes))
    further = dict(session.exec(query).all())
    return tuple(
        Mailed(name, tuple(further[box] if box else people[person].email for box in reached.people[person]))
        for person, name in names.of(reached.people)
    )


def _endpoints(session: Session, ids: Iterable[UUID]) -> tuple[str, ...]:
    query = select(Endpoint.description, Endpoint.url).where(col(Endpoint.id).in_(ids)).order_by(col(Endpoint.id))
    return tuple(said or urlsplit(url).hostname or "" for said, url in session.exec(query))


def _copied(session: Session, ids: Iterable[UUID]) -> tuple[Mailed, ...]:
    query = select(Watcher).where(col(Watcher.id).in_(ids)).order_by(col(Watcher.name), col(Watcher.id))
    return tuple(Mailed(one.name, (one.email,)) for one in session.exec(query))
