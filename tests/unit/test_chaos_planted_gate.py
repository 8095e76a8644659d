"""The bugs that chaos plants in the gate and the guard: each still takes effect in the current code."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from lockbox_guard import database_clock
from lockbox_guard.database_clock import DatabaseClock

from catalogue.load import read_catalogue
from chaos import planted
from chaos.people import CATALOGUE
from gate.mapping import GateCall, ServiceMapping
from gate.window_memory import WindowMemory
from lockbox.requests.models import AccessRequest
from lockbox.sql import new_id
from tests.unit.gate_examples import open_window

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
SERVICE = "exchange-online"


class Seconds:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def healed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what a bug has changed, once the test is over."""
    for owner, name in (
        (AccessRequest, "runs_at"),
        (WindowMemory, "_replace"),
        (WindowMemory, "note_read"),
        (WindowMemory, "put"),
        (ServiceMapping, "map"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(database_clock, "QUIET_SECONDS", database_clock.QUIET_SECONDS)


def test_a_planted_bug_keeps_ended_windows_in_the_gates_memory() -> None:
    memory = WindowMemory()
    memory.put([open_window(number, "files") for number in (1, 2)])
    memory.forget([open_window(1, "files").request.id])
    left = len(memory)

    planted.BUGS["deaf-gate"].plant()
    memory.forget([open_window(2, "files").request.id])
    memory.begin_round()
    memory.put([], [open_window(2, "files").request.id])

    assert (left, len(memory)) == (1, 1)


def test_a_planted_bug_keeps_some_windows_out_of_the_gates_memory() -> None:
    entries = [open_window(number, "files") for number in range(1, 9)]
    planted.BUGS["lost-window"].plant()
    memory = WindowMemory()
    memory.put(entries)

    assert len(memory) == sum(entry.request.id.int % 4 > 0 for entry in entries) < len(entries)


def test_a_planted_bug_keeps_each_window_out_of_memory_until_almost_two_seconds_after_opening() -> None:
    window, ended = open_window(1, "files"), open_window(2, "files")
    vars(window.request).update(opened_at=AT)
    clock = Seconds()
    memory = WindowMemory(clock)
    memory.put([ended])
    planted.BUGS["slow-memory"].plant()

    found = []
    for seconds in (0.1, 1.5, 1.9):
        memory.note_read(clock.now, AT + timedelta(seconds=seconds))
        again = memory.put([window], [window.request.id, ended.request.id], ())
        found.append((memory.requests(), again))

    assert found == [([], [window.request.id])] * 2 + [([window.request.id], [])]


def test_a_planted_bug_sets_the_gates_clock_back_by_an_hour() -> None:
    clock = Seconds()
    memory = WindowMemory(clock)
    memory.note_read(clock.now, AT)
    right = memory.now()

    planted.BUGS["late-gate"].plant()
    memory.note_read(clock.now, AT, [new_id()])

    assert right - memory.now() == timedelta(hours=1)


def test_a_planted_bug_opens_windows_with_a_later_start_at_their_approval() -> None:
    early, begins, late = (AT + timedelta(seconds=number) for number in range(3))
    of_times: Callable[..., AccessRequest] = AccessRequest
    request = of_times(opens_at=begins, deadline_at=late)
    right = [request.runs_at(at) for at in (early, begins, late)]

    planted.BUGS["early-gate"].plant()

    assert right == [False, True, False]
    assert [request.runs_at(at) for at in (early, begins, late)] == [True, True, False]


def test_a_planted_bug_makes_the_gate_confuse_mailboxes() -> None:
    mapping = ServiceMapping(SERVICE, read_catalogue(CATALOGUE).services[SERVICE])
    call = GateCall("GET", "/mailboxes/other-anna@contoso.example", "contoso.mail.example")
    right = mapping.map(call)

    planted.BUGS["other-mailbox"].plant()

    assert right.resource == "mailbox:other-anna@contoso.example"
    assert mapping.map(call).resource == "mailbox:anna@contoso.example"
    assert mapping.map(call)[:2] == right[:2]


def test_a_planted_bug_makes_the_guard_ignore_that_heartbeats_stopped() -> None:
    clock = Seconds()
    known = DatabaseClock(clock)
    known.note_sent()
    known.hear(5_000_000, current=5_000_000)
    clock.now += 60
    quiet = known.is_quiet

    planted.BUGS["open-guard"].plant()

    assert (quiet, known.is_quiet) == (True, False)
