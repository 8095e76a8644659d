"""What the trail says of itself, where a row beside the sealed body says something else."""

import csv
import io
import json
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from lockbox.audit import export, refused
from lockbox.audit.verify import GOOD
from lockbox.database import Database
from lockbox.people import context
from lockbox.requests.lifecycle import Action
from lockbox.requests.writing import Origin
from lockbox.tenancy import auditing
from tests.builders import ShiftedClock, Urls, World, unbound
from tests.database.postbag import Postbag, open_notices
from tests.database.scenes import read
from tests.database.test_checkpoint_notices import told
from tests.database.test_exports import DELETE, REMOVED, begun, exported, freely, judged, note, reads, story, write
from tests.database.test_keeping import age, denied, retain
from tests.logs import sealed

__all__ = ["story"]
HERE = Origin("api")
COUNT = "SELECT size FROM logs WHERE tenant_id IS NOT NULL"


def test_a_request_that_the_owner_hides_from_the_customer_is_missing_and_not_withheld(
    story: World, superuser: Engine
) -> None:
    seen = note(story)
    freely(superuser, "UPDATE requests SET asked_at = NULL")

    verdict = judged(exported(story), seen)

    assert verdict.exit_code != GOOD, (verdict.events, verdict.withheld, verdict.findings)


@pytest.mark.parametrize("column", ["action = 'deny'", "actor_role = 'clock', actor_id = NULL"])
def test_a_column_that_differs_from_the_sealed_body_shows(story: World, superuser: Engine, column: str) -> None:
    before = list(_table(story))
    freely(superuser, f"UPDATE events SET {column} WHERE seq = 2")

    verdict = judged(exported(story))

    assert verdict.exit_code != GOOD or list(_table(story)) == before, list(_table(story))[1]


def _table(world: World) -> list[dict[str, str]]:
    found = b"".join(export.table(auditing.pages(world.house, reads(world)), begun(world))).decode()
    return list(csv.DictReader(io.StringIO(found, newline="")))


def test_a_report_names_nobody_to_whom_the_event_does_not_commit(story: World, superuser: Engine) -> None:
    (request,) = read(story.house, "SELECT id FROM requests")
    freely(superuser, "UPDATE event_details SET value = 'Mallory' WHERE field = 'name' AND value = 'Ann'")

    with story.house.transaction() as session:
        found = auditing.report(session, story.people["tara"], HERE, request.id)

    assert "Mallory" not in {step.who for step in found.steps}


def test_a_report_on_what_retention_removed_says_so(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    request_id = denied(world, superuser)
    sealed(worker)
    assert retain(urls)

    with world.house.transaction() as session:
        auditing.report(session, world.people["tara"], HERE, request_id)


def test_a_checkpoint_that_was_told_does_not_make_a_silent_log_grow(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    post.endpoint(world, "https://tenant.example/audit", tenant_id=world.tenant.id)
    world.fresh()
    sealed(sender)
    told(sender)
    post.deliver(sender, open_notices(sender))
    sealed(sender)
    sizes = [read(unbound(sender), COUNT)[0].size]
    for hour in range(1, 4):
        later.shift = timedelta(minutes=61 * hour)
        sealed(sender)
        told(sender)
        post.deliver(sender, open_notices(sender))
        sealed(sender)
        sizes.append(read(unbound(sender), COUNT)[0].size)

    assert len(set(sizes)) == 1, sizes


def test_a_report_on_a_request_whose_first_moves_were_removed_says_so(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    first = world.fresh()
    waiting = world.fresh()
    world.act("ann", Action.DENY, first.id)
    for one in (first.id, waiting.id):
        age(superuser, one)
    sealed(worker)
    assert retain(urls)

    with world.house.transaction() as session:
        auditing.report(session, world.people["tara"], HERE, first.id)


def test_no_transaction_is_open_while_somebody_reads_what_was_removed(
    world: World, worker: Database, superuser: Engine
) -> None:
    write(world, 700)
    sealed(worker)
    freely(superuser, DELETE.replace("END", "512"))
    write(world, 1, REMOVED.replace("END", "512"))
    sealed(worker)
    lines = export.lines(auditing.pages(world.house, reads(world)), begun(world))

    open_ = [(world.house.engine.pool.checkedout(), line[:20]) for line in lines]

    assert [one for one in open_ if one[0]] == []


def test_an_event_of_the_apis_login_whose_body_says_something_else_is_not_sealed(
    world: World, worker: Database
) -> None:
    world.fresh()
    with world.house.transaction() as session:
        context.enter(session, world.people["tara"])
        session.connection().execute(
            text(
                "WITH e AS (INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body) VALUES "
                "(uuidv7(), :tenant, now(), 'signed_in', :tara, 'tenant_admin', "
                "convert_to(:body, 'UTF8')) "
                "RETURNING id) INSERT INTO unsealed SELECT id FROM e"
            ),
            {
                "tenant": world.tenant.id,
                "tara": world.people["tara"].person_id,
                "body": '{"action":"trail_removed","removed_from":0,"removed_to":9007199254740991}',
            },
        )
    sealed(worker)

    assert judged(exported(world)).exit_code == GOOD


def test_a_refusal_that_the_apis_login_counts_cannot_say_who_did_what_else(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    request = world.fresh()
    with world.house.transaction() as session:
        session.connection().execute(
            text(
                "SELECT count_refused(sha256('x'), now() - interval '5 minutes', 'decision_refused', NULL, :id, "
                "CAST(:facts AS jsonb), CAST('{}' AS jsonb))"
            ),
            {"id": request.id, "facts": json.dumps({"action": "approve", "seq": 2, "to_state": "active"})},
        )
    refused.settle(worker)

    (row,) = read(world.house, "SELECT body FROM events WHERE action = 'decision_refused'")
    assert json.loads(row.body)["action"] == "decision_refused"


def test_an_event_that_a_login_of_the_api_leaves_out_of_the_queue_is_sealed_all_the_same(
    world: World, worker: Database
) -> None:
    with world.house.transaction() as session:
        context.enter(session, world.people["tara"])
        session.connection().execute(
            text(
                "INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body) VALUES "
                "(uuidv7(), :tenant, now(), 'policy_changed', :tara, 'tenant_admin', '{}')"
            ),
            {"tenant": world.tenant.id, "tara": world.people["tara"].person_id},
        )
    sealed(worker)

    assert read(worker, "SELECT FROM seals s JOIN events e ON e.id = s.event_id WHERE e.action = 'policy_changed'")


def test_an_approval_says_by_which_policy_and_on_which_side(world: World) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    (row,) = read(world.house, "SELECT body FROM events WHERE seq = 2")

    body = json.loads(row.body)
    assert {"policy_version", "side"} <= body.keys(), sorted(body)


def test_an_event_that_a_login_of_the_api_queues_twice_stops_no_sealing(world: World, worker: Database) -> None:
    world.fresh()
    sealed(worker)
    (first,) = read(world.house, "SELECT id FROM events")
    with world.house.transaction() as session:
        session.connection().execute(text("INSERT INTO unsealed VALUES (:id)"), {"id": first.id})
    world.fresh()

    sealed(worker)

    (row,) = read(worker, "SELECT count(*) AS n FROM seals")
    assert row.n == 2
