"""Recovery over HTTP: an operator proposes, the tenant may object, and nothing happens before its time."""

from datetime import datetime, timedelta
from uuid import UUID

from lockbox.database import Database
from tests.database.scenes import read
from tests.each import each
from tests.http.door import Door, facts
from tests.http.places import invited, somebody
from tests.mailbox import sent_about


def test_a_recovery_takes_effect_after_72_hours_and_mails_no_invitation_before_that(
    fresh_door: Door, worker: Database
) -> None:
    answer = fresh_door.call("olga", "POST", fresh_door.path("/recovery"), json=somebody())

    body = answer.json()
    (row,) = read(fresh_door.root, "SELECT * FROM invitations WHERE id = :id", id=UUID(body["id"]))
    assert (answer.status_code, body.keys()) == (201, {"id", "takes_effect_at"})
    assert datetime.fromisoformat(body["takes_effect_at"]) - row.created_at == timedelta(hours=72)
    assert sent_about(worker, row.id) == []


def test_an_ordinary_invitation_cannot_be_objected_to(fresh_door: Door) -> None:
    one = invited(fresh_door)

    facts(fresh_door.call("ann", "POST", fresh_door.path(f"/recovery/{one.id}/object")), 404, "not-found")


@each(
    "changes", [{"roles": ["approver"]}, {"takes_effect_at": "2020-01-01T00:00:00Z"}, {"address": "x"}, {"name": ""}]
)
def test_an_invalid_recovery_proposal_is_refused(door: Door, changes: dict[str, object]) -> None:
    facts(door.call("olga", "POST", door.path("/recovery"), json=somebody() | changes), 422, "invalid-request")
