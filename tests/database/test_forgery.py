"""What the API's database role cannot forge in a person's context: each of these was, or would be, a way in."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.people import World
from harness.stage import Urls, unbound
from harness.wait import within
from lockbox.database import Database
from lockbox.identity.roles import Caller, Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.furnished import furnish, in_context
from tests.database.scenes import as_caller, read, state_of, telling, write

DECIDE = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
VALUES (uuidv7(), :request, :me, '{}', 'oidc', :decision, 'api', now())
"""
MOVED = telling(
    "uuidv7(), tenant_id, id, version + 1, now(), 'move', CAST(:me AS uuid), 'approver', state, CAST(:to AS text) "
    "FROM requests WHERE id = :request"
)
MOVE = f"WITH told AS ({MOVED}) UPDATE requests SET {{change}}, version = version + 1 WHERE id = :request"  # noqa: S608 - our own SQL
OPEN = MOVE.format(
    change="state = 'active', opened_at = now(), deadline_at = now() + interval '1 minute', "
    "wake_at = now() + interval '1 minute'"
)
HIDE = MOVE.format(change="asked_at = NULL")
DENY = MOVE.format(change="state = 'denied', closed_at = now(), wake_at = NULL")
SUBMITTED = telling(
    "uuidv7(), CAST(:tenant AS uuid), CAST(:request AS uuid), 1, now(), 'submit', CAST(:me AS uuid), 'engineer', "
    "CAST(NULL AS text), 'reviewing'"
)
FILE = f"""
WITH told AS ({SUBMITTED})
INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification, mode,
    policy_version, submitted_by, quorum, approval_window, access_window, state, version, deadline_at, wake_at,
    created_at)
VALUES (:request, :tenant, :me, 'exchange-online', '{{mailbox:a}}', '{{read}}', 'support_case', 'x', :mode, 1,
    :submitter, 1, 3600, 3600, 'reviewing', 1, now() + interval '1 hour', now() + interval '1 hour', now())
"""  # noqa: S608 - our own SQL
TELL = telling(
    "uuidv7(), CAST(:tenant AS uuid), CAST(:request AS uuid), CAST(NULL AS integer), now(), 'deny', "
    "CAST(:actor AS uuid), 'approver', CAST(NULL AS text), CAST(NULL AS text)"
)
ADD_DETAIL = """
INSERT INTO event_details (event_id, fields) VALUES (:event, '{"remark"\\: ["", "forged"]}')
"""
NOTIFY = """
INSERT INTO notifications (id, tenant_id, request_id, event_id, person_id, channel, template, run_at, until_at,
attempts)
VALUES (uuidv7(), :tenant, :request, :event, :person, 'mail', 'active', now(), now() + interval '1 day', 0)
"""
CALL = """
INSERT INTO notifications (id, tenant_id, request_id, event_id, endpoint_id, channel, template, run_at, until_at,
attempts)
VALUES (uuidv7(), :tenant, :request, NULL, :endpoint, 'webhook', 'member_added', now(), now() + interval '1 day', 0)
"""
FOUND = """
WITH policy AS (
    INSERT INTO policies (tenant_id, version, body, created_at) VALUES (:tenant, 1, '{}', now())
)
INSERT INTO tenants (id, slug, name, mode, suspended, plan, policy_version, created_at)
VALUES (:tenant, :slug, 'New', :mode, false, 'standard', 1, now())
"""
LAY_DOWN = "INSERT INTO policies VALUES (:tenant, 2, CAST(:body AS jsonb), NULL, now())"
REVOKE = "UPDATE {table} SET revoked_at = {at}"
INVITE = """
INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at)
VALUES (uuidv7(), :tenant, 'mallory@example.test', 'Mallory', '{tenant_admin}', :recovery, :me, now(), now())
"""
NEW_PERSON = "INSERT INTO people (id, name, email, side, created_at) VALUES (:new, 'Mallory', :email, :side, now())"
JOIN = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :new, :tenant, 'approver')"
IS_DECIDED = """
SELECT is_decided(jsonb_populate_record(NULL::requests, jsonb_build_object('id', CAST(:request AS text),
    'mode', 'enforce', 'quorum', 1, 'requester_id', CAST(:me AS text))))
"""
SEES = {
    "requests": "SELECT FROM requests WHERE id = :id",
    "events": "SELECT FROM events WHERE request_id = :id",
    "notifications": "SELECT FROM notifications WHERE request_id = :id",
}
APPROVALS = "SELECT FROM decisions WHERE request_id = :id AND decision = 'approve'"
EVENTS = "SELECT FROM events WHERE request_id = :id"
REMOVE = "DELETE FROM memberships WHERE person_id = :who AND role = 'tenant_admin'"
WAITS = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
END = "UPDATE invitations SET {end} = now()"
NOTHING = "nothing was there to do it to"
DELEGATE = """
INSERT INTO delegations (id, tenant_id, principal_id, delegate_id, starts_at, ends_at, made_by, created_at)
VALUES (uuidv7(), :tenant, :principal, :delegate, now(), now() + interval '1 day', :by, now())
"""


