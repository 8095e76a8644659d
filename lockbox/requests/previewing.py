"""Previewing a request: what it would meet and whom it would reach, without a trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import Session, col, select

from config.settings import Service
from lockbox.people.models import Person
from lockbox.people.roles import Caller, Mode
from lockbox.requests.judging import Filing, Judged, judge, lacking
from lockbox.requests.lifecycle import State
from lockbox.requests.policy import customer_decides
from lockbox.requests.terms import Terms


@dataclass(frozen=True)
class Group:
    """Some of the customer's people who would be asked or could decide: names and how many, never an address."""

    name: str
    approvals: int
    people: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What a filing would meet now. `obstacles` say why nobody could approve it, `lacks` what the filing misses."""

    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: tuple[str, ...]
    reviewers_asked_first: tuple[str, ...]
    stages: tuple[Group, ...]
    asked_first: tuple[str, ...]
    could_approve: tuple[str, ...]
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
    names = _names(session, judged)
    return Preview(
        policy_version=judged.tenant.policy_version,
        mode=judged.mode,
        first_state=judged.first_state,
        terms=judged.terms,
        reviewers=names(judged.managers) if reviewing else (),
        reviewers_asked_first=names(judged.first_reviewers.people) if reviewing else (),
        stages=tuple(_stages(judged, names)) if decides else (),
        asked_first=names(judged.prompted) if decides else (),
        could_approve=names(judged.able) if decides else (),
        lacks=tuple(lacking(filing, judged.terms)),
        obstacles=tuple(judged.obstacles()),
    )


class _Names:
    """The names of everybody whom a preview may mention."""

    def __init__(self, known: Mapping[UUID, str]) -> None:
        self._known = known

    def __call__(self, people: frozenset[UUID]) -> tuple[str, ...]:
        return tuple(sorted(self._known[person] for person in people if person in self._known))


def _names(session: Session, judged: Judged) -> _Names:
    everybody = judged.managers | judged.able
    rows = session.exec(select(Person.id, Person.name).where(col(Person.id).in_(everybody)))
    return _Names(dict(rows.all()))


def _stages(judged: Judged, names: _Names) -> Sequence[Group]:
    standing_in = judged.known.deputies[judged.tenant.id]
    groups = []
    for stage in judged.terms.stages:
        members = frozenset(judged.policy.groups.get(stage.group, ()))
        deputies = {deputy for deputy, principals in standing_in.items() if principals & members}
        groups.append(Group(stage.group, stage.quorum, names(judged.able & (members | deputies))))
    return groups
