"""What the people of the load and the prober have seen, as whoever checks reads it afterwards."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Acknowledged:
    """Something that was answered with 200 or 201: a filing, or an act by somebody; moments of the wall clock."""

    request_id: UUID
    tenant_id: UUID
    action: str
    by: UUID
    version: int
    sent: float
    answered: float


@dataclass(frozen=True)
class Opened:
    """An answer of the prober's that the door is open; moments of the wall clock, before and after."""

    resource: str
    request_id: UUID
    sent: float
    answered: float


@dataclass
class Journal:
    """All of it. `resources` are what was asked for, each once, whether or not anybody ever heard that it was filed.

    `statuses` counts every answer to the load, `surprises` are those that nobody should ever get, and `foreign` are
    places in which somebody was shown something of another customer. `checks` counts the prober's questions by their
    answer; 0 is none at all.
    """

    acknowledged: list[Acknowledged] = field(default_factory=list)
    resources: dict[str, UUID] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    checks: Counter[int] = field(default_factory=Counter)

    def closed_at(self, actions: Iterable[str]) -> dict[UUID, float]:
        """Return for each request when somebody who ended it by one of these acts had the answer."""
        wanted = set(actions)
        return {one.request_id: one.answered for one in self.acknowledged if one.action in wanted}