@pytest.fixture
def world(api: Database) -> World:
    """A tenant in mode enforce, with a request in review, a pending one and an open window.

    Its auditor Aude is Ann's delegate; its auditor Ada is no one's delegate.
    """
    world = furnish(api)
    world.add("ada", Role.AUDITOR, world.tenant.id)
    return world


def _request(world: World, state: str) -> UUID:
    (row,) = read(world.db, "SELECT id FROM requests WHERE state = :state AND NOT break_glass", state=state)
    return UUID(str(row.id))


def _event(world: World, request_id: UUID) -> UUID:
    (row,) = read(world.db, "SELECT id FROM events WHERE request_id = :id AND seq = 1", id=request_id)
    return UUID(str(row.id))


def _vain(world: World, who: str | Caller | None, statement: str, at: UUID | None = None, **values: object) -> str:
    """Check that an SQL statement is refused or changes nothing; return the message. `me` is the caller's id."""
    caller = world.people[who] if isinstance(who, str) else who
    try:
        with in_context(world.db, caller, at=at) as connection:
            done = connection.execute(text(statement), values | {"me": caller and caller.person_id})
            count = len(done.all()) if done.returns_rows else done.rowcount
    except DBAPIError as refused:
        return str(refused.orig)
    assert count == 0, f"done as {who}: {statement}"
    return NOTHING


def _files_in_vain(world: World, submitter: UUID | None, mode: str) -> str:
    """Check that Erin cannot submit in that mode against that person's limit; return the message."""
    values = {"tenant": world.tenant.id, "request": new_id(), "mode": mode, "submitter": submitter}
    return _vain(world, "erin", FILE, at=world.tenant.id, **values)


def _with_code(world: World, *statements: str, **values: object) -> bool:
    """Return whether a person with the code of the only invitation can run all these SQL statements."""
    (row,) = read(world.db, "SELECT id::text FROM invitations")
    code = {"id": row.id, "hash": hashlib.sha256(b"code").digest()}
    try:
        with world.db.engine.begin() as connection:
            connection.execute(text("SELECT FROM authenticate('invitation', :id, :hash)"), code)
            done = [connection.execute(text(statement), values) for statement in statements]
            return all(one.all() if one.returns_rows else one.rowcount for one in done)
    except DBAPIError:
        return False


def _past_triggers(world: World, statement: str, **values: object) -> None:
    """Set a scene with the triggers switched off."""
    with unbound(world.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(statement), values)


def _stranger(world: World) -> Caller:
    return World.make(world.db).people["tara"]


def test_only_the_approvers_of_a_tenant_write_approvals_for_that_tenant(world: World) -> None:
    request_id = _request(world, "pending")

    for who in ("mia", "max", "vera", "ada", "tara", "erin", "olga"):
        _vain(world, who, DECIDE, request=request_id, decision="approve")

    assert not read(world.db, APPROVALS, id=request_id)


