"""No request is active without the decisions for it: refused by the database itself, as the transaction commits."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.people import World
from harness.stage import Urls, unbound
from lockbox.database import NO_KEYS, Database, UnitOfWork, WarnedSession, postgres_clock
from lockbox.facts.enumerations import Mode
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, read, state_of, telling, write

DECIDE = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
SELECT uuidv7(), id, :person, '{}', 'oidc', :decision, 'api', now() FROM requests
"""
TOLD = telling(
    "uuidv7(), tenant_id, id, version + 1, now(), 'open', CAST(:opener AS uuid), 'opener', state, 'active' "
    "FROM requests"
)
OPEN = f"""
WITH told AS ({TOLD})
UPDATE requests SET state = 'active', opened_at = now(), asked_at = coalesce(asked_at, now()), version = version + 1,
    deadline_at = now() + interval '1 minute', wake_at = now() + interval '1 minute'
"""  # noqa: S608 - our own SQL
Decision = tuple[str, str]


def _decide(world: World, connection: Connection, decision: Decision) -> None:
    who, action = decision
    decided = connection.execute(text(DECIDE), {"person": world.people[who].person_id, "decision": action})
    assert decided.rowcount == 1


def _waiting(api: Database, mode: Mode, quorum: int) -> tuple[World, UUID]:
    """Make a world whose one request waits for whoever decides in that mode."""
    world = World.make(api, Policy(vendor_review=False, quorum=quorum), mode)
    world.add("abby", Role.APPROVER, world.tenant.id)
    return world, world.submit().id


def _opener(world: World) -> Caller:
    """Return somebody who could open the request and has decided nothing about it."""
    return world.people["abby" if world.tenant.mode is Mode.ENFORCE else "mia"]


def _open(world: World, connection: Connection) -> None:
    """Open the one request by hand."""
    opened = connection.execute(text(OPEN), {"opener": _opener(world).person_id})
    assert opened.rowcount == 1


def _open_with(world: World, engine: Engine, decisions: Sequence[Decision]) -> None:
    """Let the one request have these decisions and no others, whoever may give them, and open it as that login."""
    with unbound(world.db).begin() as connection:
        for decision in decisions:
            _decide(world, connection, decision)
    with as_caller(engine, _opener(world), at=world.tenant.id) as connection:
        _open(world, connection)


