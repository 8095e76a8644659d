"""How many requests a person and a tenant can submit in a minute, and whose submissions count."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from harness.clocks import ShiftedClock
from harness.people import HERE, SETTINGS, World
from harness.stage import unbound
from lockbox.database import Database
from lockbox.errors import TooMany
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests import submit
from lockbox.requests.submit import SubmissionLimits
from lockbox.sql import new_id


def submitted_at(world: World, caller: Caller, nth: int) -> datetime | None:
    """Return when the caller submitted the nth newest of their requests."""
    values = {"most_tenant": 1, "most_person": nth}
    with world.db.transaction() as session:
        authentication.enter(session, caller)
        found: datetime | None = session.execute(submit.NTH_SUBMISSION, values).one().person_at
        return found


@pytest.mark.parametrize(("limits", "who"), [(SubmissionLimits(3, 1000), "erin"), (SubmissionLimits(1000, 3), "eve")])
def test_submissions_over_the_limit_are_refused_until_the_minute_is_over(
    world: World, later: ShiftedClock, limits: SubmissionLimits, who: str
) -> None:
    for _ in range(3):
        world.submit("erin")
    shifted = Database(world.db.engine, world.db.schedule, later)

    with pytest.raises(TooMany) as refused, world.db.transaction() as session:
        submit.submit(
            session, world.people[who], HERE, world.submission(), SETTINGS.catalogue.services, limits=limits
        )
    later.shift = timedelta(seconds=61)
    with shifted.transaction() as session:
        taken = submit.submit(
            session, world.people[who], HERE, world.submission(), SETTINGS.catalogue.services, limits=limits
        )

    assert 1 <= refused.value.facts["retry_after"] <= 60
    assert taken.request.state is State.PENDING


def test_a_personal_submission_limit_does_not_bind_other_people(world: World) -> None:
    for _ in range(3):
        world.submit("erin")

    with world.db.transaction() as session:
        taken = submit.submit(
            session,
            world.people["eve"],
            HERE,
            world.submission(),
            SETTINGS.catalogue.services,
            limits=SubmissionLimits(3, 1000),
        )

    assert taken.request.version == 1


@pytest.mark.parametrize("means", AuthMethod)
def test_a_personal_submission_limit_applies_to_every_credential(world: World, means: AuthMethod) -> None:
    for _ in range(3):
        world.submit("erin")
    another = replace(world.people["erin"], means=means, key_id=new_id() if means is not AuthMethod.OIDC else None)

    with pytest.raises(TooMany), world.db.transaction() as session:
        submit.submit(
            session, another, HERE, world.submission(), SETTINGS.catalogue.services, limits=SubmissionLimits(3, 1000)
        )


def test_submissions_by_a_system_count_against_the_systems_limit(world: World) -> None:
    bot = world.add("bot", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services=set(SETTINGS.catalogue.services))
    for _ in range(3):
        world.submit("bot", engineer=world.people["erin"].person_id)

    with world.db.transaction() as session:
        submit.submit(
            session,
            world.people["erin"],
            HERE,
            world.submission(),
            SETTINGS.catalogue.services,
            limits=SubmissionLimits(3, 1000),
        )
    named = world.submission(engineer=world.people["eve"].person_id)
    with pytest.raises(TooMany), world.db.transaction() as session:
        submit.submit(session, bot, HERE, named, SETTINGS.catalogue.services, limits=SubmissionLimits(3, 1000))


def test_indexes_serve_the_query_that_counts_submissions_for_the_limit(world: World) -> None:
    world.submit("erin")

    with unbound(world.db).begin() as connection:
        body = connection.execute(text("SELECT prosrc FROM pg_proc WHERE proname = 'nth_submission'")).scalar_one()
        # Of the few rows of a test, sorting them is as good: the question is whether indexes give their order.
        for way in ("seqscan", "bitmapscan", "sort"):
            connection.execute(text(f"SET LOCAL enable_{way} = off"))
        for name, value in (
            ("of_tenant", f"CAST('{world.tenant.id}' AS uuid)"),
            ("most_tenant", 30),
            ("most_person", 30),
        ):
            body = body.replace(name, str(value))
        plan = "".join(connection.execute(text(f"EXPLAIN {body}")).scalars())

    for index in ("tenant_id_id", "requester_id_id", "submitted_by_id"):
        assert f"Index Scan Backward using ix_requests_{index} on requests" in plan
    # That of the filings of both kinds, as many of each as there may be.
    assert plan.count("Sort Key") == 1


def test_the_submission_limit_counts_only_a_persons_own_submissions(
    world: World,
) -> None:
    bot = world.add("bot", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services=set(SETTINGS.catalogue.services))
    erin = world.people["erin"]
    own = [world.submit("erin"), world.submit("erin")]
    named = [world.submit("bot", engineer=erin.person_id) for _ in range(2)]
    own.append(world.submit("erin"))

    assert [submitted_at(world, erin, nth) for nth in (1, 2, 3, 4)] == [
        *(one.created_at for one in reversed(own)),
        None,
    ]
    assert [submitted_at(world, bot, nth) for nth in (1, 2, 3)] == [
        *(one.created_at for one in reversed(named)),
        None,
    ]