def test_a_manager_cannot_open_a_window_in_mode_enforce_without_the_customer(world: World) -> None:
    request_id = _request(world, "pending")
    _vain(world, "mia", DECIDE, request=request_id, decision="approve")

    said = _vain(world, "mia", OPEN, at=world.tenant.id, request=request_id, to="active")

    assert "only an approver, with the last vote" in said or "row-level security" in said
    assert state_of(world.db, request_id) == "pending"


def test_a_vendor_person_cannot_approve_as_a_delegate(world: World) -> None:
    request_id, mia = _request(world, "pending"), world.people["mia"].person_id
    pair = {"tenant": world.tenant.id, "principal": world.people["ann"].person_id, "delegate": mia}

    _vain(world, "tara", "INSERT INTO eligible_delegates VALUES (:tenant, :mia)", tenant=world.tenant.id, mia=mia)
    _vain(world, "tara", DELEGATE, by=world.people["tara"].person_id, **pair)
    _past_triggers(world, "INSERT INTO eligible_delegates SELECT tenant_id, :mia FROM eligible_delegates", mia=mia)
    _past_triggers(world, DELEGATE, by=world.people["tara"].person_id, **pair)
    _vain(world, "mia", DECIDE, at=world.tenant.id, request=request_id, decision="approve")

    assert not read(world.db, APPROVALS, id=request_id)


@pytest.mark.parametrize("who", ["erin", "mia"])
def test_neither_requester_nor_manager_opens_an_unapproved_window(world: World, who: str) -> None:
    legal = Policy(
        vendor_review=False,
        groups={"legal": (world.people["abe"].person_id,)},
        stages=(ApprovalStage(group="legal"),),
    )
    write(unbound(world.db), LAY_DOWN, tenant=world.tenant.id, body=legal.model_dump_json())
    write(unbound(world.db), "UPDATE tenants SET policy_version = 2 WHERE id = :id", id=world.tenant.id)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)

    _vain(world, who, OPEN, at=world.tenant.id, request=request.id, to="active")

    assert state_of(world.db, request.id) == "pending"


def test_only_managers_write_endorsements(world: World) -> None:
    request_id = _request(world, "reviewing")

    for who in ("vera", "ada", "ann", "tara", "erin", "olga"):
        _vain(world, who, DECIDE, request=request_id, decision="endorse")

    assert not read(world.db, "SELECT FROM decisions WHERE request_id = :id", id=request_id)


def test_an_engineer_cannot_submit_in_a_mode_other_than_the_mode_of_the_tenant(world: World) -> None:
    for mode in ("off", "observe"):
        _files_in_vain(world, world.people["erin"].person_id, mode)

    assert {row.mode for row in read(world.db, "SELECT mode FROM requests")} == {"enforce"}


def test_a_submission_counts_against_the_limit_of_the_person_who_submits(world: World) -> None:
    erin, eve = (world.people[name].person_id for name in ("erin", "eve"))
    submission = {"tenant": world.tenant.id, "request": new_id(), "mode": "enforce", "me": erin, "submitter": erin}

    said = [_files_in_vain(world, submitter, "enforce") for submitter in (eve, None)]
    with as_caller(world.db, world.people["erin"], world.tenant.id) as connection:
        submitted = connection.execute(text(FILE), submission).rowcount

    assert all("row-level security policy" in one for one in said)
    assert submitted == 1


def test_a_request_cannot_be_hidden_from_a_customer_who_was_asked(world: World) -> None:
    request_id = _request(world, "pending")

    for who in ("erin", "max"):
        _vain(world, who, HIDE, at=world.tenant.id, request=request_id, to="pending")

    (row,) = read(world.db, "SELECT asked_at FROM requests WHERE id = :id", id=request_id)
    assert row.asked_at is not None


def test_the_customer_sees_only_a_count_of_requests_in_review(world: World) -> None:
    request_id = _request(world, "reviewing")
    queries = [query for query in SEES.values() if read(world.db, query, id=request_id)]

    for who in ("ann", "amir", "ada", "aude"):
        for query in queries:
            _vain(world, who, query, id=request_id)

    assert len(queries) == len(SEES)


