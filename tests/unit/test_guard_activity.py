"""A guard's reports of activity inside windows: gathered, bounded, and repeated until Lockbox accepts them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from lockbox_guard import Allowed, Guard, Refused, activity, watches

from harness.wait import wait_for
from tests.guarded_apps import PATIENCE, PIECE, GuardedService, OpenCall, get, served, served_wsgi, websocket
from tests.unit.guard_lockbox import ANNA, ERIN, USE, MovedSeconds, SmallLockbox, guard_of, wait_until, window

TOKEN = "lbx_test_reports"
SOON = 20.0


@pytest.fixture
def lockbox() -> Iterator[SmallLockbox]:
    small = SmallLockbox()
    yield small
    small.close()


@pytest.fixture
def clock() -> MovedSeconds:
    return MovedSeconds()


@pytest.fixture
def guard(
    lockbox: SmallLockbox, clock: MovedSeconds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Guard]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    monkeypatch.setattr(activity, "SEND_SECONDS", 0.3)
    with guard_of(lockbox, monkeypatch, reports_token_file=token, clock=clock) as made:
        yield made


@pytest.fixture
def allowed(lockbox: SmallLockbox, guard: Guard) -> Allowed:
    lockbox.open(window())
    wait_until(guard, None, engineer=ERIN)
    return guard.check(**USE, engineer=ERIN)


def counts(lockbox: SmallLockbox) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for _, entries, _ in lockbox.reported:
        for entry in entries:
            kind = (entry["method"], entry["outcome"])
            found[kind] = found.get(kind, 0) + entry["count"]
    return found


def soon(says: Callable[[], bool]) -> None:
    wait_for("it was reported", says, SOON)


def test_the_guard_counts_activity_and_reports_the_counts_for_the_request_that_allowed_it(
    lockbox: SmallLockbox, guard: Guard, allowed: Allowed
) -> None:
    for _ in range(1000):
        guard.report(allowed, method="GET")
    guard.report(allowed, method="GET", outcome="not-found")

    soon(lambda: counts(lockbox) == {("GET", "served"): 1000, ("GET", "not-found"): 1})

    for path, entries, headers in lockbox.reported:
        assert path == f"/v1/requests/{allowed.request}/activity"
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert "lockbox-gateway" not in headers
        assert {(entry["resource"], entry["action"]) for entry in entries} == {(ANNA, "read")}
        for one in entries:
            assert abs(datetime.fromisoformat(one["at"]) - datetime.now(UTC)) < timedelta(seconds=SOON)
    assert len(lockbox.reported) <= 3


@pytest.mark.far
def test_the_guard_repeats_a_report_with_one_idempotency_key_until_lockbox_accepts_it(
    lockbox: SmallLockbox, guard: Guard, allowed: Allowed
) -> None:
    def keys() -> list[str]:
        # The use of the window may have been sent by itself, under a key of its own.
        return [headers["idempotency-key"] for _, entries, headers in lockbox.reported if entries]

    lockbox.takes = 503
    guard.report(allowed, method="GET")
    soon(lambda: len(keys()) > 1)

    tried = len(keys())
    lockbox.takes = 201

    at_most = len(keys()) + 1
    soon(lambda: len(keys()) > tried)
    assert len(set(keys())) == 1
    time.sleep(0.7)
    assert len(keys()) <= at_most


@pytest.mark.far
def test_the_guard_drops_and_logs_a_refused_report(
    lockbox: SmallLockbox, guard: Guard, allowed: Allowed, caplog: pytest.LogCaptureFixture
) -> None:
    lockbox.takes = 409
    guard.report(allowed, method="GET")

    soon(lambda: "refused with 409" in caplog.text)
    lockbox.takes = 201
    guard.report(allowed, method="PUT")

    soon(lambda: ("PUT", "served") in counts(lockbox))
    assert ANNA not in caplog.text


def test_checks_of_the_guard_never_wait_for_reports_and_reports_are_bounded(
    lockbox: SmallLockbox,
    guard: Guard,
    allowed: Allowed,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(activity, "MOST_KINDS", 100)
    lockbox.takes = 503
    began = time.thread_time()

    for number in range(200):
        guard.report(allowed, method=f"M{number}")
        guard.check(**USE, engineer=ERIN)

    assert time.thread_time() - began < 0.5
    soon(lambda: "'no room'" in caplog.text)


def test_stopping_the_guard_sends_the_remaining_reports(
    lockbox: SmallLockbox, guard: Guard, allowed: Allowed
) -> None:
    guard.report(allowed, method="GET")

    guard.stop()

    assert counts(lockbox) == {("GET", "served"): 1}


@pytest.mark.parametrize(("method", "outcome"), [("", "served"), ("GET", "Served"), ("G T", "served"), ("GET", "")])
def test_the_guard_refuses_to_report_activity_with_an_invalid_method_or_outcome(
    guard: Guard, allowed: Allowed, method: str, outcome: str
) -> None:
    with pytest.raises(ValueError, match="name a method"):
        guard.report(allowed, method=method, outcome=outcome)


def test_a_guard_without_a_report_token_refuses_to_report_activity(
    lockbox: SmallLockbox, allowed: Allowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guard_of(lockbox, monkeypatch) as bare, pytest.raises(TypeError, match="reports_token_file"):
        bare.report(allowed, method="GET")


def uses(lockbox: SmallLockbox, request: UUID | None) -> int:
    """Return the reported number of uses of a window."""
    path = f"/v1/requests/{request}/activity"
    return sum(one["count"] for where, one in lockbox.used if where == path)


@pytest.mark.far
def test_the_guard_reports_each_allow_from_memory_as_a_use(
    lockbox: SmallLockbox, guard: Guard, allowed: Allowed
) -> None:
    lockbox.takes = 503
    for _ in range(9):
        guard.check(**USE, engineer=ERIN)
    with pytest.raises(Refused):
        guard.check(**USE | {"action": "export"}, engineer=ERIN)
    soon(lambda: len(lockbox.reported) > 1)

    lockbox.takes = 201

    soon(lambda: uses(lockbox, allowed.request) == 11)
    assert counts(lockbox) == {}, "nobody said what was done"
    first, *_, last = (one for _, one in lockbox.used)
    assert {(one["resource"], one["action"]) for _, one in lockbox.used} == {(ANNA, "read")}
    assert datetime.fromisoformat(first["at"]) <= datetime.fromisoformat(last["at"]) <= datetime.now(UTC)


def test_the_guard_does_not_report_an_allow_already_counted_by_the_gate(lockbox: SmallLockbox, guard: Guard) -> None:
    lockbox.knows("erin", seconds=3600)
    lockbox.says_yes("Bearer erin")
    wait_until(guard, None, token="erin")
    allowed = guard.check(**USE, token="erin")
    assert not allowed.is_known
    guard.report(allowed, method="GET")

    guard.stop()

    assert (counts(lockbox), lockbox.used) == ({("GET", "served"): 1}, [])


@pytest.mark.far
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_guard_middleware_reports_each_served_call_and_each_call_that_it_cut(
    lockbox: SmallLockbox, guard: Guard, allowed: Allowed
) -> None:
    assert allowed.request is not None
    lockbox.knows("erin", seconds=3600)
    shown = "Authorization: Bearer erin"
    with served(GuardedService(guard)) as port, served_wsgi(guard) as wsgi:
        get(port, "/mailboxes/anna", shown).wait_for(b"200 OK")
        get(port, "/mailboxes/bob", shown).wait_for(b"403 Forbidden")
        get(wsgi, "/mailboxes/anna", shown, method="BREW").wait_for(b"200 OK")
        calls = get(port, "/mailboxes/anna/live", shown), websocket(port, "/mailboxes/anna/live", shown)
        calls[0].wait_for(PIECE)
        soon(lambda: counts(lockbox).get(("WEBSOCKET", "served")) == 1)

        lockbox.shut(allowed.request)
        for call in calls:
            call.wait_for_end()

    served_twice = {("GET", "served"): 2, ("BREW", "served"): 1, ("WEBSOCKET", "served"): 1}
    soon(lambda: counts(lockbox) == served_twice | {("GET", "cut"): 1, ("WEBSOCKET", "cut"): 1})


def rests(call: OpenCall) -> bool:
    """Return whether nothing more of the answer comes for a while."""
    before = len(call.read)
    time.sleep(0.3)
    return len(call.read) == before


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_guard_middleware_pauses_a_call_between_a_window_and_its_extension_and_reports_both(
    lockbox: SmallLockbox, guard: Guard, clock: MovedSeconds, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "SEAM_SECONDS", 600.0)
    lockbox.knows("erin", seconds=3600)
    first = lockbox.open(window(seconds=60, extended=True))
    wait_until(guard, None, engineer=ERIN)
    with served(GuardedService(guard)) if kind == "asgi" else served_wsgi(guard) as port:
        call = get(port, "/mailboxes/anna/live", "Authorization: Bearer erin")
        call.wait_for(PIECE)
        clock.ahead = 60
        wait_until(guard, "no_window", engineer=ERIN)
        wait_for("nothing more comes", lambda: rests(call), PATIENCE)
        before_the_next, is_cut = len(call.read), call.ended_at is not None

        second = lockbox.open(window())
        soon(lambda: len(call.read) > before_the_next)
        lockbox.shut(second)
        call.wait_for_end()

    def reported() -> set[str]:
        return {
            path for path, entries, _ in lockbox.reported if any(entry["outcome"] == "served" for entry in entries)
        }

    assert not is_cut
    soon(lambda: reported() == {f"/v1/requests/{one}/activity" for one in (first, second)})
    assert {path for path, _ in lockbox.used} == reported()


def test_guard_middleware_without_a_report_token_sends_no_reports(
    lockbox: SmallLockbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockbox.knows("erin", seconds=3600)
    lockbox.open(window())
    with guard_of(lockbox, monkeypatch) as bare, served(GuardedService(bare)) as port:
        wait_until(bare, None, engineer=ERIN)
        get(port, "/mailboxes/anna", "Authorization: Bearer erin").wait_for(b"200 OK")

    assert lockbox.reported == []
