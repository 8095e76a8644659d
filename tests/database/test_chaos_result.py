"""What chaos says of a run: one in which nothing happened, or whose drain was never done, is not a good one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis
from redis.exceptions import ReadOnlyError
from sqlalchemy import Engine

from chaos import invariants, plan
from chaos.celery_messages import MessageLog
from chaos.crew import Crew, GuardProcess, ProcessExit
from chaos.evidence import ChaosEvidence, InfrastructureState
from chaos.journal import Journal
from chaos.people import ChaosCustomer, ChaosPeople
from chaos.plan import Fault
from chaos.stage import ChaosStack
from chaos.strikes import STRIKES
from config.embedded import ServerAddresses
from harness.mail_relay import MailRelay
from harness.network import EventLoopThread
from harness.stage import Urls, plan_for

NOBODY = InfrastructureState(frozenset(), 0, 0, {})
CALM = ChaosCustomer("calm", UUID(int=1), {}, {}, (), is_reviewed=False, is_calm=True)


@pytest.fixture
def stage(template: ServerAddresses, urls: Urls, superuser: Engine, tmp_path: Path) -> Iterator[ChaosStack]:
    """A stage on which nothing was started."""
    faults = plan.make(1, 40)
    prepared = plan_for(urls, template, tmp_path / "keys")
    guarded = GuardProcess("", tmp_path, 0)
    crew = Crew(prepared, faults, tmp_path / "logs", guarded)
    loop = EventLoopThread()
    yield ChaosStack(
        faults,
        prepared,
        template,
        superuser,
        loop,
        {},
        MailRelay(),
        MessageLog(),
        ChaosPeople((), CALM, ()),
        crew,
        guarded,
        [403],
    )
    loop.close()


@pytest.fixture
def nothing(stage: ChaosStack) -> ChaosEvidence:
    """The evidence of a run in which nothing happened."""
    return ChaosEvidence(stage, Journal(), {}, (), NOBODY, NOBODY, (), {}, (), ())


def found(seen: ChaosEvidence) -> Mapping[str, tuple[str, ...]]:
    return {one.name: one.off for one in invariants.check(seen) if not one.holds}


def test_a_run_in_which_nothing_happened_shows_nothing(nothing: ChaosEvidence) -> None:
    assert found(nothing) == {
        "run": (
            "only 0 requests submitted, of at least 12",
            "only 0 windows opened, of at least 2",
            "only 0 stories acknowledged, of at least 12",
            "only 0 doors found open, of at least 2",
            "only 0 doors found closed, of at least 80",
            "only 0 events verified, of at least 40",
            "only 0 notifications arrived, of at least 80",
            "only 0 calls by gate let in, of at least 20",
            "only 0 calls by guard let in, of at least 20",
            "only 0 calls by gate without a window, of at least 40",
            "only 0 calls by guard without a window, of at least 40",
            "only 0 calls by gate past a revoke, of at least 8",
            "only 0 calls by guard past a revoke, of at least 4",
            "only 0 calls by gate past a deadline, of at least 4",
            "only 0 calls by guard past a deadline, of at least 4",
            f"only 0 of {len(nothing.stage.faults.faults)} faults were done",
        )
    }


@pytest.mark.parametrize(
    ("what", "invariant"),
    [("requests", "I3"), ("postgres", "I3"), ("unsealed", "I4"), ("notifications", "I5"), ("reports", "I5")],
)
def test_what_the_drain_could_not_wait_out_is_found(nothing: ChaosEvidence, what: str, invariant: str) -> None:
    left = replace(nothing, left={what: 2})

    assert found(left)[invariant] == (f"2 {what} left after the drain",)


def test_who_ended_unasked_is_found(nothing: ChaosEvidence) -> None:
    looping = replace(nothing, ended=(ProcessExit("worker", 1, 100.0),))

    assert found(looping)["crew"] == ("worker ended by itself with 1",)


def test_a_redis_that_is_read_only_refuses_whatever_is_written_until_it_is_lifted(
    stage: ChaosStack, own_valkey: str
) -> None:
    # The stage's own server is that of all tests which run beside this one.
    struck = replace(stage, servers=replace(stage.servers, redis_url=own_valkey))
    with Redis.from_url(own_valkey) as redis:
        redis.set("kept", "so")

        with STRIKES["read_only"](struck, Fault(1, "read_only", "redis", 1, 0)):
            assert redis.get("kept") == b"so"
            with pytest.raises(ReadOnlyError):
                redis.set("kept", "other")

        redis.set("kept", "other")
        assert redis.get("kept") == b"other"