def test_a_customer_auditor_cannot_move_a_request(world: World) -> None:
    request_id = _request(world, "pending")

    _vain(world, "ada", DENY, request=request_id, to="denied")

    assert state_of(world.db, request_id) == "pending"


def test_an_operator_cannot_change_a_request(world: World) -> None:
    said = _vain(world, "olga", "UPDATE requests SET asked_at = now()")

    assert said == NOTHING


def test_an_event_names_the_tenant_of_its_request_and_a_person_of_that_tenant(world: World) -> None:
    request_id, stranger = _request(world, "active"), _stranger(world)
    before = len(read(world.db, EVENTS, id=request_id))

    for tenant_id in (None, *stranger.tenants()):
        values = {"tenant": tenant_id, "request": request_id, "actor": stranger.person_id}
        _vain(world, stranger, TELL, **values)

    assert len(read(world.db, EVENTS, id=request_id)) == before


def test_an_event_written_in_another_persons_name_is_refused(world: World) -> None:
    request_id, ann = _request(world, "active"), world.people["ann"].person_id

    for who, at in (("abe", None), ("erin", world.tenant.id), ("olga", world.tenant.id), ("eve", world.tenant.id)):
        _vain(world, who, TELL, at=at, tenant=world.tenant.id, request=request_id, actor=ann)

    assert not read(world.db, "SELECT FROM events WHERE actor_id = :ann AND action = 'deny'", ann=ann)


def test_without_a_database_context_no_event_or_notification_is_written(world: World) -> None:
    request_id, ann = _request(world, "active"), world.people["ann"].person_id
    told = {"tenant": None, "request": request_id, "actor": ann, "person": ann, "event": new_id()}

    for statement in (TELL, NOTIFY):
        _vain(world, None, statement, **told)

    assert not read(world.db, "SELECT FROM events WHERE actor_id = :ann AND action = 'deny'", ann=ann)


def test_nothing_can_be_added_to_a_written_event(world: World) -> None:
    event_id = _event(world, _request(world, "active"))
    stranger = _stranger(world)

    for who in (stranger, "ann", "erin"):
        _vain(world, who, ADD_DETAIL, event=event_id)

    assert not read(world.db, "SELECT FROM event_details WHERE fields ? 'remark'")


def test_no_notification_of_a_request_reaches_a_person_not_involved_in_the_request(world: World) -> None:
    request_id, stranger = _request(world, "active"), _stranger(world)
    values = {"request": request_id, "event": _event(world, request_id), "person": stranger.person_id}

    for tenant_id in (None, *stranger.tenants()):
        _vain(world, stranger, NOTIFY, tenant=tenant_id, **values)

    assert not read(world.db, "SELECT FROM notifications WHERE person_id = :id", id=stranger.person_id)


def test_no_forged_notification_blocks_a_notification_of_a_request(world: World) -> None:
    """A forged row, written first, would count as the notification, which would never be sent."""
    request_id, ann = _request(world, "active"), world.people["ann"].person_id
    values = {"tenant": world.tenant.id, "request": None, "event": _event(world, request_id), "person": ann}

    for who, at in (("ann", None), ("erin", world.tenant.id)):
        assert "tells of a request" in _vain(world, who, NOTIFY, at=at, **values)


def test_a_notification_about_a_tenant_reaches_no_stranger_and_no_endpoint_of_another_tenant(world: World) -> None:
    stranger = _stranger(world)
    here = {"tenant": next(iter(stranger.tenants())), "request": None}
    (told,) = read(world.db, "SELECT id FROM events WHERE request_id IS NULL AND tenant_id = :t", t=world.tenant.id)
    (endpoint,) = read(world.db, "SELECT id FROM endpoints WHERE tenant_id = :t", t=world.tenant.id)

    _vain(world, stranger, NOTIFY, event=told.id, person=stranger.person_id, **here)
    _vain(world, stranger, CALL, endpoint=endpoint.id, **here)


def test_an_operator_can_add_a_tenant_only_in_mode_enforce(world: World) -> None:
    for mode in ("off", "observe"):
        _vain(world, "olga", FOUND, tenant=new_id(), mode=mode, slug=f"born-{mode}")


