"""When a guarded call continues: under which windows, and how long it waits between them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from lockbox_guard.decisions import Allowed, Use
from lockbox_guard.knowledge import Knowledge
from lockbox_guard.stream_events import LockboxEvent
from lockbox_guard.watches import CallStanding, CallWatch

from tests.unit.guard_lockbox import ANNA, ERIN, SERVICE

USE = Use("contoso", SERVICE, ANNA, "read")
BEGIN = datetime(2026, 11, 28, 12, tzinfo=UTC)
FIRST, SECOND = (UUID(int=(7 << 76) + number) for number in (1, 2))
GOES_ON, WAITS, IS_OVER = CallStanding
Opener = Callable[..., None]


class ToldGuard:
    """A guard's knowledge from a stream that the test writes; guard and database have one clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.knowledge = Knowledge(lambda: self.seconds)
        self.knowledge.clock.note_sent()
        self.number = 0
        self.tell("snapshot", at=self.at(), windows=[], more=False)
        self.changes: list[Allowed] = []

    def at(self, seconds: float | None = None) -> str:
        return (BEGIN + timedelta(seconds=self.seconds if seconds is None else seconds)).isoformat()

    def tell(self, kind: str, **said: Any) -> None:
        self.number += 1
        self.knowledge.take(LockboxEvent(kind, said, f"g1-{self.number}"))

    def window(self, request: UUID, until: float, **more: Any) -> dict[str, Any]:
        said = {"request": str(request), "tenant": "contoso", "service": SERVICE, "engineer": str(ERIN)}
        return {**said, "resources": [ANNA], "actions": ["read"], "until": self.at(until), **more}

    def open(self, request: UUID, until: float, **more: Any) -> None:
        self.tell("open", **self.window(request, until, **more))

    def close(self, request: UUID) -> None:
        self.tell("close", request=str(request))

    def go_to(self, seconds: float) -> None:
        self.seconds = seconds
        self.tell("heartbeat", at=self.at())

    def watch(self, request: UUID = FIRST, *, is_known: bool = True, drain: float = 0.0) -> CallWatch:
        allowed = Allowed(USE, request, ERIN, is_known=is_known)
        return CallWatch(self.knowledge, allowed, lambda: self.seconds, drain, self.changes.append)


@pytest.fixture
def told() -> ToldGuard:
    return ToldGuard()


def test_a_guarded_call_waits_briefly_after_its_window_closes_and_continues_if_it_reopens(
    told: ToldGuard,
) -> None:
    told.open(FIRST, until=3600)
    watch = told.watch()
    assert watch.look() is GOES_ON

    told.go_to(30)
    told.close(FIRST)
    told.go_to(30.5)
    just_closed = watch.look()
    told.open(FIRST, until=3600)

    assert (just_closed, watch.look()) == (WAITS, GOES_ON)
    assert watch.may_go_on()


def test_a_guarded_call_does_not_wait_for_a_window_closed_long_ago(told: ToldGuard) -> None:
    told.open(FIRST, until=3600)
    watch = told.watch()

    told.close(FIRST)
    told.go_to(0.7)

    assert watch.look() is IS_OVER
    told.open(FIRST, until=3600)
    assert watch.look() is IS_OVER


def test_a_window_missing_from_a_new_guard_snapshot_counts_as_closed(told: ToldGuard) -> None:
    told.open(FIRST, until=3600)
    watch = told.watch()
    told.go_to(10)

    told.tell("snapshot", at=told.at(), windows=[], more=False)

    assert watch.look() is WAITS
    told.go_to(10.7)
    assert watch.look() is IS_OVER


@pytest.mark.parametrize("ending", ["close", "time"])
def test_a_guarded_call_continues_under_another_window_that_allows_it(told: ToldGuard, ending: str) -> None:
    told.open(FIRST, until=20)
    told.open(SECOND, until=60, break_glass=True)
    watch = told.watch()

    told.go_to(10 if ending == "close" else 20)
    if ending == "close":
        told.close(FIRST)

    assert watch.look() is GOES_ON
    (now,) = told.changes
    assert watch.allowed == now
    assert (now.request, now.until, now.is_known, now.break_glass, now.use) == (
        SECOND,
        BEGIN + timedelta(seconds=60),
        True,
        True,
        USE,
    )
    told.go_to(60)
    assert watch.look() is IS_OVER


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "fabrikam"},
        {"service": "onedrive"},
        {"engineer": str(UUID(int=1))},
        {"resources": ["mailbox:bob@contoso.example"]},
        {"actions": ["export"]},
    ],
    ids="".join,
)
def test_a_guarded_call_does_not_continue_under_a_window_that_does_not_allow_its_use(
    told: ToldGuard, other: dict[str, Any]
) -> None:
    told.open(FIRST, until=20)
    told.open(SECOND, until=60, **other)
    watch = told.watch()

    told.go_to(20)

    assert (watch.look(), told.changes) == (IS_OVER, [])


def test_between_a_window_and_its_extension_a_guarded_call_waits(told: ToldGuard) -> None:
    told.open(FIRST, until=20)
    watch = told.watch()
    told.open(FIRST, until=20, extended=True)

    told.go_to(20)
    at_the_end = watch.look()
    told.close(FIRST)
    told.go_to(21)
    before_it_opens = watch.look()
    told.open(SECOND, until=40)

    assert (at_the_end, before_it_opens, watch.look()) == (WAITS, WAITS, GOES_ON)
    assert watch.allowed.request == SECOND


@pytest.mark.parametrize("ended", [None, 20.1])
def test_a_guarded_call_does_not_wait_long_for_a_missing_extension(told: ToldGuard, ended: float | None) -> None:
    told.open(FIRST, until=20, extended=True)
    watch = told.watch()

    if ended:
        told.go_to(ended)
        told.close(FIRST)
    told.go_to(21.9)
    waits = watch.look()
    told.go_to(22.1)

    assert (waits, watch.look()) == (WAITS, IS_OVER)


def test_a_guarded_call_of_a_revoked_window_does_not_wait_for_an_extension(told: ToldGuard) -> None:
    told.open(FIRST, until=20, extended=True)
    watch = told.watch()
    told.go_to(10)
    told.close(FIRST)

    told.go_to(10.7)

    assert watch.look() is IS_OVER


def test_the_drain_time_of_a_guarded_call_counts_from_the_windows_end(told: ToldGuard) -> None:
    told.open(FIRST, until=20)
    watch = told.watch(drain=5)

    told.go_to(24.9)
    drains = watch.look()
    told.go_to(25.1)

    assert (drains, watch.look()) == (GOES_ON, IS_OVER)
