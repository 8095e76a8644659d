"""Previewing a request: what it would meet and whom it would reach, without a trace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import Session, col, select

from config.settings import Service
from lockbox.identity.models import Person
from lockbox.identity.roles import Caller, Mode
from lockbox.notifications import outbox
from lockbox.notifications.outbox import News
from lockbox.requests.evaluate import NOBODY, Filing, Judged, judge, lacking
from lockbox.requests.lifecycle import Action, Party, State
from lockbox.requests.policy import customer_decides
from lockbox.requests.terms import Terms


@dataclass(frozen=True)
class Group:
    """Some of the customer's people who would be asked or could decide: names and how many, never an address."""

    name: str
    approvals: int
    people: tuple[str, ...]


@dataclass(frozen=True)
class Reached:
    """Whom of the customer it would reach first, and where: addresses by person, None for the one to sign in with."""

    people: Mapping[UUID, tuple[UUID | None, ...]]
    watchers: frozenset[UUID]
    endpoints: frozenset[UUID]


@dataclass(frozen=True)
class Mailboxes:
    """Somebody who would be told, and at how many addresses."""

    name: str
    mailboxes: int


@dataclass(frozen=True)
class Preview:
    """What a filing would meet now. `obstacles` say why nobody could approve it, `lacks` what the filing misses.

    `told_first` are those of the customer whom it would reach first, `endpoints` how many of its webhooks.
    """

    tenant_name: str
    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: tuple[str, ...]
    reviewers_asked_first: tuple[str, ...]
    stages: tuple[Group, ...]
    asked_first: tuple[str, ...]
    could_approve: tuple[str, ...]
    told_first: tuple[Mailboxes, ...]
    endpoints: int
    lacks: tuple[tuple[str, str], ...]
    obstacles: tuple[str, ...]


def preview(session: Session, caller: Caller, filing: Filing, services: Mapping[str, Service]) -> Preview:
    """Say which policy, stages, windows and people a filing would meet; nothing is written and nobody is told.

    Raises:
        NotYours, UnknownTenant, TenantSuspended, UnknownService, UnknownEngineer: as when it is filed.
    """
    judged = judge(session, caller, filing, services)
    decides = customer_decides(judged.mode)
    reviewing = judged.first_state is State.REVIEWING
    names, found = _names(session, judged), reached(judged)
    return Preview(
        tenant_name=judged.tenant.name,
        policy_version=judged.tenant.policy_version,
        mode=judged.mode,
        first_state=judged.first_state,
        terms=judged.terms,
        reviewers=names(judged.managers) if reviewing else (),
        reviewers_asked_first=names(judged.first_reviewers.people) if reviewing else (),
        stages=stages(judged, names) if decides else (),
        asked_first=names(judged.prompted) if decides else (),
        could_approve=names(judged.able) if decides else (),
        told_first=tuple(Mailboxes(name, len(found.people[one])) for one, name in names.of(found.people)),
        endpoints=len(found.endpoints),
        lacks=tuple(lacking(filing, judged.terms)),
        obstacles=tuple(judged.obstacles()),
    )


def reached(judged: Judged) -> Reached:
    """Return whom of the customer it would reach first: by asking, or by saying that the vendor opened it alone."""
    asks = customer_decides(judged.mode)
    move = News(
        event_id=NOBODY,
        request_id=NOBODY,
        tenant_id=judged.tenant.id,
        requester_id=judged.requester_id,
        actor_id=None,
        actor_role=Party.ENGINEER if asks else Party.MANAGER,
        action=Action.SUBMIT if asks else Action.ENDORSE,
        mode=judged.mode,
        service=judged.service,
        from_state=None if asks else State.REVIEWING,
        to_state=State.PENDING if asks else State.ACTIVE,
        customer_knows=True,
        at=judged.at,
        deadline_at=judged.at,
        asked=judged.prompted,
    )
    told = outbox.foreseen(judged.known, move)
    people: dict[UUID, tuple[UUID | None, ...]] = {}
    for one in told:
        if one.person_id and one.person_id != judged.requester_id:
            people[one.person_id] = (*people.get(one.person_id, ()), one.address_id)
    own = {receiver.id for receiver in judged.known.receivers[judged.tenant.id]}
    return Reached(
        people,
        frozenset(one.watcher_id for one in told if one.watcher_id),
        frozenset(one.endpoint_id for one in told if one.endpoint_id in own),
    )


class Names:
    """The names of everybody whom a preview may mention."""

    def __init__(self, known: Mapping[UUID, str]) -> None:
        self._known = known

    def __call__(self, people: Iterable[UUID]) -> tuple[str, ...]:
        """Return the names of those who may be mentioned, in order."""
        return tuple(name for _, name in self.of(people))

    def of(self, people: Iterable[UUID]) -> list[tuple[UUID, str]]:
        """Return those who may be mentioned with their names, in the order of these."""
        named = [(person, self._known[person]) for person in people if person in self._known]
        return sorted(named, key=lambda pair: (pair[1], pair[0]))


def _names(session: Session, judged: Judged) -> Names:
    everybody = judged.managers | judged.able | judged.known.admins[judged.tenant.id]
    rows = session.exec(select(Person.id, Person.name).where(col(Person.id).in_(everybody)))
    return Names(dict(rows.all()))


def stages(judged: Judged, names: Names) -> tuple[Group, ...]:
    """Return the groups that must also agree, each with who of it could."""
    standing_in = judged.known.deputies[judged.tenant.id]
    groups = []
    for stage in judged.terms.stages:
        members = frozenset(judged.policy.groups.get(stage.group, ()))
        deputies = {deputy for deputy, principals in standing_in.items() if principals & members}
        groups.append(Group(stage.group, stage.quorum, names(judged.able & (members | deputies))))
    return tuple(groups)