@pytest.mark.parametrize("table", ["tokens", "sessions"])
def test_a_revoked_credential_cannot_be_revived(world: World, table: str) -> None:
    write(unbound(world.db), REVOKE.format(table=table, at="now()"))

    for who in ("ann", "erin"):
        _vain(world, who, REVOKE.format(table=table, at="NULL"))


def test_an_ended_delegation_cannot_be_restarted(world: World) -> None:
    write(unbound(world.db), "UPDATE delegations SET ended_at = now()")

    for who in ("ann", "tara"):
        _vain(world, who, "UPDATE delegations SET ended_at = NULL")


def test_an_operator_cannot_skip_the_recovery_wait(world: World) -> None:
    for is_recovery in (False, True):
        _vain(world, "olga", INVITE, at=world.tenant.id, tenant=world.tenant.id, recovery=is_recovery)

    assert not read(world.db, "SELECT FROM invitations WHERE name = 'Mallory'")


@pytest.mark.parametrize("end", ["withdrawn_at", "accepted_at", "expires_at"])
def test_an_ended_invitation_cannot_be_accepted(world: World, end: str) -> None:
    _past_triggers(world, END.format(end=end))
    values = {"new": new_id(), "email": "mallory@example.test", "side": "customer", "tenant": world.tenant.id}
    (before,) = read(world.db, "SELECT * FROM invitations")

    _with_code(world, "UPDATE invitations SET withdrawn_at = NULL, withdrawn_by = NULL")
    _with_code(world, "UPDATE invitations SET accepted_at = NULL, accepted_by = NULL")
    seen = _with_code(world, "SELECT FROM people WHERE name = 'Ann'")
    joined = _with_code(world, NEW_PERSON, JOIN, **values)

    (after,) = read(world.db, "SELECT * FROM invitations")
    assert (seen, joined, tuple(after)) == (False, False, tuple(before))
    assert not read(world.db, "SELECT FROM people WHERE name = 'Mallory'")


def test_only_the_addressee_can_accept_an_invitation_and_only_on_the_inviting_side(world: World) -> None:
    (row,) = read(world.db, "SELECT email FROM invitations")
    stranger = _stranger(world).person_id

    assert not _with_code(world, NEW_PERSON, new=new_id(), email=row.email, side="vendor")
    assert not _with_code(world, NEW_PERSON, new=new_id(), email="mallory@example.test", side="customer")
    assert not _with_code(world, JOIN, new=stranger, tenant=world.tenant.id)

    assert not read(world.db, "SELECT FROM people WHERE name = 'Mallory'")
    assert not read(world.db, "SELECT FROM memberships WHERE person_id = :p AND tenant_id = :t", p=stranger,
                    t=world.tenant.id)  # fmt: skip


@pytest.mark.far
def test_a_member_cannot_accept_or_revive_an_invitation_addressed_to_someone_else(world: World) -> None:
    for who in ("aude", "ann", "tara"):
        _vain(world, who, "UPDATE invitations SET accepted_at = now(), accepted_by = :me")
    _past_triggers(world, "UPDATE invitations SET withdrawn_at = now(), withdrawn_by = invited_by")

    for who in ("aude", "ann", "tara"):
        _vain(world, who, "UPDATE invitations SET withdrawn_at = NULL, withdrawn_by = NULL")


def test_an_admin_cannot_read_the_address_of_a_stranger_by_adding_the_stranger(world: World) -> None:
    stranger, ann = _stranger(world), world.people["ann"].person_id

    _vain(world, stranger, JOIN, new=ann, tenant=next(iter(stranger.tenants())))
    _vain(world, stranger, "SELECT email FROM people WHERE id = :ann", ann=ann)


def test_disabling_a_person_cannot_remove_the_last_admin(world: World) -> None:
    _vain(world, "tara", "UPDATE people SET disabled_at = now() WHERE id = :me")

    assert not read(world.db, "SELECT FROM people WHERE disabled_at IS NOT NULL")


