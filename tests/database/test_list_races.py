"""Lists are read twice, ids first: a request that is decided between the two reads is not listed."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from harness.people import World
from lockbox.database import UnitOfWork
from lockbox.identity.roles import Caller
from lockbox.requests import inbox, request_list, review_queue
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy

REVIEWED = Policy(vendor_review=True)


def _review(session: UnitOfWork, caller: Caller) -> Sequence[Any]:
    return review_queue.to_review(session, caller, cursor=None, most=10).items


def _inside(session: UnitOfWork, caller: Caller) -> Sequence[Any]:
    return inbox.open_windows(session, caller)[0]


@pytest.mark.parametrize(
    ("looking", "who", "deeds"),
    [
        (_review, "max", (("max", Action.ENDORSE),)),
        (_review, "max", (("erin", Action.CANCEL),)),
        (_inside, "ann", (("max", Action.ENDORSE), ("amir", Action.APPROVE), ("amir", Action.REVOKE))),
    ],
)
def test_a_request_decided_between_two_reads_of_a_list_is_not_listed(
    world: World, monkeypatch: pytest.MonkeyPatch, looking: Any, who: str, deeds: Sequence[tuple[str, Action]]
) -> None:
    *before, last = deeds
    reviewed = World.make(world.db, REVIEWED)
    kept, decided = (reviewed.fresh().id for _ in range(2))
    for request_id in (kept, decided):
        for name, action in before:
            reviewed.act(name, action, request_id)
    some = request_list.soonest

    def and_then(*given: Any, **named: Any) -> tuple[list[UUID], str | None]:
        found = some(*given, **named)
        reviewed.act(*last, decided)
        return found

    monkeypatch.setattr(request_list, "soonest", and_then)
    with reviewed.db.transaction() as session:
        listed = looking(session, reviewed.people[who])

    ids = [one.entry.request.id for one in listed]
    assert kept in ids
    assert decided not in ids
