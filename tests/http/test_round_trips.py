"""How often a call asks the database: a round trip costs more than its statements, on both sides of the wire."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import event

from lockbox.call_groups.pipelines import Sent, SharedTransaction
from tests.http.door import Door


@pytest.fixture
def asked(fresh_door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements and whole pipelines that the API has sent since it recorded a use of each token."""
    for who in ("erin", "ann", "gate"):
        fresh_door.get(who, "/v1/me")
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    async def send(shared: SharedTransaction, sent: Sequence[Sent]) -> object:
        statements.append("a pipeline")
        return await send_all(shared, sent)

    send_all = SharedTransaction.send
    monkeypatch.setattr(SharedTransaction, "send", send)
    event.listen(fresh_door.db.engine, "before_cursor_execute", note)
    yield statements
    event.remove(fresh_door.db.engine, "before_cursor_execute", note)


def test_frequent_calls_take_few_database_round_trips(fresh_door: Door, asked: list[str]) -> None:
    submitted = fresh_door.file()
    of_submission = len(asked)
    fresh_door.act("ann", "approve", submitted.json()["id"])
    of_approval = len(asked) - of_submission
    answer = fresh_door.ask("gate")
    of_check = len(asked) - of_submission - of_approval

    assert answer.status_code == 200
    assert (of_submission, of_approval, of_check) == (2, 3, 1)


@pytest.mark.far
def test_each_move_takes_three_database_round_trips(fresh_door: Door, asked: list[str]) -> None:
    """One for caller and lock, one for facts, one for writes. A request for a denied resource goes to a manager."""
    again: dict[str, Any] = {"resources": ["mailbox:again@contoso.example"]}
    moves: list[tuple[str, str, Callable[[], str]]] = [
        ("ann", "deny", lambda: fresh_door.pending(**again)),
        ("max", "endorse", lambda: str(fresh_door.world.submit(**again).id)),
        ("ann", "approve", fresh_door.pending),
        ("erin", "cancel", fresh_door.pending),
        ("ann", "revoke", fresh_door.active),
        ("erin", "complete", fresh_door.active),
    ]
    taken = {}

    for who, action, made in moves:
        request = made()
        fresh_door.get(who, "/v1/me")
        before = len(asked)
        answer = fresh_door.act(who, action, request)
        taken[action] = answer.status_code, len(asked) - before

    assert taken == dict.fromkeys(taken, (200, 3))