def test_a_disabled_person_cannot_re_enable_themselves(world: World) -> None:
    for who in ("eve", "abe"):
        disabled = world.people[who].person_id
        write(unbound(world.db), "UPDATE people SET disabled_at = now() WHERE id = :id", id=disabled)
        _vain(world, who, "UPDATE people SET disabled_at = NULL WHERE id = :me")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :other",
        "UPDATE people SET wants_prompts = false WHERE id = :other",
    ],
)
def test_mail_preferences_of_another_person_cannot_be_changed(world: World, statement: str) -> None:
    for who, other in (("olga", "max"), ("olga", "ann"), ("tara", "ann"), ("max", "erin"), ("ann", "amir")):
        _vain(world, who, statement, at=world.tenant.id, other=world.people[other].person_id)

    assert not read(world.db, "SELECT FROM people WHERE time_zone <> 'UTC' OR NOT wants_prompts")


def test_a_stored_time_zone_must_be_a_zone_name(world: World) -> None:
    for name in ("../../etc/passwd", "/etc/localtime", "", "a b", "Europe/Berlin\n"):
        _vain(world, "ann", "UPDATE people SET time_zone = :name WHERE id = :me", name=name)


def test_admins_who_remove_each_other_in_repeatable_read_transactions_leave_one_admin(
    world: World, urls: Urls
) -> None:
    tara, tom = world.people["tara"], world.add("tom", Role.TENANT_ADMIN, world.tenant.id)
    engine = create_engine(urls.api, poolclass=NullPool, isolation_level="REPEATABLE READ")

    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[bool]] = []

        def begin() -> None:
            begun.append(pool.submit(_removed, engine, tom, tara.person_id))
            within(2, lambda: begun[0].done() or read(unbound(world.db), WAITS))

        if not _removed(engine, tara, tom.person_id, begin):
            begin()
        begun[0].result()

    assert read(world.db, "SELECT FROM memberships WHERE role = 'tenant_admin' AND tenant_id = :t",
                t=world.tenant.id)  # fmt: skip


def _removed(engine: Engine, caller: Caller, other: UUID, meanwhile: Callable[[], None] | None = None) -> bool:
    try:
        with as_caller(engine, caller) as connection:
            done = connection.execute(text(REMOVE), {"who": other}).rowcount == 1
            if meanwhile:
                meanwhile()
            return done
    except DBAPIError:
        return False


def test_no_privileged_database_function_reveals_a_request_to_a_stranger(world: World) -> None:
    request_id, stranger = _request(world, "active"), _stranger(world)

    with as_caller(world.db, stranger) as connection:
        decided = connection.execute(text(IS_DECIDED), {"request": str(request_id), "me": str(stranger.person_id)})
        submitted = connection.execute(text("SELECT tenant_at FROM nth_submission(:t, 1, 1)"), {"t": world.tenant.id})
        told = decided.scalar_one(), submitted.scalar_one()

    assert told == (False, None)


def test_a_customer_cannot_read_vendor_endpoints(world: World) -> None:
    for who in ("ann", "tara", "aude"):
        _vain(world, who, "SELECT url FROM endpoints WHERE tenant_id IS NULL")
        _vain(world, who, "SELECT secret FROM endpoints WHERE tenant_id IS NULL")


def test_policy_and_delegation_rows_must_name_the_person_who_writes_them(world: World) -> None:
    ann, abe = world.people["ann"].person_id, world.people["abe"].person_id
    delegation = {"tenant": world.tenant.id, "principal": ann, "delegate": world.people["aude"].person_id, "by": abe}

    _vain(world, "tara", "INSERT INTO policies VALUES (:t, 2, '{}', :ann, now())", t=world.tenant.id, ann=ann)
    _vain(world, "ann", DELEGATE, **delegation)


def test_only_eligible_delegates_of_approvers_can_be_named_as_delegates(world: World) -> None:
    ann, aude, tara = (world.people[name].person_id for name in ("ann", "aude", "tara"))

    _vain(world, "ann", DELEGATE, tenant=world.tenant.id, principal=ann, delegate=tara, by=ann)
    _vain(world, "aude", DELEGATE, tenant=world.tenant.id, principal=aude, delegate=tara, by=aude)