@pytest.mark.parametrize(
    ("mode", "quorum", "decisions"),
    [
        (Mode.ENFORCE, 1, []),
        (Mode.ENFORCE, 1, [("max", "endorse")]),
        (Mode.ENFORCE, 1, [("erin", "approve")]),
        (Mode.ENFORCE, 1, [("max", "endorse"), ("max", "approve")]),
        (Mode.ENFORCE, 1, [("ann", "approve"), ("amir", "deny")]),
        (Mode.ENFORCE, 1, [("ann", "approve"), ("ann", "deny")]),
        (Mode.ENFORCE, 2, [("ann", "approve")]),
        (Mode.ENFORCE, 2, [("ann", "approve"), ("erin", "approve")]),
        (Mode.ENFORCE, 2, [("ann", "approve"), ("max", "endorse"), ("max", "approve")]),
        (Mode.ENFORCE, 3, [("ann", "approve"), ("amir", "approve"), ("abe", "deny")]),
        (Mode.OBSERVE, 1, []),
        (Mode.OBSERVE, 1, [("ann", "approve")]),
        (Mode.OBSERVE, 1, [("erin", "endorse")]),
        (Mode.OFF, 1, []),
        (Mode.OFF, 1, [("erin", "endorse")]),
    ],
)
def test_a_window_without_its_decisions_is_refused(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world, request_id = _waiting(api, mode, quorum)
    before = state_of(api, request_id)

    with pytest.raises(DBAPIError, match="active without the decisions for it"):
        _open_with(world, api.engine, decisions)

    assert state_of(api, request_id) == before != "active"
    assert len(read(api, "SELECT FROM decisions")) == len(decisions)
    assert len(read(api, "SELECT FROM events")) == 1


@pytest.mark.parametrize("login", ["superuser", "owner", "api"])
def test_no_login_opens_a_window_without_its_decisions(urls: Urls, api: Database, login: str) -> None:
    world, request_id = _waiting(api, Mode.ENFORCE, quorum=1)
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    with pytest.raises(DBAPIError, match="active without the decisions for it"):
        _open_with(world, engine, [("max", "endorse")])

    assert state_of(api, request_id) == "pending"


def test_the_database_lets_nobody_open_alone_what_the_customer_decides(urls: Urls, api: Database) -> None:
    world, request_id = _waiting(api, Mode.OBSERVE, quorum=1)
    write(unbound(api), "UPDATE tenants SET mode = 'enforce'")

    for login in ("superuser", "owner", "api"):
        engine = create_engine(getattr(urls, login), poolclass=NullPool)
        with pytest.raises(DBAPIError, match="the customer decides about request"):
            _open_with(world, engine, [("max", "endorse")] if login == "superuser" else [])

    assert state_of(api, request_id) == "reviewing"


@pytest.mark.parametrize(("mode", "looser"), [(Mode.ENFORCE, "observe"), (Mode.OBSERVE, "off")])
def test_no_login_makes_the_mode_of_a_request_looser(urls: Urls, api: Database, mode: Mode, looser: str) -> None:
    world = World.make(api, Policy(), mode)
    request_id = world.submit().id

    for login in ("superuser", "owner", "api"):
        engine = create_engine(getattr(urls, login), poolclass=NullPool)
        with (
            pytest.raises(DBAPIError, match="only gets stricter"),
            as_caller(engine, world.people["max"]) as connection,
        ):
            connection.execute(
                text("UPDATE requests SET mode = :mode, version = version + 1, state = 'pending'"), {"mode": looser}
            )

    assert read(api, "SELECT mode FROM requests WHERE id = :id", id=request_id)[0].mode == mode


ENOUGH: list[tuple[Mode, int, list[Decision]]] = [
    (Mode.ENFORCE, 1, [("ann", "approve")]),
    (Mode.ENFORCE, 2, [("ann", "approve"), ("amir", "approve")]),
    (Mode.OBSERVE, 1, [("max", "endorse")]),
    (Mode.OFF, 1, [("max", "endorse")]),
]


@pytest.mark.parametrize(("mode", "quorum", "decisions"), ENOUGH)
def test_the_api_opens_a_window_with_its_decisions_each_given_by_whoever_may(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world, request_id = _waiting(api, mode, quorum)

    with WarnedSession(api.engine) as orm, orm.begin():
        session = UnitOfWork(orm, postgres_clock, NO_KEYS)
        for decision in decisions:
            authentication.enter(session, world.people[decision[0]])
            _decide(world, session.connection(), decision)
        authentication.enter(session, _opener(world))
        authentication.turn_to(session, world.tenant.id)
        _open(world, session.connection())

    assert state_of(api, request_id) == "active"


@pytest.mark.parametrize(("mode", "quorum", "decisions"), ENOUGH)
def test_a_window_with_its_decisions_is_taken_in_whatever_order_they_are_written(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world, request_id = _waiting(api, mode, quorum)

    with unbound(api).begin() as connection:
        _open(world, connection)
        for decision in decisions:
            _decide(world, connection, decision)

    assert state_of(api, request_id) == "active"


@pytest.mark.parametrize(
    ("login", "refusal"),
    [
        ("api", 'new row violates row-level security policy for table "requests"'),
        ("owner", "active without the decisions for it"),
        ("superuser", "active without the decisions for it"),
    ],
)
def test_a_request_cannot_be_born_active(urls: Urls, world: World, api: Database, login: str, refusal: str) -> None:
    engine = create_engine(getattr(urls, login), poolclass=NullPool)
    world.submit()
    born = text("""
        INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, policy_version, quorum, approval_window, access_window, state, version, deadline_at, wake_at,
            created_at, opened_at)
        SELECT uuidv7(), tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, policy_version, quorum, approval_window, access_window, 'active', 1, now() + interval '1 minute',
            now() + interval '1 minute', created_at, now()
        FROM requests
    """)

    with (
        pytest.raises(DBAPIError, match=refusal),
        as_caller(engine, world.people["erin"], at=world.tenant.id) as connection,
    ):
        assert connection.execute(born).rowcount == 1

    assert [row.state for row in read(api, "SELECT state FROM requests")] == ["pending"]


def test_a_worker_cannot_open_a_window_either(world: World, worker: Database) -> None:
    request = world.submit()

    with (
        pytest.raises(DBAPIError, match="ck_requests_opened_at"),
        worker.engine.begin() as connection,
    ):
        connection.execute(text("UPDATE requests SET state = 'active', version = version + 1"))

    assert state_of(worker, request.id) == "pending"


def test_a_denial_that_comes_after_the_approvals_outweighs_them(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=3))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("amir", Action.APPROVE, request.id)

    denied = world.act("ann", Action.DENY, request.id)

    assert denied.state == "denied"
    assert state_of(api, request.id) == "denied"
