"""Whether a crowd slows a submission: 1,000 members, of whom three approve, among 10,000 tenants; or one alone."""

import statistics
import time

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from harness.people import World
from harness.stage import copied, superuser_at
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule

TENANTS = 10_000
MEMBERS = 1_000
APPROVERS = 3
ROUNDS = 400
WARM_UP = 40
ALONE, CROWDED = "lockbox_alone", "lockbox_crowded"

TENANT = """
WITH new_tenants AS (
    INSERT INTO tenants (id, slug, name, mode, suspended, plan, policy_version, created_at)
    SELECT uuidv7(), 'crowd-' || n, 'Crowd ' || n, 'enforce', false, 'standard', 1, now()
    FROM generate_series(1, :tenants) AS n RETURNING id
)
INSERT INTO policies (tenant_id, version, body, created_at) SELECT id, 1, '{}', now() FROM new_tenants
"""
ONE_EACH = """
WITH new_people AS (
    INSERT INTO people (id, name, email, side, created_at)
    SELECT uuidv7(), 'Admin ' || slug, 'admin@' || slug || '.example', 'customer', now() FROM tenants
    WHERE slug LIKE 'crowd-%' RETURNING id, email
)
INSERT INTO memberships (id, person_id, tenant_id, role)
SELECT uuidv7(), p.id, t.id, role FROM new_people p JOIN tenants t ON p.email = 'admin@' || t.slug || '.example',
    unnest(ARRAY['tenant_admin', 'approver']) AS role
"""
MEMBER = """
WITH new_people AS (
    INSERT INTO people (id, name, email, side, created_at)
    SELECT uuidv7(), 'Member ' || n, 'member-' || n || '@bench.example', 'customer', now()
    FROM generate_series(1, :members) AS n RETURNING id
)
INSERT INTO memberships (id, person_id, tenant_id, role) SELECT uuidv7(), id, :tenant, :role FROM new_people
"""


def measure(superuser: URL, api: URL, redis_url: str, world: World) -> dict[str, float]:
    """Submit in turns in two copies of the database; return the median milliseconds of each and their ratio."""
    with copied(superuser, ALONE), copied(superuser, CROWDED):
        return _measure(superuser, api, redis_url, world)


def _measure(superuser: URL, api: URL, redis_url: str, world: World) -> dict[str, float]:
    for name, members, tenants in ((ALONE, 0, 0), (CROWDED, MEMBERS - APPROVERS, TENANTS)):
        with superuser_at(superuser.set(database=name)) as engine:
            _fill(engine, world, members, tenants)
    dbs = {name: _db(api.set(database=name), redis_url) for name in (ALONE, CROWDED)}
    taken: dict[str, list[float]] = {name: [] for name in dbs}
    for number in range(WARM_UP + ROUNDS):
        for name, db in dbs.items():
            seconds = _file(world, db)
            if number >= WARM_UP:
                taken[name].append(seconds)
    for db in dbs.values():
        db.dispose()
    alone, crowded = (statistics.median(taken[name]) * 1000 for name in (ALONE, CROWDED))
    return {"alone_ms": alone, "crowded_ms": crowded, "ratio": crowded / alone}


def _fill(engine: Engine, world: World, members: int, tenants: int) -> None:
    """Leave the tenant with three approvers, and add a crowd around it."""
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM memberships WHERE role = 'approver'"))
        for role, count in (("approver", APPROVERS), ("auditor", members)):
            connection.execute(
                text(MEMBER.replace("member-", f"{role}-")),
                {"members": count, "tenant": world.tenant.id, "role": role},
            )
        connection.execute(text(TENANT), {"tenants": tenants})
        connection.execute(text(ONE_EACH))
        connection.execute(text("VACUUM ANALYZE"))


def _db(api: URL, redis_url: str) -> Database:
    return Database(make_engine(api.render_as_string(hide_password=False), role="bench"), Schedule(redis_url))


def _file(world: World, db: Database) -> float:
    began = time.perf_counter()
    world.submit(db=db)
    return time.perf_counter() - began
